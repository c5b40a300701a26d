"""``ggblock convert``: a checkpoint into a GGUF or GGB file."""
from __future__ import annotations

import contextlib
import re
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import click

from ggblock.cli.common import emit_json, json_option, note
from ggblock.cli.table import lines

if TYPE_CHECKING:
    from ggblock.convert import Progress, Summary


class SizeType(click.ParamType):
    """``2G``, ``500M``, ``1000000``: powers of 1000."""

    name = "SIZE"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?)B?", str(value).strip(), re.IGNORECASE)
        size = int(float(match[1]) * 1000 ** " KMGT".index(match[2].upper() or " ")) if match else 0
        if size < 1:
            self.fail(f"{value!r} is not a size such as 2G or 500M", param, ctx)
        return size


@click.command(
    epilog="Example:  ggblock convert ./SmolLM2-135M-Instruct smollm2.gguf --type q4_k_m",
)
@click.argument("source", metavar="SRC")
@click.argument("target", metavar="DST")
@click.option("-t", "--type", "type_name", metavar="TYPE", help="A block type or recipe: q4_k_m, q8_0, f16, ... "
              "(an unknown one lists them all). Without it a GGUF or GGB file keeps its types.")
@click.option("--recipe", "recipe_file", type=click.Path(), metavar="FILE", help="A recipe of your own (TOML).")
@click.option("--tensor-type", "overrides", multiple=True, metavar="REGEX=TYPE",
              help="Tensors whose name has the pattern in it get this type. May be repeated; the first fits.")
@click.option("--pure", is_flag=True, help="The same type for every matrix.")
@click.option("--only", multiple=True, metavar="REGEX", help="Quantize only these tensors; others keep their type.")
@click.option("--skip", multiple=True, metavar="REGEX", help="Do not quantize these tensors.")
@click.option("--importance", type=click.Path(), metavar="FILE", help="An importance matrix (GGUF) to weigh errors by.")
@click.option("--no-fallback", is_flag=True, help="Fail where a row does not fit its type, rather than take another.")
@click.option("--allow-nonfinite", is_flag=True, help="Go on with NaN and infinities in the weights.")
@click.option("--split-size", type=SizeType(), default=0, metavar="SIZE", help="Files of at most SIZE: 2G, 500M.")
@click.option("--keep-split", is_flag=True, help="As many files as the source has.")
@click.option("--pre", metavar="NAME", help="The pre-tokenizer, where it is not recognized.")
@click.option("--threads", type=click.IntRange(min=1), help="Without it: what suits this CPU.")
@click.option("--dry-run", is_flag=True, help="Show what would be written, with exact sizes; no weight is read.")
@json_option
def command(
    source: str, target: str, type_name: str | None, recipe_file: str | None, overrides: tuple[str, ...], pure: bool,
    only: tuple[str, ...], skip: tuple[str, ...], importance: str | None, no_fallback: bool, allow_nonfinite: bool,
    split_size: int, keep_split: bool, pre: str | None, threads: int | None, dry_run: bool, as_json: bool,
) -> None:  # fmt: skip
    """Convert SRC into the file DST.

    SRC is a Hugging Face folder, a .safetensors, a torch .bin or .pt, a .gguf or a .ggb file. DST ends in .gguf, which
    llama.cpp and others read, or in .ggb, which only ggblock reads, without repacking. Weights stream from the mapped
    source, so a model larger than memory can be converted; DST appears only when it is complete.
    """
    from ggblock.convert import Options, execute, make_plan, open_source, summarize

    weights = {}
    if importance is not None:
        from ggblock.convert.importance import read_importance

        weights = read_importance(importance)
    options = Options(
        type_name, recipe_file, overrides, pure, only, skip, not no_fallback, allow_nonfinite, split_size, keep_split,
        weights, pre, threads,
    )
    with open_source(source) as opened:
        if type_name is None and recipe_file is None and (opened.gguf is None or overrides):
            raise click.UsageError("one of --type and --recipe is needed")
        plan = make_plan(opened, target, options)
        if dry_run:
            summary = summarize(plan)
        else:
            with _progress() as progress:
                summary = summarize(execute(plan, progress, note))
    if as_json:
        emit_json(summary.document())
    else:
        _show(summary)


@contextlib.contextmanager
def _progress() -> Iterator[Progress | None]:
    """A bar with tensor, rate and time left on stderr; None where that is no terminal."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    columns = (
        TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn()
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=None)

        def update(name: str, done: int, total: int) -> None:
            bar.update(task, description=name, completed=done, total=total)

        yield update


def _show(summary: Summary, echo: Callable[[str], None] = click.echo) -> None:
    """The table on stdout: a row a type, the total, the worst tensors; what a person must know on stderr."""
    from ggblock.convert.plan import AS_IT_IS

    rows = [
        (row.type, f"{row.tensors:,}", f"{row.weights:,}", f"{row.n_bytes:,}", f"{row.bits_per_weight:.2f}")
        for row in summary.rows
    ]
    tensors, n_bytes = sum(row.tensors for row in summary.rows), sum(row.n_bytes for row in summary.rows)
    rows.append(("total", f"{tensors:,}", f"{summary.weights:,}", f"{n_bytes:,}", f"{summary.bits_per_weight:.2f}"))
    for line in lines(("type", "tensors", "weights", "bytes", "bits/weight"), rows):
        echo(line)
    for name, kind, error in summary.worst:
        echo(f"largest relative error: {error:.5f}  {kind:6}  {name}")
    if summary.fallbacks:
        what = "ragged rows, which only a GGB file holds" if summary.recipe == AS_IT_IS else \
            f"rows that do not fit the type of the recipe {summary.recipe}"
        note(f"{len(summary.fallbacks)} tensors have {what}:")
        groups: dict[tuple[str, str, int], list[str]] = {}
        for each in summary.fallbacks:
            groups.setdefault((each.wanted, each.became, each.n_cols), []).append(each.tensor)
        for (wanted, became, n_cols), names in groups.items():
            more = f" and {len(names) - 1} more" if len(names) > 1 else ""
            note(f"  {wanted} became {became} ({n_cols} columns): {names[0]}{more}")
    for text in summary.notes:
        note(f"note: {text}")
    verb = "would write" if summary.elapsed_s is None else "wrote"
    size = f"{summary.n_bytes:,} bytes"
    took = "" if summary.elapsed_s is None else f" in {summary.elapsed_s:.1f} s"
    echo(f"{verb} {', '.join(summary.paths)}: {size}{took}")
