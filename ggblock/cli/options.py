"""Options that run, chat and bench share, and how their values reach the library."""
from __future__ import annotations

import contextlib
import re
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import click

from ggblock.cli.common import note, resolve_model
from ggblock.errors import InvalidText, SettingError
from ggblock.models import ACTIVATIONS, KV_TYPES

if TYPE_CHECKING:
    from ggblock.runtime import Generation, Model, Result, Sampling

F = TypeVar("F", bound=Callable[..., Any])


class BiasType(click.ParamType):
    """``ID=BIAS``, or llama.cpp's ``ID+BIAS`` and ``ID-BIAS``; ``-inf`` bans the token."""

    name = "ID=BIAS"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, float]:
        if isinstance(value, tuple):
            return value
        match = re.fullmatch(r"\s*(\d+)\s*(?:=\s*|(?=[+-]))(\S+)\s*", value)
        try:
            if match is None:
                raise ValueError
            return int(match[1]), float(match[2])
        except ValueError:
            self.fail(f"{value!r} is not ID=BIAS, such as 1234=-2.5 or 1234=-inf", param, ctx)


class OffloadType(click.ParamType):
    """Layers that a GPU computes; see `ggblock.engine.placement`."""

    name = "WHAT"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        from ggblock.engine.placement import parse

        try:
            parse(value)  # said here, so that a misspelt value is wrong usage; the engine reads it again
            return value
        except SettingError as error:
            self.fail(str(error), param, ctx)


def generation_options(function: F) -> F:
    """Add how much to write and how to choose tokens; give the parameters to `sampling_of`."""
    options = [
        click.option("--temp", "temperature", type=float, default=0.8, show_default=True,
                     help="0 always takes the most likely token."),
        click.option("--top-k", type=int, default=40, show_default=True, help="Most likely tokens kept; 0: all."),
        click.option("--top-p", type=float, default=0.95, show_default=True,
                     help="Most likely tokens kept up to this probability together; 1: all."),
        click.option("--min-p", type=float, default=0.05, show_default=True,
                     help="Tokens kept at least this many times as likely as the best; 0: all."),
        click.option("--typical", type=float, default=1.0, show_default=True, help="Locally typical sampling; 1: off."),
        click.option("--repeat-penalty", type=float, default=1.0, show_default=True, help="1: off."),
        click.option("--repeat-last-n", type=int, default=64, show_default=True,
                     help="Tokens that the penalties look back; 0: off, -1: the context."),
        click.option("--frequency-penalty", type=float, default=0.0, show_default=True, help="0: off."),
        click.option("--presence-penalty", type=float, default=0.0, show_default=True, help="0: off."),
        click.option("--logit-bias", type=BiasType(), multiple=True, metavar="ID=BIAS",
                     help="Added to a token's logit; -inf bans it. May be repeated."),
        click.option("--seed", type=int, default=None, help="Same seed, same text. Without it: a random one."),
        click.option("--stop", multiple=True, metavar="TEXT", help="Ends the text before TEXT. May be repeated."),
    ]
    return _add(function, options)


kv_option = click.option(
    "--kv", type=click.Choice(KV_TYPES), default=None,
    help="Type of the key-value cache. [default: q12 with fast activations on x86, else f16]",
)  # fmt: skip
activations_option = click.option(
    "--activations", type=click.Choice(tuple(ACTIVATIONS)), default=None,
    help="How activations are held: fast (int8 for many tokens, 15 bits for one), fine (15 bits always) or exact "
    "(float32, slow). [default: fast]",
)  # fmt: skip
reference_option = click.option(
    "--reference", is_flag=True, help="As --activations exact --kv f32: what the others are measured by."
)


def engine_options(function: F) -> F:
    """Add how the model computes, all but threads and context; give the parameters to `open_model`."""
    offload = click.option(
        "--offload", type=OffloadType(), default=None, metavar="WHAT",
        help="What an NVIDIA GPU computes: the last N layers, all, auto (as many as fit), none, or a pattern that "
        "tensor names match. Needs the extra ggblock[cuda].",
    )  # fmt: skip
    return _add(function, [offload, kv_option, activations_option, reference_option])


