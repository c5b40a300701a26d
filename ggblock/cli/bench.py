"""``ggblock bench``: tokens per second of prefill and decode."""
from __future__ import annotations

from typing import Any

import click

from ggblock.cli.common import emit_json, json_option, model_argument
from ggblock.cli.options import engine_options, open_model


class CountsType(click.ParamType):
    """``512`` or ``128,512``."""

    name = "N,…"

    def __init__(self, low: int) -> None:
        self.low = low

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, ...]:
        if isinstance(value, tuple):
            return value
        try:
            counts = tuple(int(part) for part in str(value).split(","))
        except ValueError:
            self.fail(f"{value!r} is not a number or numbers with commas between them", param, ctx)
        if min(counts) < self.low:
            self.fail(f"{min(counts)} is less than {self.low}", param, ctx)
        return counts


def _counts(*names: str, default: int | None, low: int, text: str) -> Any:
    values = () if default is None else ((default,),)
    if default is not None:
        text += f" [default: {default}]"
    return click.option(*names, type=CountsType(low), multiple=True, default=values, metavar="N,…", help=text)


@click.command(
    epilog="Example:  ggblock bench smollm2-135m-instruct -p 512 -n 128 -d 0,4096 -t 1,2 --json",
)
@model_argument
@_counts("-p", "--prompt", default=512, low=0, text="Tokens of a prefill; 0: no prefill.")
@_counts("-n", "--generate", default=128, low=0, text="Tokens of a decode; 0: no decode.")
@_counts("-d", "--depth", default=0, low=0, text="Tokens in the KV cache before the test.")
@_counts("-t", "--threads", default=None, low=1, text="Without it: what suits this CPU.")
@click.option("--all-logits", is_flag=True, help="Decode for the logits of all tokens, not only of the most likely.")
@click.option("-r", "--repetitions", type=click.IntRange(min=1), default=5, show_default=True)
@engine_options
@json_option
def command(
    model: str,
    prompt: tuple[tuple[int, ...], ...],
    generate: tuple[tuple[int, ...], ...],
    depth: tuple[tuple[int, ...], ...],
    threads: tuple[tuple[int, ...], ...],
    all_logits: bool,
    repetitions: int,
    as_json: bool,
    **options: Any,
) -> None:
    """Measure tokens per second: the mean of the repetitions after a warm-up, and their standard deviation.

    Numbers may be repeated or come with commas. Tokens are random. A step of decode ends with the most likely next
    token, as at temperature 0; drawing one is not part of the time.
    """
    from ggblock.runtime.bench import cases_of, context_for, measure

    tests = cases_of(_flat(prompt), _flat(generate), _flat(depth))
    if not tests:
        raise click.UsageError("nothing to measure: -p and -n are both 0")
    context = context_for(tests)
    results = []
    width = max(len(test.name) for test in tests)
    counts: list[int | None] = [*_flat(threads)] or [None]
    for n_threads in counts:
        with open_model(model, require_vocabulary=False, threads=n_threads, context=context, **options) as loaded:
            for measured in measure(loaded, tests, repetitions, best=0 if all_logits else 1):
                test = measured.test
                entry: dict[str, Any] = {
                    "test": test.name, "tokens_per_s": measured.tokens_per_s, "stddev": measured.stddev
                }  # fmt: skip
                if n_threads is not None:
                    entry["threads"] = n_threads
                results.append(entry)
                if not as_json:
                    named = "" if n_threads is None else f"  {n_threads} threads"
                    speed = f"{measured.tokens_per_s:10.2f} ± {measured.stddev:.2f} tokens/s"
                    click.echo(f"{test.name:{width}}{named}  {speed}")
    if as_json:
        emit_json({"results": results})


def _flat(counts: tuple[tuple[int, ...], ...]) -> list[int]:
    return list(dict.fromkeys(n for group in counts for n in group))
