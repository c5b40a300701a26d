"""``ggblock chat``: a conversation in the terminal."""
from __future__ import annotations

import contextlib
import sys
from typing import TYPE_CHECKING, Any

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
    threads_option,
    timings_document,
)
from ggblock.errors import ContextOverflow, GgblockError, InvalidText

if TYPE_CHECKING:
    from ggblock.runtime import Result, Session

HELP = """\
/quit          leave (also Ctrl-D)
/reset         forget the conversation, keep the system message
/system TEXT   begin anew with this system message; without TEXT: without one
/help          this list
Ctrl-C stops an answer. A space before a slash makes it plain text."""


@click.command(
    epilog="Example:  ggblock chat smollm2-135m-instruct --system 'Answer in one sentence.'",
)
@model_argument
@click.option("--system", default=None, metavar="TEXT", help="System message.")
@click.option("-n", "--max-tokens", type=click.IntRange(min=-1), default=-1, metavar="N",
              help="At most N tokens an answer; 0: none, -1: until the context is full.", show_default=True)
@generation_options
@context_option
@threads_option
@engine_options
@json_option
def command(
    model: str, system: str | None, max_tokens: int, stop: tuple[str, ...], as_json: bool, **options: Any
) -> None:
    """Hold a conversation, with the file's own chat template (or a built-in one, which is said).

    Reads one message a line, also from a pipe. /help lists the commands. --json writes the conversation at the end.
    """
    sampling = sampling_of(options)
    is_terminal = sys.stdin.isatty() and sys.stdout.isatty()
    with open_model(model, **options) as loaded:
        loaded.chat_template  # noqa: B018  a missing or broken one is told before the first message
        session = loaded.session(system, max_tokens=max_tokens, stop=stop, sampling=sampling)
        answers: list[Result] = []
        if is_terminal:
            with contextlib.suppress(ImportError):  # Windows: plain input
                import readline  # noqa: F401  line editing and history for input()
            note("/help lists the commands, Ctrl-D leaves.")
        while True:
            try:
                line = _read_line("> " if is_terminal else "")
            except EOFError:
                if is_terminal:
                    click.echo()
                break
            except KeyboardInterrupt:
                if not is_terminal:
                    raise
                click.echo()
                note("Ctrl-D or /quit leaves.")
                continue
            if line.startswith("/"):
                if not _obey(line, session):
                    break
            elif line.strip():
                try:
                    result = _answer(session, line, is_quiet=as_json)
                except GgblockError as error:
                    if not is_terminal:
                        raise
                    hint = "; /reset begins anew" if isinstance(error, ContextOverflow) else ""
                    note(f"ggblock: {error}{hint}")  # the conversation goes on without this message
                else:
                    answers.append(result)
                    tell_end(result, loaded.n_ctx)
        if as_json:
            emit_json(
                {
                    "model": loaded.path,
                    "messages": session.messages,
                    "answers": [
                        {"finish_reason": r.finish_reason, "seed": r.seed, "timings": timings_document(r)}
                        for r in answers
                    ],
                }
            )


def _read_line(prompt: str) -> str:
    try:
        return input(prompt)
    except UnicodeDecodeError:
        raise InvalidText("not UTF-8", file="standard input") from None


def _answer(session: Session, text: str, *, is_quiet: bool) -> Result:
    reply = session.send(text)
    with interrupt_cancels(reply.generation):
        for piece in reply:
            if not is_quiet:
                click.echo(piece, nl=False)
    if not is_quiet:
        click.echo()
    return reply.generation.result


def _obey(line: str, session: Session) -> bool:
    """Do what a line that begins with a slash says; False to leave."""
    name, _, rest = line.partition(" ")
    if name in ("/quit", "/exit"):
        return False
    if name == "/reset":
        session.reset(session.system)
        note("The conversation begins anew.")
    elif name == "/system":
        session.reset(rest.strip() or None)
        note("The conversation begins anew with this system message." if rest.strip() else "No system message.")
    elif name == "/help":
        note(HELP)
    else:
        note(f"{name} is no command; /help lists them")
    return True
