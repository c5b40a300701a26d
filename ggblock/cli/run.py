"""``ggblock run``: answer one prompt."""
from __future__ import annotations

from typing import Any

import click

from ggblock.cli.common import emit_json, json_option, model_argument, note
from ggblock.cli.options import (
    context_option,
    engine_options,
    generation_options,
    interrupt_cancels,
    open_model,
    sampling_of,
    tell_end,
    text_or_stdin,
    threads_option,
    timings_document,
)
from ggblock.errors import SettingError


@click.command(
    epilog="Example:  ggblock run smollm2-135m-instruct -p 'Why is the sky blue?' --seed 1",
)
@model_argument
@click.option("-p", "--prompt", required=True, metavar="TEXT", help="What to answer; - reads standard input.")
@click.option("--system", default=None, metavar="TEXT", help="System message for the chat template.")
@click.option("--raw", is_flag=True, help="Continue the prompt as it is, without the chat template.")
@click.option("-n", "--max-tokens", type=click.IntRange(min=-1), default=None, metavar="N",
              help="At most N tokens; 0: none, -1: until the context is full. "
              "[default: -1 for an answer, 128 for a continuation]")
@generation_options
@context_option
@threads_option
@engine_options
@json_option
def command(
    model: str,
    prompt: str,
    system: str | None,
    raw: bool,
    max_tokens: int | None,
    stop: tuple[str, ...],
    as_json: bool,
    **options: Any,
) -> None:
    """Answer a prompt, streaming.

    The prompt goes through the file's chat template when it has one, and is continued as it is otherwise or with
    --raw. Tokens are chosen in llama.cpp's order: bias, penalties, top-k, typical, top-p, min-p, temperature.

    --json gives the text, the token ids, why it ended (stop, stop_string, length, context, cancelled) and timings.
    """
    if raw and system is not None:
        raise click.UsageError("--system needs the chat template, which --raw leaves out")
    sampling = sampling_of(options)
    prompt = text_or_stdin(prompt)
    with open_model(model, **options) as loaded:
        if raw or not loaded.has_chat_template:
            if system is not None:
                raise SettingError("the file has no chat template", file=loaded.path, where="--system")
            if not raw:
                note("ggblock: the file has no chat template; continuing the prompt as it is")
            n_tokens = 128 if max_tokens is None else max_tokens
            generation = loaded.generate(prompt, n_tokens, stop=stop, parse_special=True, sampling=sampling)
        else:
            messages = [] if system is None else [{"role": "system", "content": system}]
            messages.append({"role": "user", "content": prompt})
            generation = loaded.chat(messages, -1 if max_tokens is None else max_tokens, stop=stop, sampling=sampling)
        last = "\n"
        with interrupt_cancels(generation):
            for piece in generation:
                if not as_json:
                    click.echo(piece, nl=False)
                    last = piece
        if not last.endswith("\n"):
            click.echo()
        result = generation.result
        if as_json:
            emit_json(
                {
                    "model": loaded.path,
                    "text": result.text,
                    "ids": list(result.ids),
                    "prompt_ids": list(result.prompt_ids),
                    "finish_reason": result.finish_reason,
                    "stop_string": result.stop_string,
                    "seed": result.seed,
                    "timings": timings_document(result),
                }
            )
        tell_end(result, loaded.n_ctx)
    if result.finish_reason == "cancelled":
        raise SystemExit(130)