context_option = click.option(
    "--ctx", "context", type=click.IntRange(min=1), default=None, metavar="TOKENS",
    help="Room for prompt and answer. Without it: what the model was trained for, at most 8192.",
)  # fmt: skip
threads_option = click.option(
    "-t", "--threads", type=click.IntRange(min=1), default=None, help="Without it: what suits this CPU."
)


def _add(function: F, options: Sequence[Callable[[F], F]]) -> F:
    for option in reversed(options):
        function = option(function)
    return function


def sampling_of(options: dict[str, Any]) -> Sampling:
    """Take the parameters of `generation_options` but ``stop`` out of ``options``."""
    from ggblock.runtime.settings import Sampling

    names = ("temperature", "top_k", "top_p", "min_p", "typical", "repeat_penalty", "repeat_last_n")
    settings = {name: options.pop(name) for name in (*names, "frequency_penalty", "presence_penalty", "seed")}
    try:
        return Sampling(**settings, logit_bias=dict(options.pop("logit_bias")))
    except SettingError as error:
        raise click.UsageError(str(error)) from None


def open_model(model: str, *, require_vocabulary: bool = True, **options: Any) -> Model:
    """Load MODEL with the parameters of `engine_options`; what takes long is said on stderr."""
    path = resolve_model(model)
    from ggblock.runtime import load

    return load(path, require_vocabulary=require_vocabulary, notify=note, **options)


def text_or_stdin(text: str) -> str:
    """The text itself, or standard input for "-"."""
    if text != "-":
        return text
    data: bytes = sys.stdin.buffer.read()
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InvalidText("not UTF-8", file="standard input", offset_bytes=error.start) from None


@contextlib.contextmanager
def interrupt_cancels(generation: Generation) -> Iterator[None]:
    """The first Ctrl-C ends the text at the next token, so that the engine's threads finish what they compute.

    The second one interrupts at once. Where Ctrl-C was ignored (a job in the background), it stays ignored.
    """

    def handler(*_: object) -> None:
        generation.cancel()
        signal.signal(signal.SIGINT, previous)

    previous = signal.getsignal(signal.SIGINT)
    if previous in (signal.SIG_IGN, None):
        yield
        return
    signal.signal(signal.SIGINT, handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)


def tell_end(result: Result, n_ctx: int) -> None:
    """A word on stderr where the context is full; the speed too when a person is looking."""
    if result.finish_reason == "context":
        note(f"ggblock: the context is full ({n_ctx} tokens); --ctx makes room")
    if not sys.stderr.isatty():
        return
    timings = result.timings
    parts = []
    if timings.prefill_tokens_per_s is not None:
        n_read = timings.prompt_tokens - timings.reused_tokens
        parts.append(f"read {n_read} tokens at {timings.prefill_tokens_per_s:.0f}/s")
    if timings.decode_tokens_per_s is not None:
        parts.append(f"wrote {timings.generated_tokens} at {timings.decode_tokens_per_s:.1f}/s")
    if parts:
        note(click.style(f"[{', '.join(parts)}]", dim=True))


def timings_document(result: Result) -> dict[str, Any]:
    """What ``--json`` tells of the time; seconds, and tokens a second."""
    timings = result.timings
    return {
        "load_s": timings.load_s,
        "prompt_tokens": timings.prompt_tokens,
        "reused_tokens": timings.reused_tokens,
        "prompt_s": timings.prompt_s,
        "prefill_tokens_per_s": timings.prefill_tokens_per_s,
        "first_token_s": timings.first_token_s,
        "generated_tokens": timings.generated_tokens,
        "decode_tokens": timings.decode_tokens,
        "decode_s": timings.decode_s,
        "decode_tokens_per_s": timings.decode_tokens_per_s,
    }
