"""A page for a browser: one HTML file with everything in it, which asks no network for anything.

Its look and behaviour are ``data/page.html``, ``page.css`` and ``page.js``; this module gathers what they show.
"""
from __future__ import annotations

import base64
import json
from collections.abc import Callable
from importlib import resources
from typing import Any

import numpy as np

from ..format.metadata import ArrayValue
from ..format.reader import GgufFile, Tensor
from . import overview, png, report, words
from .blockview import BlockView, block_document, block_view
from .maps import Rows, TensorMaps

#: Cells of a heat map in the page, at most.
MAP_ROWS, MAP_COLUMNS = 400, 256
#: Blocks that can be taken apart in the page, at most.
MAX_BLOCKS = 14
#: Tensors that are listed; a file with more shows the largest.
MAX_TENSORS = 6000


def choose(file: GgufFile) -> Tensor | None:
    """The tensor that a page is about when nobody says: the largest matrix with scales inside a layer, else any."""
    tensors = list(file.tensors.values())
    inner = [t for t in tensors if t.name.startswith("blk.") and t.type.unpack is not None and len(t.shape) > 1]
    scaled = [t for t in tensors if t.type.unpack is not None]
    return max(inner or scaled or tensors, key=lambda t: t.n_bytes, default=None)


def build(
    file: GgufFile, tensor: Tensor | None, reference: Rows | None = None, *, block: int | None = None,
    row: int | None = None, progress: Callable[[int, int], None] | None = None,
) -> bytes:  # fmt: skip
    """The page as UTF-8. Reads the whole of ``tensor`` and single blocks of others.

    ``reference``: what to measure the tensor's errors against. ``block``, ``row``: a block to show first, as for
    `blockview.block_view`. Raises `errors.SettingError` when there is no such block.
    """
    described = None if tensor is None else report.tensor_report(tensor, reference, progress)
    data: dict[str, Any] = {
        "file": overview.overview_document(overview.overview(file)),
        "metadata": [_key(file, key) for key in file.metadata],
        "tensors": [_tensor(t) for t in sorted(file.tensors.values(), key=lambda t: -t.n_bytes)[:MAX_TENSORS]],
        "order": {name: i for i, name in enumerate(file.tensors)},
        "tensor": None if described is None else report.report_document(described),
        "maps": {} if described is None else _maps(described.maps),
        "blocks": [] if described is None else _blocks(file, described, block, row),
        "gradient": [list(stop) for stop in png.GRADIENT],
    }
    # "<" could end the script element that holds the data, whatever a file's strings contain.
    text = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")
    page = _asset("page.html")
    for mark, content in (("CSS", _asset("page.css")), ("JS", _asset("page.js")), ("DATA", text)):
        page = page.replace(f"/*{mark}*/", content, 1)
    return page.encode("utf-8", "replace")


def _asset(name: str) -> str:
    return (resources.files(__package__) / "data" / name).read_text("utf-8")


def _key(file: GgufFile, key: str) -> list[Any]:
    value = file.metadata[key]
    kind = file.metadata.kind(key)
    if isinstance(value, ArrayValue):
        shown = ", ".join(words.shorten(words.readable(str(v)), 40) for v in value[:6])
        return [words.readable(key), kind, f"{len(value)} x [{shown}{', …' if len(value) > 6 else ''}]"]
    text = words.readable(value) if isinstance(value, str) else str(value)
    return [words.readable(key), kind, words.shorten(text, 2000)]


def _tensor(tensor: Tensor) -> list[Any]:
    return [words.readable(tensor.name), tensor.type.label, words.shape(tensor.shape), tensor.n_bytes,
            tensor.n_weights, tensor.offset_bytes]  # fmt: skip


def _maps(maps: TensorMaps) -> dict[str, Any]:
    """Heat maps as levels of one byte, base 64: name to sizes, range and data."""
    out = {}
    chosen = {"scale": maps.scale, "rms": np.sqrt(maps.power), "peak": maps.peak}
    if maps.error is not None:
        chosen["error"] = np.sqrt(maps.error)
    for name, values in chosen.items():
        if values is None:
            continue
        levels, low, high = png.levels(png.shrink(values, MAP_ROWS, MAP_COLUMNS))
        out[name] = {
            "rows": levels.shape[0], "columns": levels.shape[1], "of_rows": values.shape[0],
            "of_columns": values.shape[1], "low": words.json_number(low), "high": words.json_number(high),
            "data": base64.b64encode(levels.tobytes()).decode("ascii"),
        }  # fmt: skip
    return out


def _blocks(file: GgufFile, described: report.TensorReport, block: int | None, row: int | None) -> list[dict[str, Any]]:
    """Blocks of the tensor: the one asked for, the first, those that stand out; then one of every other type."""
    tensor, size = described.tensor, described.tensor.type.block_size
    wanted: list[tuple[str, Tensor, int | None, int]] = []
    if block is not None:
        wanted.append(("asked for", tensor, row, block))
    wanted.append(("first", tensor, 0, 0))
    if size > 1:
        wanted += [("worst error", tensor, each.row, each.block) for each in described.worst_blocks[:3]]
        wanted += [("large weights", tensor, each.row, each.block) for each in described.outliers[:3]]
    seen_types = {tensor.type.name}
    for other in file.tensors.values():
        if other.type.name not in seen_types and other.type.unpack is not None:
            seen_types.add(other.type.name)
            wanted.append(("another type", other, 0, 0))
    out: list[dict[str, Any]] = []
    seen: set[tuple[str, int, int]] = set()
    for why, source, at_row, at_block in wanted[:MAX_BLOCKS]:
        view = block_view(source, at_block, at_row)
        place = (source.name, view.placement.row, view.placement.block)
        if place not in seen:
            seen.add(place)
            out.append(_block(why, view))
    return out


def _block(why: str, view: BlockView) -> dict[str, Any]:
    """A block with the arithmetic of every weight: for each, the lines after the formula itself."""
    document = block_document(view)
    document["why"] = why
    document["worked"] = [
        [[form for form in forms[1:] if form != str(value.number)] for _, forms, value in view.worked(j)]
        for j in range(view.type.block_size)
    ]
    return document
