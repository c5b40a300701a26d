#!/usr/bin/env python3
"""Read `spec/blocks/*.toml`, decode blocks by it alone, and render its pages for people.

This is a complete reader of every block type that knows nothing of the package: the tests hold it against the
golden vectors, so the specification is proved to be enough. `python tools/spec_blocks.py` writes the Markdown
pages anew; with `--check` it only says (exit code 1) which are out of date.

Notation and arithmetic: `spec/blocks/README.md`.
"""
from __future__ import annotations

import argparse
import ast
import base64
import hashlib
import sys
from pathlib import Path
from typing import Any

import numpy as np

try:
    import tomllib
except ImportError:  # Python 3.10
    import tomli as tomllib

SPEC = Path(__file__).resolve().parent.parent / "spec" / "blocks"
DTYPES = {
    "f16": "<f2", "f32": "<f4", "f64": "<f8", "i8": "<i1", "i16": "<i2", "i32": "<i4", "i64": "<i8",
    "u8": "<u1", "u16": "<u2", "u32": "<u4", "e8m0": "<u1", "ue4m3": "<u1", "packed": "<u1", "trits": "<u1",
}


def load() -> dict[str, dict[str, Any]]:
    """Every type of the spec by name, each with its tables and the name of its page."""
    codebooks = {name: _codebook(book) for name, book in read_toml("codebooks")["codebooks"].items()}
    types: dict[str, dict[str, Any]] = {}
    for path in sorted(SPEC.glob("*.toml")):
        page = read_toml(path.stem)
        for entry in page.get("types", []):
            tables = codebooks | {name: np.array(values) for name, values in page.get("tables", {}).items()}
            if entry["name"] in types:
                raise ValueError(f"{entry['name']} is specified twice")
            types[entry["name"]] = entry | {"tables": tables, "page": path.stem}
    return types


def read_toml(stem: str) -> dict[str, Any]:
    """The content of one file of the specification."""
    return tomllib.loads((SPEC / f"{stem}.toml").read_text("utf-8"))


