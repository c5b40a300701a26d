"""``ggblock dump``: what is inside a file, down to one block."""
from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from ggblock.cli.common import emit_json, json_option, model_argument, numpy_without_threads, resolve_model
from ggblock.cli.paths import KeyNames, TensorNames

if TYPE_CHECKING:
    from ggblock.format import GgufFile, Tensor
    from ggblock.inspect.overview import Overview

_MAPS = ("scale", "rms", "peak", "error")
_SORTS = ("file", "name", "type", "bytes", "bits", "offset", "weights")


@click.command(
    epilog="Example:  ggblock dump model.gguf --tensor blk.0.ffn_down.weight --block 0",
)
@model_argument
@click.option("--tensor", "tensor", metavar="T", shell_complete=TensorNames(), help="Look at one tensor.")
@click.option("--block", type=int, metavar="I", help="Take block I of the tensor apart (of row R with --row).")
@click.option("--row", type=int, metavar="R", help="Count blocks within row R.")
@click.option("--weight", type=int, metavar="J", default=0, show_default=True, help="The weight to calculate in full.")
@click.option("--hex", "show_hex", is_flag=True, help="Only the bytes of the block, coloured by field.")
@click.option("--reference", type=click.Path(), metavar="PATH",
              help="Compare the tensor with that of another file, or of the checkpoint that it was made from.")
@click.option("--reference-tensor", metavar="NAME", help="Its name there, taken as it is stored.")
@click.option("--full", is_flag=True, help="Show long arrays and texts whole.")
@click.option("--key", metavar="KEY", shell_complete=KeyNames(), help="Show one metadata value, whole.")
@click.option("--grep", metavar="TEXT", help="Only keys and tensors whose name contains TEXT.")
@click.option("--sort", type=click.Choice(_SORTS), default="file", show_default=True, help="Order of the tensors.")
@click.option("--html", type=click.Path(dir_okay=False), metavar="OUT", help="Write a page to explore in a browser.")
@click.option("--map", "map_name", type=click.Choice(_MAPS), help="What the picture shows. [default: scale, or error]")
@click.option("--png", type=click.Path(dir_okay=False), metavar="OUT", help="Write the tensor's heat map as a picture.")
@json_option
def command(model: str, as_json: bool, **options: Any) -> None:
    """Show what is inside MODEL: facts, metadata, tensors; one tensor; one block, bit by bit.

    Only what is shown is read, so the size of the file does not matter.
    """
    numpy_without_threads()
    from ggblock.format import open_gguf

    _check(options)
    with open_gguf(resolve_model(model)) as file:
        if options["key"] is not None:
            _key(file, options["key"], as_json)
        elif options["html"] is not None:
            from ggblock.cli.dump_tensor import write_page

            write_page(file, options, as_json)
        elif options["tensor"] is not None:
            from ggblock.cli.dump_tensor import show_tensor

            show_tensor(file, options, as_json)
        else:
            _overview(file, options, as_json)


def _check(options: dict[str, Any]) -> None:
    needs_tensor = [name for name in ("block", "row", "png", "reference", "map_name") if options[name] is not None]
    if options["html"] is not None and "reference" in needs_tensor:
        needs_tensor.remove("reference")  # the page chooses a tensor
    if needs_tensor and options["tensor"] is None:
        raise click.UsageError(f"--{needs_tensor[0].partition('_')[0]} needs --tensor")
    if options["row"] is not None and options["block"] is None:
        raise click.UsageError("--row needs --block")
    if options["show_hex"] and options["block"] is None:
        raise click.UsageError("--hex needs --block")
    if options["map_name"] == "error" and options["reference"] is None:
        raise click.UsageError("--map error needs --reference")


def _key(file: GgufFile, key: str, as_json: bool) -> None:
    from ggblock.errors import MissingKey
    from ggblock.format import ArrayValue
    from ggblock.inspect import overview, words

    if key not in file.metadata:
        raise MissingKey("no such key", file=file.path, where=key)
    value = file.metadata[key]
    if as_json:
        emit_json(
            {"schema": "ggblock/key/1", "key": words.json_text(key), "kind": file.metadata.kind(key),
             "value": overview.metadata_value(value, full=True)}
        )  # fmt: skip
    elif isinstance(value, ArrayValue):
        for item in value:
            click.echo(words.readable(item) if isinstance(item, str) else str(item))
    else:
        click.echo(words.json_text(value) if isinstance(value, str) else _scalar(value))


