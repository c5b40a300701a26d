"""``ggblock diff``: what differs between two files."""
from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from ggblock.cli.common import emit_json, json_option, numpy_without_threads, resolve_model
from ggblock.cli.paths import ModelNames

if TYPE_CHECKING:
    from ggblock.format import Tensor, Typed
    from ggblock.inspect.diff import Difference, KeyChange, TensorChange

_SIGNS = {"added": "+", "removed": "-"}


@click.command(epilog="Example:  ggblock diff model-f16.gguf model-q4_k.gguf")
@click.argument("first", shell_complete=ModelNames())
@click.argument("second", shell_complete=ModelNames())
@json_option
def command(first: str, second: str, as_json: bool) -> None:
    """Show what differs between FIRST and SECOND (paths or catalog names): metadata, tensors, errors after decoding.

    Exit code 1 when they differ, 0 when metadata and tensors are the same; where a tensor lies does not count, nor
    what a conversion between GGUF and GGB changes.
    """
    numpy_without_threads()
    from ggblock.format import open_gguf
    from ggblock.inspect.diff import diff, difference_document

    with open_gguf(resolve_model(first)) as a, open_gguf(resolve_model(second)) as b:
        with click.progressbar(length=1000, label="comparing", file=sys.stderr, hidden=not sys.stderr.isatty()) as bar:
            found = diff(a, b, lambda done, total: bar.update(1000 * done // total - bar.pos))
        if as_json:
            emit_json(difference_document(a, b, found))
        else:
            click.echo("\n".join(_lines(found)))
    if not found.is_none:
        raise SystemExit(1)


def _lines(found: Difference) -> list[str]:
    from ggblock.inspect.diff import SAME

    if found.is_none:
        moved = sum(each.change == "moved" for each in found.tensors)
        panels = sum(each.change == "order" for each in found.tensors)
        more = f", {moved} of them elsewhere" if moved else ""
        if panels:
            more += f", {panels} of them in rows here and in panels there"
        lines = [f"the same metadata and {found.n_same} equal tensors{more}"]
        if found.keys:
            lines.append("only how the files are stored differs: " + ", ".join(each.key for each in found.keys))
        return lines
    out = []
    if found.keys:
        out += ["metadata", *(_key(each) for each in found.keys)]
    changed = [each for each in found.tensors if each.change not in SAME]
    if changed:
        out += ["tensors", *(_tensor(each) for each in changed)]
    out.append(f"{found.n_same} tensors are equal" + ("; the order differs" if found.order else ""))
    return out


def _key(each: KeyChange) -> str:
    from ggblock.inspect import words

    name = words.readable(each.key)
    if each.before is None or each.after is None:
        return f"  {_SIGNS[each.change]} {name} = {_value(each.before or each.after)}"
    first = each.first_difference
    at = "" if first is None else f" (from element {first})"
    return f"  ~ {name}: {_value(each.before, first)} -> {_value(each.after, first)}{at}"


def _value(typed: Typed | None, at: int | None = None) -> str:
    from ggblock.format import ArrayValue
    from ggblock.inspect import words

    assert typed is not None
    value = typed.value
    if isinstance(value, ArrayValue):
        start = at or 0
        shown = [words.shorten(words.readable(str(item)), 40) for item in value[start : start + 4]]
        ends = ["…"] * (start > 0), ["…"] * (len(value) > start + 4)
        return f"{typed.kind} of {len(value)} [{', '.join([*ends[0], *shown, *ends[1]])}]"
    text = words.readable(value) if isinstance(value, str) else str(value)
    return f"{typed.kind} {words.shorten(text, 80)}"


def _tensor(each: TensorChange) -> str:
    from ggblock.inspect import words

    name = words.readable(each.name)
    if each.before is None or each.after is None:
        tensor = each.before or each.after
        assert tensor is not None
        return f"  {_SIGNS[each.change]} {name}: {_facts(tensor)}"
    error = ""
    if each.nmse is not None and each.largest is not None:
        error = f", normalised squared error {words.real(each.nmse)}, largest difference {words.real(each.largest)}"
    if each.change == "data":
        blocks = f"{words.plural(each.n_blocks or 0, 'block')} of {each.before.type.label}"
        return f"  ~ {name}: {blocks} differ, first {each.first_block}{error}"
    return f"  ~ {name}: {_facts(each.before)} -> {_facts(each.after)}{error}"


def _facts(tensor: Tensor) -> str:
    from ggblock.inspect import words

    return f"{tensor.type.label} {words.shape(tensor.shape)}, {tensor.n_bytes} bytes"
