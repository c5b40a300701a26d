"""``ggblock verify``: whether a file is whole."""
from __future__ import annotations

import sys

import click

from ggblock.cli.common import emit_json, json_option, model_argument, numpy_without_threads, resolve_model


@click.command(epilog="Example:  ggblock verify model.gguf --against model.gguf.sha256")
@model_argument
@click.option("--against", type=click.Path(dir_okay=False), metavar="FILE",
              help="Hashes from elsewhere: sha256sum's output, or a manifest of llama.cpp's gguf-hash.")
@click.option("--quick", is_flag=True, help="Structure and checksums only; do not look at the values of blocks.")
@json_option
def command(model: str, against: str | None, quick: bool, as_json: bool) -> None:
    """Check that MODEL is whole: structure, checksums, values, and metadata against tensors.

    Names each damaged tensor with its bytes. Exit code 1 when something is wrong. Never changes a file.
    """
    numpy_without_threads()
    from ggblock.inspect import verify, words

    path = resolve_model(model)
    with click.progressbar(length=1000, label="checking", file=sys.stderr, hidden=not sys.stderr.isatty()) as bar:
        verdict = verify.verify(
            path, against, values=not quick, progress=lambda done, total: bar.update(1000 * done // total - bar.pos)
        )
    if as_json:
        emit_json(verify.verdict_document(verdict))
    else:
        for fault in verdict.faults:
            where = "" if fault.start is None else f" (bytes {fault.start} to {fault.end})"
            kind = "warning" if fault.warning else fault.code
            part = f"{fault.path}: " if fault.path != verdict.path else ""
            click.echo(f"{kind}: {part}{words.readable(fault.where)}: {words.readable(fault.message)}{where}")
        state = "whole" if verdict.is_whole else "DAMAGED"
        extra = "" if verdict.has_checksums or against is not None else "; the file carries no checksums"
        click.echo(f"{words.readable(verdict.path)}: {state}; checked {', '.join(verdict.checks)}{extra}")
    if not verdict.is_whole:
        raise SystemExit(1)