def _overview(file: GgufFile, options: dict[str, Any], as_json: bool) -> None:
    from ggblock.cli import table
    from ggblock.inspect import overview

    facts = overview.overview(file)
    grep = options["grep"]
    keys = [key for key in file.metadata if grep is None or grep in key]
    tensors = _sorted([t for t in file.tensors.values() if grep is None or grep in t.name], options["sort"])
    if as_json:
        emit_json({
            "schema": "ggblock/dump/1",
            "file": overview.overview_document(facts),
            "metadata": [_key_document(file, key, options["full"]) for key in keys],
            "tensors": [overview.tensor_document(t) for t in tensors],
        })  # fmt: skip
        return
    out: list[str] = []
    width = table.terminal_width()
    if grep is None:
        out += [*table.fit(_facts(facts, file), width), ""]
    out += [*_metadata(file, keys, options["full"]), "", *_tensors(tensors), ""]
    if grep is None:
        out += [*_types(facts), *table.fit(_notes(facts), width)]
    click.echo("\n".join(out).rstrip())


def _sorted(tensors: list[Tensor], order: str) -> list[Tensor]:
    if order == "name":
        return sorted(tensors, key=lambda t: t.name)
    if order == "type":
        return sorted(tensors, key=lambda t: t.type.name)
    if order == "offset":
        return sorted(tensors, key=lambda t: (t.path, t.offset_bytes))
    if order == "bytes":
        return sorted(tensors, key=lambda t: -t.n_bytes)
    if order == "weights":
        return sorted(tensors, key=lambda t: -t.n_weights)
    if order == "bits":
        return sorted(tensors, key=lambda t: -t.n_bytes / t.n_weights)
    return tensors


def _key_document(file: GgufFile, key: str, full: bool) -> dict[str, Any]:
    from ggblock.format import ArrayValue
    from ggblock.inspect import overview, words

    value = file.metadata[key]
    document = {
        "key": words.json_text(key), "kind": file.metadata.kind(key), "value": overview.metadata_value(value, full),
    }  # fmt: skip
    if isinstance(value, ArrayValue):
        document["length"] = len(value)
    return document


def _facts(facts: Overview, file: GgufFile) -> list[str]:
    from ggblock.inspect import words

    parts = f", {facts.n_parts} parts" if facts.n_parts > 1 else ""
    what = [facts.architecture or "no architecture", f"{words.count(facts.n_weights)} parameters"]
    if facts.n_layers is not None:
        width = f" of width {facts.n_embd}" if facts.n_embd is not None else ""
        what.append(f"{facts.n_layers} layers{width}")
    named = "; ".join(text for text in (facts.name, facts.licence) if text)
    mix = f"{facts.file_type}: " if facts.file_type else ""
    kinds = ", ".join(
        f"{each.type.label} {100 * each.n_bytes / max(1, facts.tensor_bytes):.0f}%" for each in facts.types[:4]
    )
    context = f"{facts.context} tokens" if facts.context is not None else "not stated"
    token = ", ".join(f"{name} {number}" for name, number in facts.special.items())
    vocabulary = f"{facts.tokenizer}{f' ({facts.pre_tokenizer})' if facts.pre_tokenizer else ''}"
    tokenizer = (
        f"{vocabulary}, {facts.n_tokens} tokens{f'; {token}' if token else ''}" if facts.tokenizer else "none"
    )
    template = "none" if facts.template_length is None else f"{facts.template_length} characters"
    order = f"v{facts.version}, {facts.byte_order}-endian, alignment {facts.alignment}"
    if facts.n_panels:
        order += f", {words.plural(facts.n_panels, 'tensor')} in panels of 16 rows"
    checks = "with checksums" if facts.has_checksums else "no checksums"
    rows = [
        ("what", ", ".join(what) + (f"  ({named})" if named else "")),
        ("weights", f"{mix}{facts.bits_per_weight:.3f} bits per weight; {kinds or 'no tensors'}"),
        ("context", f"{context}; chat template: {template}"),
        ("tokenizer", tokenizer),
        ("profile", f"{'GGB in GGUF' if facts.profile == 'GGB' else 'GGUF'} {order}; {checks}"),
    ]
    head = (
        f"{words.readable(file.path)}: {words.size(facts.n_bytes)}{parts}, {words.plural(facts.n_tensors, 'tensor')}, "
        f"{words.plural(facts.n_keys, 'metadata key')}"
    )
    return [head, *(f"  {name:<10} {text}" for name, text in rows)]


