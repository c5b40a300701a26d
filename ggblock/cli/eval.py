"""``ggblock eval``: perplexity, and divergence from a reference model."""
from __future__ import annotations

import contextlib
import sys
from dataclasses import asdict
from typing import Any

import click

from ggblock.cli.common import emit_json, json_option, model_argument
from ggblock.cli.options import activations_option, kv_option, open_model, text_or_stdin, threads_option
from ggblock.errors import GgblockError


@click.command(
    epilog="Example:  ggblock eval small.gguf prose.txt --reference large.gguf --chunks 20",
)
@model_argument
@click.argument("text", metavar="TEXT")
@click.option("--reference", default=None, metavar="REF",
              help="A model taken as exact and run in float32; MODEL itself shows what its run loses.")
@click.option("--chunk", type=click.IntRange(min=4), default=512, show_default=True,
              help="Tokens of a chunk; the second half of each is scored.")
@click.option("--chunks", "n_chunks", type=click.IntRange(min=1), default=None, help="At most so many chunks.")
@click.option("--exact", is_flag=True, help="Run MODEL in float32 too: as --activations exact --kv f32.")
@kv_option
@activations_option
@threads_option
@json_option
def command(
    model: str,
    text: str,
    reference: str | None,
    chunk: int,
    n_chunks: int | None,
    exact: bool,
    kv: str | None,
    activations: str | None,
    threads: int | None,
    as_json: bool,
) -> None:
    """Score MODEL on the file TEXT (- reads standard input): perplexity, and divergence from REF.

    The text is cut into chunks that are read anew, as llama.cpp's perplexity tool does. KL is in nats a token.
    """
    from ggblock.evaluate import run

    content = _read(text)
    shared: dict[str, Any] = {"threads": threads, "context": chunk}
    with contextlib.ExitStack() as stack:
        scored = stack.enter_context(open_model(model, reference=exact, kv=kv, activations=activations, **shared))
        chunks = run.chunks_of(scored, content, chunk, limit=n_chunks)
        progress = _tell if sys.stderr.isatty() else None
        if reference is None:
            found = run.perplexity(scored, chunks, progress)
            document: dict[str, Any] = asdict(found)
            lines = [f"perplexity  {found.perplexity:.4f} ± {found.stderr:.4f}  ({found.n_tokens} tokens)"]
        else:
            other = stack.enter_context(open_model(reference, reference=True, **shared))
            report = run.divergence(scored, other, chunks, progress)
            document = report.as_dict()
            lines = [
                f"mean KL      {report.mean_kl:.6f} ± {report.mean_kl_stderr:.6f}  ({report.n_tokens} tokens)",
                f"99.9 % KL    {report.kl_999:.4f}",
                f"same top-1   {report.same_top1:.2%}",
                f"NMSE         {report.nmse:.3g}",
                f"perplexity   {report.perplexity:.4f} (reference {report.perplexity_exact:.4f})",
            ]
    if as_json:
        emit_json(document)
    else:
        click.echo("\n".join(lines))


def _tell(done: int, total: int) -> None:
    click.echo(f"\rchunk {done} of {total}" + ("\n" if done == total else ""), nl=False, err=True)


def _read(path: str) -> str:
    if path == "-":
        return text_or_stdin("-")
    try:
        with open(path, encoding="utf-8") as file:
            return file.read()
    except UnicodeDecodeError as error:
        raise GgblockError("not UTF-8", file=path, offset_bytes=error.start) from None
    except OSError as error:
        raise GgblockError(f"the text cannot be read ({error.strerror})", file=path) from None
