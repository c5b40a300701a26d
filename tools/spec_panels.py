#!/usr/bin/env python3
"""Read `spec/panels.toml`: panels and ragged rows, by the tables alone.

Like `spec_blocks.py` this knows nothing of the package. It goes unit by unit and is slow. Run as a program it prints
the conformance vectors `spec/panels_vectors.toml`.
"""
from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterator
from typing import Any

import numpy as np

if __package__:
    from . import spec_blocks
else:
    import spec_blocks  # type: ignore[no-redef]

FLOATS = ("f32", "f16", "bf16")


def load() -> dict[str, Any]:
    """The tables: `types` by name."""
    page = spec_blocks.tomllib.loads((spec_blocks.SPEC.parent / "panels.toml").read_text("utf-8"))
    return page | {"types": {entry["name"]: entry for entry in page["types"]}}


def tail(spec: dict[str, Any], entry: dict[str, Any], m: int) -> dict[str, Any]:
    """The tail of `m` weights of type `spec` as a type: what `spec_blocks.decode` takes, and its `units`."""
    table = entry["tail"]
    if not 0 < m < spec["block_size"] or m % table["step"]:
        raise ValueError(f"no tail of {m} weights")
    scope = spec_blocks.Scope({"m": np.int64(m)}, {}, {})
    of, fields, at = {field["name"]: field for field in spec["fields"]}, [], 0
    for row in table["fields"]:
        n_bytes = int(scope.value(ast.parse(row["bytes"], mode="eval").body))
        field = of[row["name"]] | {"offset": at, "bytes": n_bytes}
        if n_bytes < of[row["name"]]["bytes"] and field["bits"]:
            field["count"] = n_bytes * 8 // field["bits"]
            if field["kind"] == "uint":
                field["plane"] = n_bytes
        fields.append(field)
        at += n_bytes
    return spec | {
        "block_size": m, "block_bytes": at, "fields": fields,
        "units": [[field["offset"], field["bytes"], row["width"]] for field, row in zip(fields, table["fields"])],
        "decode": [f"m = {m}", *table.get("decode", spec["decode"])],
    }


def units(runs: list[list[int]]) -> Iterator[tuple[int, int]]:
    """The units of a block in the order of the panel block: byte of the block, width."""
    for first, n_bytes, width, *second in runs:
        for i in range(0, n_bytes, width):
            for place in (first, *second):
                yield place + i, width


def pieces(spec: dict[str, Any], entry: dict[str, Any], n_cols: int) -> list[dict[str, Any]]:
    """The blocks of a row in order, as types with `units`. Float types: a piece of 8 weights, the last filled up."""
    if spec["name"] in FLOATS:
        weights = {"block_size": entry["columns"], "block_bytes": entry["columns"] * spec["block_bytes"]}
        return [spec | weights | {"units": entry["units"]}] * -(-n_cols // entry["columns"])
    found = [spec | {"units": entry["units"]}] * (n_cols // spec["block_size"])
    rest = n_cols % spec["block_size"]
    return [*found, tail(spec, entry, rest)] if rest else found


def to_panels(rows: list[bytes], row: list[dict[str, Any]], lanes: int = 16) -> bytes:
    """Rows of blocks as panels, unit by unit."""
    n_bytes = sum(piece["block_bytes"] for piece in row)
    out = bytearray(-(-len(rows) // lanes) * lanes * n_bytes)
    for r, raw in enumerate(rows):
        raw = raw.ljust(n_bytes, b"\0")
        start = 0
        for piece in row:
            at = r // lanes * lanes * n_bytes + lanes * start
            for o, width in units(piece["units"]):
                to = at + width * (r % lanes)
                out[to : to + width] = raw[start + o : start + o + width]
                at += lanes * width
            start += piece["block_bytes"]
    return bytes(out)


def decode(rows: list[bytes], spec: dict[str, Any], row: list[dict[str, Any]], n_cols: int) -> np.ndarray:
    """Rows of blocks as float32 (n_rows, n_cols)."""
    if spec["name"] in FLOATS:
        return spec_blocks.decode(spec, b"".join(rows)).reshape(len(rows), n_cols)
    out, start = [], 0
    for piece in row:
        end = start + piece["block_bytes"]
        out.append(spec_blocks.decode(piece, b"".join(raw[start:end] for raw in rows)))
        start = end
    return np.concatenate(out, axis=1)


def vector_rows(spec: dict[str, Any], row: list[dict[str, Any]], n_rows: int, n_cols: int) -> list[bytes]:
    """The rows of a conformance vector: digests of "name/columns:0", ... cut to length, one row after another."""
    floats = spec["name"] in FLOATS
    n_bytes = n_cols * spec["block_bytes"] if floats else sum(piece["block_bytes"] for piece in row)
    data = spec_blocks.vector_bytes(f"{spec['name']}/{n_cols}", n_rows * n_bytes)
    return [data[i * n_bytes : (i + 1) * n_bytes] for i in range(n_rows)]


def vectors() -> str:
    """The conformance vectors: two or three row lengths a type, 19 rows."""
    page, types = load(), spec_blocks.load()
    lines = [
        "# Made by tools/spec_panels.py: 19 rows of `columns` weights. The bytes of the rows, one after another, are",
        "# the SHA-256 digests of the texts NAME/COLUMNS:0, NAME/COLUMNS:1, ..., cut to length. Hashes (SHA-256): of",
        "# the panels, and of the weights (float32, row after row, every NaN replaced by 0x7FC00000).",
    ]
    for name, entry in page["types"].items():
        spec, size = types[name], entry["columns"]
        columns = [2 * size + 3] if name in FLOATS else [2 * size]
        if "tail" in entry:
            step = entry["tail"]["step"]
            columns = sorted({2 * size, size + step, 2 * size - step, size // 2 // step * step})
        for n_cols in columns:
            row = pieces(spec, entry, n_cols)
            rows = vector_rows(spec, row, 19, n_cols)
            panels = to_panels(rows, row, page["rows"])
            lines += [
                "", "[[vector]]", f'type = "{name}"', f"columns = {n_cols}", f"row_bytes = {len(rows[0])}",
                f'panels_sha256 = "{hashlib.sha256(panels).hexdigest()}"',
                f'weights_sha256 = "{spec_blocks.float_hash(decode(rows, spec, row, n_cols))}"',
            ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(vectors(), end="")