def _metadata(file: GgufFile, keys: list[str], full: bool) -> list[str]:
    from ggblock.cli import table
    from ggblock.inspect import words

    width = table.terminal_width()
    rows = [(words.readable(key), file.metadata.kind(key), _value(file.metadata[key], full)) for key in keys]
    names = max((len(row[0]) for row in rows), default=0)
    kinds = max((len(row[1]) for row in rows), default=0)
    title = f"metadata ({words.plural(len(keys), 'key')})"
    room = 10**9 if full or width is None else width - names - kinds - 6
    if room < 24 and width is not None:  # a value needs a line of its own
        out = [title]
        for name, kind, text in rows:
            out += [table.middle(f"  {name}", width), f"    {kind}  {words.shorten(text, width - len(kind) - 6)}"]
        return out
    lines = [f"  {name:<{names}}  {kind:<{kinds}}  {words.shorten(text, room)}" for name, kind, text in rows]
    return [title, *lines]


def _value(value: object, full: bool) -> str:
    from ggblock.format import ArrayValue
    from ggblock.inspect import words

    if isinstance(value, ArrayValue):
        shown = ", ".join(_element(item) for item in (value if full else value[:6]))
        more = ", …" if len(value) > 6 and not full else ""
        return f"{len(value)} x [{shown}{more}]"
    if isinstance(value, str):
        text = words.readable(value)
        return text if full else words.shorten(text, 200)
    return _scalar(value)


def _element(item: object) -> str:
    from ggblock.inspect import words

    return f"'{words.readable(item)}'" if isinstance(item, str) else _scalar(item)


def _scalar(value: object) -> str:
    import numpy as np

    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        with np.errstate(over="ignore"):
            short = np.float32(value)
        return str(short) if float(short) == value else str(value)
    return str(value)


def _tensors(tensors: list[Tensor]) -> list[str]:
    from ggblock.cli import table
    from ggblock.inspect import words

    rows: list[tuple[str, ...]] = [
        (words.readable(t.name), words.shape(t.shape), t.type.label + ("/16" if t.in_panels else ""),
         str(t.offset_bytes), str(t.n_bytes),
         f"{8 * t.n_bytes / t.n_weights:.2f}")
        for t in tensors
    ]  # fmt: skip
    heads: tuple[str, ...] = ("name", "shape", "type", "offset", "bytes", "bits")
    width = table.terminal_width()
    if width is not None and width < 80:  # names need the room more
        heads, rows = heads[:3] + heads[4:], [row[:3] + row[4:] for row in rows]
    title = f"tensors ({len(tensors)}): shape with rows first, offset in the file, bits per weight"
    if any(t.in_panels for t in tensors):
        title += "; /16: in panels of 16 rows"
    return [*table.fit([title], width), *table.lines(heads, rows, left=(0, 1, 2), width=width, indent="  ")]


def _types(facts: Overview) -> list[str]:
    from ggblock.cli import table

    rows = [
        (each.type.label, str(each.n_tensors), str(each.n_weights), str(each.n_bytes),
         f"{100 * each.n_bytes / max(1, facts.tensor_bytes):.1f}%", f"{8 * each.n_bytes / each.n_weights:.3f}")
        for each in facts.types
    ]  # fmt: skip
    rows.append((
        "all", str(facts.n_tensors), str(facts.n_weights), str(facts.tensor_bytes), "", f"{facts.bits_per_weight:.3f}"
    ))  # fmt: skip
    heads = ("type", "tensors", "weights", "bytes", "share", "bits/weight")
    return ["types", *table.lines(heads, rows, indent="  ")]


def _notes(facts: Overview) -> list[str]:
    return ["", "notes", *(f"  - {each.text}" for each in facts.notes)] if facts.notes else []