def _codebook(book: dict[str, Any]) -> np.ndarray:
    """All patterns one after another: entry i, weight k is at i * width + k."""
    members = np.frombuffer(base64.b64decode(book["members"]), np.uint8)
    n_patterns = len(book["values"]) ** book["width"]
    out = []
    for number in range(n_patterns):
        if members[number // 8] >> number % 8 & 1:
            for k in range(book["width"]):
                out.append(book["values"][number // len(book["values"]) ** k % len(book["values"])])
    if len(out) != book["size"] * book["width"]:
        raise ValueError("wrong number of patterns")
    return np.array(out)


def vector_bytes(name: str, n_bytes: int) -> bytes:
    """The bytes of a conformance vector: SHA-256 of "name:0", "name:1", ... one after another."""
    digests = (hashlib.sha256(f"{name}:{i}".encode()).digest() for i in range(-(-n_bytes // 32)))
    return b"".join(digests)[:n_bytes]


def float_hash(values: np.ndarray) -> str:
    """SHA-256 of little-endian float32, every NaN replaced by 0x7FC00000."""
    values = np.ascontiguousarray(values, "<f4")
    return hashlib.sha256(np.where(np.isnan(values), np.float32(np.nan), values).astype("<f4").tobytes()).hexdigest()


def decode(spec: dict[str, Any], data: bytes) -> np.ndarray:
    """Decode whole blocks: float32 (n_blocks, block_size)."""
    return run(spec, data)["weight"].astype(np.float32)


def run(spec: dict[str, Any], data: bytes) -> dict[str, np.ndarray]:
    """Every named step of the decoder for every weight: arrays (n_blocks, block_size)."""
    blocks = np.frombuffer(data, np.uint8).reshape(-1, spec["block_bytes"])
    shape = (len(blocks), spec["block_size"])
    names: dict[str, Any] = {"j": np.broadcast_to(np.arange(spec["block_size"]), shape)}
    fields = {field["name"]: read_field(field, blocks) for field in spec["fields"]}
    scope = Scope(names, fields, spec["tables"])
    with np.errstate(all="ignore"):
        for step in spec["decode"]:
            name, text = (part.strip() for part in step.split("=", 1))
            names[name] = np.broadcast_to(scope.value(ast.parse(text, mode="eval").body), shape)
    return names


def read_field(field: dict[str, Any], blocks: np.ndarray) -> np.ndarray:
    """The numbers of a field, (n_blocks, count); of packed fields and trits the bytes."""
    raw = np.ascontiguousarray(blocks[:, field["offset"] : field["offset"] + field["bytes"]])
    kind = field["kind"]
    if kind == "bf16":
        return (raw.view("<u2").astype(np.uint32) << 16).view(np.float32)
    if kind == "uint":
        index, plane, per_byte = np.arange(field["count"]), field["plane"], 8 // field["bits"]
        byte = index // (plane * per_byte) * plane + index % plane
        shift = index // plane % per_byte * field["bits"]
        return raw.astype(np.int64)[:, byte] >> shift & ((1 << field["bits"]) - 1)
    numbers = raw.view(DTYPES[kind])
    if kind == "f64":
        return numbers
    return numbers.astype(np.float32 if kind in ("f16", "f32") else np.int64)


BINARY: dict[type[ast.operator], Any] = {
    ast.Add: np.add, ast.Sub: np.subtract, ast.Mult: np.multiply, ast.FloorDiv: np.floor_divide,
    ast.Mod: np.remainder, ast.LShift: np.left_shift, ast.RShift: np.right_shift,
    ast.BitAnd: np.bitwise_and, ast.BitOr: np.bitwise_or,
}
COMPARE: dict[type[ast.cmpop], Any] = {ast.Lt: np.less, ast.Eq: np.equal}


class Scope:
    """Evaluates the spec's expressions on arrays: whole numbers exactly, floats rounded to float32 each step."""

    def __init__(self, names: dict[str, Any], fields: dict[str, Any], tables: dict[str, Any]) -> None:
        self.names, self.fields, self.tables = names, fields, tables

    def value(self, node: ast.expr) -> Any:
        if isinstance(node, ast.Constant):
            return np.float32(node.value) if isinstance(node.value, float) else np.int64(node.value)
        if isinstance(node, ast.Name):
            return self.names[node.id]
        if isinstance(node, ast.Subscript) and isinstance(node.value, ast.Name):
            return self.item(node.value.id, self.value(node.slice))
        if isinstance(node, ast.BinOp):
            left, right = self.same_kind(self.value(node.left), self.value(node.right))
            return BINARY[type(node.op)](left, right)
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
            return -self.value(node.operand)
        if isinstance(node, ast.Compare) and len(node.ops) == 1:
            return COMPARE[type(node.ops[0])](self.value(node.left), self.value(node.comparators[0]))
        if isinstance(node, ast.IfExp):
            return np.where(self.value(node.test), *self.same_kind(self.value(node.body), self.value(node.orelse)))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            return FUNCTIONS[node.func.id](self.value(node.args[0]))
        raise ValueError(f"not part of the notation: {ast.unparse(node)}")

    def item(self, name: str, index: Any) -> Any:
        # Both sides of a condition are computed for every weight; the side that is not taken may point outside.
        if name in self.fields:
            numbers = self.fields[name]
            index = np.clip(np.broadcast_to(index, self.names["j"].shape), 0, numbers.shape[1] - 1)
            return np.take_along_axis(numbers, index, axis=1)
        return self.tables[name][index]

    @staticmethod
    def same_kind(left: Any, right: Any) -> tuple[Any, Any]:
        left, right = np.asarray(left), np.asarray(right)
        if left.dtype.kind == "f" or right.dtype.kind == "f":
            return left.astype(np.float32), right.astype(np.float32)
        return left, right


def _popcount(x: Any) -> Any:
    return sum(x >> bit & 1 for bit in range(8))


FUNCTIONS = {
    "f32": lambda x: np.asarray(x).astype(np.float32),
    "pow2": lambda n: np.ldexp(np.float64(1), np.asarray(n).astype(np.int32)).astype(np.float32),
    "popcount": _popcount,
    "f16_bits": lambda x: np.asarray(x).astype(np.uint16).view(np.float16).astype(np.float32),
}


# ---- pages ----------------------------------------------------------------------------------------------------

def render(stem: str) -> str:
    """The Markdown page of one TOML file."""
    page, types = read_toml(stem), load()
    lines = [f"<!-- Made from {stem}.toml by tools/spec_blocks.py; edit that file. -->", f"# {page['title']}", ""]
    lines += [page["summary"].strip(), ""]
    for entry in page["types"]:
        lines += _render_type(types[entry["name"]], alone=len(page["types"]) == 1)
    for name, values in page.get("tables", {}).items():
        lines += [f"Table `{name}`: {', '.join(map(str, values))}.", ""]
    if "encoding" in page:
        lines += ["## Encoding (informative)", "", page["encoding"].strip(), ""]
    return "\n".join(lines).rstrip() + "\n"


def _render_type(spec: dict[str, Any], alone: bool) -> list[str]:
    bits = 8 * spec["block_bytes"] / spec["block_size"]
    lines = [] if alone else [f"## {spec['name'].upper()}", ""]
    lines += [
        f"ggml id {spec['id']} · {spec['block_size']} weights in {spec['block_bytes']} bytes · "
        f"one scale for {spec['sub_block_size']} · {bits:g} bits per weight",
        "",
        f"{'##' if alone else '###'} Fields", "",
        "| bytes | field | numbers | bits | kind | plane | meaning |", "|---|---|---|---|---|---|---|",
    ]
    for field in spec["fields"]:
        last = field["offset"] + field["bytes"] - 1
        where = f"{field['offset']}–{last}" if field["bytes"] > 1 else f"{last}"
        lines.append(
            f"| {where} | `{field['name']}` | {field['count']} | {field['bits'] or 'log₂ 3'} | {field['kind']} | "
            f"{field.get('plane', '')} | {field['meaning']} |"
        )
    lines += ["", f"{'##' if alone else '###'} Decoding weight `j` (0 to {spec['block_size'] - 1})", "", "```"]
    lines += [*spec["decode"], "```", ""]
    return lines + _render_example(spec, "##" if alone else "###")


def _render_example(spec: dict[str, Any], level: str) -> list[str]:
    data = bytes.fromhex(spec["example"])
    if len(data) != spec["block_bytes"]:
        raise ValueError(f"{spec['name']}: the example has {len(data)} bytes")
    steps = run(spec, data)
    lines = [f"{level} Worked example", "", "One block:", "", "```"]
    lines += [f"{at:3d}  {data[at : at + 16].hex(' ')}" for at in range(0, len(data), 16)] + ["```", ""]
    size = spec["block_size"]
    for field in spec["fields"] if size > 1 else []:
        if field["count"] == 1:
            number = _number(read_field(field, np.frombuffer(data, np.uint8)[None])[0, 0])
            bits = int.from_bytes(data[field["offset"] : field["offset"] + field["bytes"]], "little")
            name, at, digits = field["name"], field["offset"], 2 * field["bytes"]
            lines.append(f"`{name}[0]` is {number} (0x{bits:0{digits}x} at byte {at}).  ")
    lines.append("")
    for j in sorted({0, size * 5 // 8 + 1, size - 1} if size > 1 else {0}):
        lines += [f"Weight {j}:", "", "```"]
        for step in spec["decode"]:
            name = step.split("=", 1)[0].strip()
            lines.append(f"{step}  →  {_number(steps[name][0, j])}")
        lines += [*_bytes_read(spec, data, j), "```", ""]
    return lines


def _bytes_read(spec: dict[str, Any], data: bytes, j: int) -> list[str]:
    """Where the per-weight code fields of weight j lie."""
    lines = []
    for field in spec["fields"]:
        if field["kind"] == "uint" and field["count"] == spec["block_size"]:
            plane, per_byte = field["plane"], 8 // field["bits"]
            at = field["offset"] + j // (plane * per_byte) * plane + j % plane
            low = j // plane % per_byte * field["bits"]
            high = low + field["bits"] - 1
            where = f"bits {low} to {high}" if high > low else f"bit {low}"
            value = data[at] >> low & ((1 << field["bits"]) - 1)
            lines.append(f"{field['name']}[{j}] is {where} of byte {at} (0x{data[at]:02x}): {value}")
    return lines


def _number(value: Any) -> str:
    if np.asarray(value).dtype.kind == "f":
        return np.format_float_positional(np.float32(value), unique=True, trim="-")
    return str(int(value))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if a page is out of date")
    check = parser.parse_args().check
    stale = []
    for stem in sorted({spec["page"] for spec in load().values()}):
        path, text = SPEC / f"{stem}.md", render(stem)
        if not path.exists() or path.read_text("utf-8") != text:
            stale.append(path.name)
            if not check:
                path.write_text(text, "utf-8")
    print(("out of date: " if check else "written: ") + (" ".join(stale) or "none"))
    return 1 if check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
