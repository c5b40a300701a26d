"""The parts of ``ggblock dump`` that look at one tensor or one block, and that write pictures."""
from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import click

from ggblock.cli import table
from ggblock.cli.common import emit_json, note
from ggblock.errors import MissingTensor, SettingError

if TYPE_CHECKING:
    from ggblock.format import GgufFile, Tensor
    from ggblock.inspect.blockview import BlockView

#: Terminal colours of the fields of a block, in turn.
_COLOURS = ("cyan", "yellow", "magenta", "green", "blue", "red")


def tensor_named(file: GgufFile, name: str) -> Tensor:
    """A tensor by its name; raises `MissingTensor` with names that look like it."""
    if name in file.tensors:
        return file.tensors[name]
    import difflib

    close = difflib.get_close_matches(name, file.tensors, n=1)
    hint = f"; did you mean {close[0]}?" if close else ""
    raise MissingTensor(f"no such tensor{hint}", file=file.path, where=name)


def show_tensor(file: GgufFile, options: dict[str, Any], as_json: bool) -> None:
    """``--tensor``, with or without ``--block`` and ``--png``."""
    tensor = tensor_named(file, options["tensor"])
    if options["block"] is not None:
        if options["png"] is not None or options["reference"] is not None:
            raise click.UsageError("--png and --reference show a whole tensor; leave --block away")
        _show_block(tensor, options, as_json)
        return
    from ggblock.inspect import report

    with _reference(tensor, options) as reference, rows_progress(tensor) as progress:
        described = report.tensor_report(tensor, reference, progress)
    if options["png"] is not None:
        _write_png(file, described, options)
    if as_json:
        emit_json(report.report_document(described))
    else:
        click.echo("\n".join(table.fit(report.lines(described), table.terminal_width())))


#: Endings of checkpoint files that have no names of GGUF tensors.
_TORCH = (".bin", ".pt", ".pth")


@contextmanager
def _reference(tensor: Tensor, options: dict[str, Any]) -> Iterator[Any]:
    """What to measure errors against, by ``--reference``: a tensor of another GGUF file, one of a safetensors file by
    its own name, or else the one of a checkpoint that a conversion would turn into this tensor."""
    path, given = options["reference"], options["reference_tensor"]
    if path is None:
        yield None
        return
    from ggblock.inspect import reference

    with ExitStack() as stack:
        if not os.path.isdir(path) and not path.endswith(_TORCH):
            other = reference.open_any(path)
            stack.callback(other.close)
            has_names = not isinstance(other, reference.SafetensorsFile) or (given or tensor.name) in other.tensors
            if has_names or given or not os.path.isfile(os.path.join(os.path.dirname(path), "config.json")):
                yield reference.find(other, given or tensor.name, tensor.shape)
                return
        from ggblock.convert.original import original, stored
        from ggblock.convert.sources import open_source

        source = stack.enter_context(open_source(path))
        yield stored(source, given, tensor.shape) if given else original(source, tensor.name, tensor.shape)


@contextmanager
def rows_progress(tensor: Tensor) -> Iterator[Any]:
    """A bar on stderr for tensors that take a while to read, when that is a terminal."""
    if not sys.stderr.isatty() or tensor.n_weights < 1 << 24:
        yield None
        return
    with click.progressbar(length=tensor.n_rows, label=tensor.name, file=sys.stderr) as bar:
        yield lambda done, total: bar.update(done - bar.pos)


def _show_block(tensor: Tensor, options: dict[str, Any], as_json: bool) -> None:
    from ggblock.inspect import blocktext, blockview

    view = blockview.block_view(tensor, options["block"], options["row"])
    if not 0 <= options["weight"] < view.type.block_size:
        raise SettingError(
            "no such weight in the block", where="--weight", expected=f"0 to {view.type.block_size - 1}",
            actual=options["weight"],
        )  # fmt: skip
    if as_json:
        emit_json(blockview.block_document(view))
    elif options["show_hex"]:
        click.echo("\n".join(_hex(view)))
    else:
        width = table.terminal_width()
        click.echo("\n".join(table.fit(blocktext.lines(view, options["weight"], width), width)))


def _hex(view: BlockView) -> Iterator[str]:
    """The bytes coloured by field, with a legend; click drops the colours when the output is no terminal."""
    from ggblock.inspect import blocktext

    styles, width = {}, table.terminal_width()
    yield from table.fit(blocktext.head(view), width)
    yield ""
    for i, field in enumerate(view.type.layout):
        colour = _COLOURS[i % len(_COLOURS)]
        styles[field.name] = tuple(click.style("|", fg=colour, bold=i >= len(_COLOURS)).split("|"))
        legend = [f"  {field.name}: bytes {field.offset} to {field.end - 1}, {field.meaning}"]
        first, *more = table.fit(legend, width)
        yield first.replace(field.name, click.style(field.name, fg=colour), 1)
        yield from more
    yield from blocktext.hex_lines(view, {name: (pair[0], pair[1]) for name, pair in styles.items()})


def _write_png(file: GgufFile, described: Any, options: dict[str, Any]) -> None:
    import numpy as np

    from ggblock.inspect import files, png

    maps = described.maps
    name = options["map_name"] or ("error" if maps.error is not None else "scale")
    values = {"scale": maps.scale, "rms": maps.power, "peak": maps.peak, "error": maps.error}[name]
    if values is None:
        raise SettingError(
            "these weights have no scales; --map rms shows their size", file=file.path, where=described.tensor.name
        )
    if name in ("rms", "error"):
        values = np.sqrt(values)
    inputs = [*file.paths, *([options["reference"]] if options["reference"] else [])]
    files.write_whole(options["png"], png.heat_map(values), inputs)
    unit = "sub-block" if name == "scale" else "block"
    rows, columns = values.shape
    note(f"{options['png']}: {name} of each {unit}, {rows} rows by {columns} {unit}s; brighter is more")


def write_page(file: GgufFile, options: dict[str, Any], as_json: bool) -> None:
    """``--html``: the page, about the tensor of ``--tensor`` or one that the page chooses."""
    from ggblock.inspect import files, page

    with ExitStack() as stack:
        chosen = page.choose(file) if options["tensor"] is None else tensor_named(file, options["tensor"])
        reference = progress = None
        if chosen is not None:
            reference = stack.enter_context(_reference(chosen, options))
            progress = stack.enter_context(rows_progress(chosen))
        html = page.build(file, chosen, reference, block=options["block"], row=options["row"], progress=progress)
    inputs = [*file.paths, *([options["reference"]] if options["reference"] else [])]
    files.write_whole(options["html"], html, inputs)
    if as_json:
        emit_json({"schema": "ggblock/page/1", "path": options["html"], "n_bytes": len(html),
                   "tensor": None if chosen is None else chosen.name})  # fmt: skip
    else:
        note(f"{options['html']}: {len(html)} bytes; open it in a browser")
