#!/usr/bin/env python3
"""Read GGUF and GGB files by the tables in `spec/` alone, and print what is in them.

A complete reader that knows nothing of the package: names, numbers and sizes come from `spec/*.toml`, what a block
means from `spec/blocks/*.toml` (through `spec_blocks.py`), and the order of the steps from `spec/reader.md`. The tests
hold it against the conformance vectors, the package and other readers. It is meant to be read, not to be fast.
"""
from __future__ import annotations

import hashlib
import os
import re
import struct
import sys
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tools import spec_blocks, spec_panels

SPEC = spec_blocks.SPEC.parent
CONTAINER = spec_blocks.tomllib.loads((SPEC / "container.toml").read_text("utf-8"))
TYPES, PANELS = spec_blocks.load(), spec_panels.load()
BY_ID = {spec["id"]: name for name, spec in TYPES.items()}
REMOVED = {entry["id"] for entry in CONTAINER["removed_type"]}
KINDS = {kind["id"]: kind for kind in CONTAINER["kind"]}
LIMITS, PROFILE, SPLIT, SUMS = CONTAINER["limits"], PANELS["profile"], CONTAINER["split"], CONTAINER["checksums"]
LETTERS = {"u8": "B", "i8": "b", "u16": "H", "i16": "h", "u32": "I", "i32": "i", "f32": "f", "bool": "B", "u64": "Q",
           "i64": "q", "f64": "d"}  # fmt: skip


class Refused(Exception):
    """The file breaks a rule. ``error``: its name in `spec/errors.toml`; ``where``: key or tensor; ``at``: the byte."""

    def __init__(self, error: str, where: str | None = None, at: int | None = None) -> None:
        super().__init__(f"{error}: {where or ''} (byte {at})")
        self.error, self.where, self.at = error, where, at


@dataclass
class Value:
    """A metadata value: ``kind`` as in the table, ``str[]`` for arrays; strings are bytes. ``end``: of its bytes."""

    kind: str
    value: Any
    end: int = 0


class Cursor:
    """Takes numbers and strings off the bytes of a file, in its byte order."""

    def __init__(self, data: bytes) -> None:
        self.data, self.at, self.order, self.n_inner = data, 0, "<", 0

    def number(self, kind: str, where: str | None = None) -> Any:
        size = struct.calcsize("<" + LETTERS[kind])
        if size > len(self.data) - self.at:
            raise Refused("Truncated", where, self.at)
        (value,) = struct.unpack_from(self.order + LETTERS[kind], self.data, self.at)
        self.at += size
        return value

    def string(self, limit: int, where: str | None = None) -> bytes:
        at, n_bytes = self.at, self.number("u64", where)
        if n_bytes > min(limit, len(self.data) - self.at):
            raise Refused("StringTooLong", where, at)
        self.at += n_bytes
        return self.data[self.at - n_bytes : self.at]

    def count(self, smallest: int, limit: int, where: str | None = None) -> int:
        at, value = self.at, self.number("u64", where)
        self.fits(value, smallest, limit, where, at)
        return int(value)

    def fits(self, value: int, smallest: int, limit: int, where: str | None, at: int) -> None:
        if value > limit or value * smallest > len(self.data) - self.at:
            raise Refused("CountTooLarge", where, at)

    def kind(self, where: str) -> dict[str, Any]:
        at, number = self.at, self.number("u32", where)
        if number not in KINDS:
            raise Refused("UnknownValueType", where, at)
        return KINDS[number]

    def scalar(self, kind: str, where: str) -> Any:
        at, value = self.at, self.number(kind, where)
        if kind == "bool":
            if value > 1:
                raise Refused("BadBoolean", where, at)
            return bool(value)
        return value

    def value(self, where: str) -> Value:
        kind = self.kind(where)["name"]
        if kind == "array":
            return self.array(where, 1)
        value = self.string(LIMITS["MAX_STRING_BYTES"], where) if kind == "str" else self.scalar(kind, where)
        return Value(kind, value, self.at)

    def array(self, where: str, depth: int) -> Value:
        if depth > LIMITS["MAX_ARRAY_DEPTH"]:
            raise Refused("NestingTooDeep", where, self.at)
        kind = self.kind(where)
        name, at = kind["name"], self.at
        if name == "str":
            n = self.count(8, LIMITS["MAX_ARRAY_STRINGS"], where)
            return Value("str[]", [self.string(LIMITS["MAX_STRING_BYTES"], where) for _ in range(n)])
        if name == "array":
            n = self.count(12, LIMITS["MAX_INNER_ARRAYS"], where)
            self.n_inner += n
            self.fits(self.n_inner, 0, LIMITS["MAX_INNER_ARRAYS"], where, at)
            return Value("array[]", [self.array(where, depth + 1) for _ in range(n)])
        n = self.count(kind["n_bytes"], LIMITS["MAX_ARRAY_NUMBERS"], where)
        return Value(name + "[]", [self.scalar(name, where) for _ in range(n)])


@dataclass
class Tensor:
    """A tensor of a part. ``start``: of its bytes in ``data``, the part. ``ne``: row length first."""

    name: str
    type: str
    ne: tuple[int, ...]
    start: int
    n_bytes: int
    in_panels: bool
    big: bool
    data: bytes

    @property
    def n_cols(self) -> int:
        return self.ne[0] if self.ne else 1

    @property
    def n_rows(self) -> int:
        return int(np.prod(self.ne[1:], dtype=np.int64))

    @property
    def stored(self) -> bytes:
        return self.data[self.start : self.start + self.n_bytes]

    @cached_property
    def rows(self) -> np.ndarray:
        """The rows of little-endian blocks: uint8 (n_rows, row_bytes)."""
        raw = np.frombuffer(self.stored, np.uint8)
        if self.in_panels:
            return rows_of_panels(raw, self.type, self.n_rows, self.n_cols)
        return (swapped(raw, self.type) if self.big else raw).reshape(self.n_rows, -1)

    def weights(self) -> np.ndarray:
        """float32, last dimension first in ``ne``."""
        return decode_rows(self.rows, self.type, self.n_cols, self.in_panels).reshape(self.ne[::-1])


@dataclass
class Part:
    """One file. ``base``: where its data section starts."""

    path: str
    data: bytes
    version: int
    big: bool
    values: dict[str, Value]
    tensors: list[Tensor]
    base: int

    def text(self, key: str) -> str:
        return str(self.values[key].value.decode())


def row_bytes(name: str, n_cols: int, in_panels: bool = False) -> int | None:
    """Bytes of a row of ``n_cols`` weights; None where no row has that length. Rows in panels may end in a tail."""
    spec, tail = TYPES[name], PANELS["types"].get(name, {}).get("tail")
    n_blocks, rest = divmod(n_cols, spec["block_size"])
    n_bytes = n_blocks * int(spec["block_bytes"])
    if not rest:
        return n_bytes
    if not in_panels or tail is None or rest % tail["step"]:
        return None
    return n_bytes + int(spec_panels.tail(spec, PANELS["types"][name], rest)["block_bytes"])


def filled_bytes(name: str, n_cols: int, n_bytes: int) -> int:
    """Bytes that a row of ``n_bytes`` takes in a panel: rows of floats are filled up."""
    columns = PANELS["types"][name]["columns"] if name in spec_panels.FLOATS else 1
    return -(-n_cols // columns) * columns * n_bytes // n_cols if columns > 1 else n_bytes


def decode_rows(rows: np.ndarray, name: str, n_cols: int, in_panels: bool = False) -> np.ndarray:
    """Rows uint8 (n, row_bytes) to float32 (n, n_cols)."""
    if not in_panels:
        return spec_blocks.decode(TYPES[name], rows.tobytes()).reshape(len(rows), n_cols)
    pieces = spec_panels.pieces(TYPES[name], PANELS["types"][name], n_cols)
    return spec_panels.decode([row.tobytes() for row in rows], TYPES[name], pieces, n_cols)


def swapped(raw: np.ndarray, name: str) -> np.ndarray:
    """Blocks of a big-endian file as little-endian ones."""
    blocks = raw.reshape(-1, TYPES[name]["block_bytes"]).copy()
    for field in TYPES[name]["fields"]:
        if field["kind"] in CONTAINER["byte_order"]["numbers"]:
            span = slice(field["offset"], field["offset"] + field["bytes"])
            numbers = blocks[:, span].reshape(len(blocks), field["count"], -1)
            blocks[:, span] = numbers[:, :, ::-1].reshape(len(blocks), -1)
    return blocks


def rows_of_panels(raw: np.ndarray, name: str, n_rows: int, n_cols: int) -> np.ndarray:
    """Panels, as they lie in the file, to rows uint8 (n_rows, row_bytes)."""
    lanes, at, rows = PANELS["rows"], 0, []
    pieces = spec_panels.pieces(TYPES[name], PANELS["types"][name], n_cols)
    for first in range(0, n_rows, lanes):
        panel: list[list[np.ndarray]] = [[] for _ in range(lanes)]
        for piece in pieces:
            blocks = np.empty((lanes, piece["block_bytes"]), np.uint8)
            for o, u in spec_panels.units(piece["units"]):
                for r in range(lanes):
                    blocks[r, o : o + u] = raw[at + u * r : at + u * r + u]
                at += lanes * u
            for r in range(lanes):
                panel[r].append(blocks[r])
        rows += [np.concatenate(row) for row in panel[: n_rows - first]]
    return np.stack(rows)[:, : row_bytes(name, n_cols, True)]  # rows of floats were filled up


def read_part(path: str, data: bytes) -> Part:
    """Header, metadata and tensor table of one file, checked. The steps are those of `spec/reader.md`."""
    cursor = Cursor(data)
    if data[:4] != CONTAINER["header"]["magic"].encode():
        raise Refused("NotGguf", at=0)
    cursor.at = 4
    version = cursor.number("u32")
    if version & 0xFFFF == 0 and version:
        cursor.order, cursor.at = ">", 4
        version = cursor.number("u32")
    big = cursor.order == ">"
    if version not in CONTAINER["header"]["versions"] or (big and version not in CONTAINER["byte_order"]["versions"]):
        raise Refused("UnsupportedVersion", at=4)
    if len(data) < 24:
        raise Refused("Truncated", at=8)
    n_tensors, n_keys = cursor.number("u64"), cursor.number("u64")
    cursor.fits(n_keys, LIMITS["MIN_KEY_BYTES"], LIMITS["MAX_KEYS"], None, 16)
    cursor.fits(n_tensors, LIMITS["MIN_TENSOR_BYTES"], LIMITS["MAX_TENSORS"], None, 8)
    values: dict[str, Value] = {}
    for _ in range(n_keys):
        at, key = cursor.at, cursor.string(LIMITS["MAX_KEY_BYTES"]).decode("utf-8", "surrogateescape")
        if key in values:
            raise Refused("DuplicateKey", key, at)
        values[key] = cursor.value(key)
    cursor.fits(n_tensors, LIMITS["MIN_TENSOR_BYTES"], LIMITS["MAX_TENSORS"], None, 8)
    records = _records(cursor, n_tensors)
    align = _alignment(values)
    _check_profile(values, any(_in_panels(record["type"]) for record in records), big)
    base = -(-cursor.at // align) * align
    return Part(path, data, version, big, values, _placed(records, data, base, align, big), base)


def _records(cursor: Cursor, n_tensors: int) -> list[dict[str, Any]]:
    records: dict[str, dict[str, Any]] = {}
    for i in range(n_tensors):
        at = cursor.at
        n_bytes, cursor.at = cursor.number("u64", f"tensor {i}"), at
        if not 0 < n_bytes <= LIMITS["MAX_TENSOR_NAME_BYTES"]:
            raise Refused("BadTensorName", f"tensor {i}", at)
        name = cursor.string(LIMITS["MAX_TENSOR_NAME_BYTES"], f"tensor {i}").decode("utf-8", "surrogateescape")
        record: dict[str, Any] = {"at": at, "name": name}
        for item in CONTAINER["header"]["tensor"][1:]:
            field, kind, *times = item.split()
            if field == "ne":
                if record["n_dims"] > LIMITS["MAX_DIMS"]:
                    raise Refused("BadShape", name, cursor.at - 4)
                record["ne"] = tuple(cursor.number(kind, name) for _ in range(record[times[1]]))
            else:
                record[field] = cursor.number(kind, name)
        if name in records:
            raise Refused("DuplicateTensor", name, at)
        records[name] = record
    return list(records.values())


def _alignment(values: dict[str, Value]) -> int:
    key = PROFILE["alignment_key"]
    if key not in values:
        return int(LIMITS["DEFAULT_ALIGNMENT"])
    value = values[key]
    good = value.kind == "u32" and 0 < value.value <= LIMITS["MAX_ALIGNMENT"]
    if not good or value.value & (value.value - 1):
        raise Refused("BadAlignment", key)
    return int(value.value)


def _in_panels(type_id: int) -> bool:
    return bool(0 <= type_id - PANELS["first_id"] < 0x10000)


def _check_profile(values: dict[str, Value], in_panels: bool, big: bool) -> None:
    key = PROFILE["version_key"]
    if key not in values:
        if in_panels:
            raise Refused("MissingKey", key)
        return
    if values[key].kind != "u32":
        raise Refused("WrongKeyKind", key)
    if values[key].value != PROFILE["version"] or big:
        raise Refused("UnsupportedVersion", key)
    if PROFILE["alignment_key"] not in values or values[PROFILE["alignment_key"]].value != PROFILE["alignment"]:
        raise Refused("BadAlignment", PROFILE["alignment_key"])
    for each, kind in PROFILE["required"].items():
        if each not in values:
            raise Refused("MissingKey", each)
        if values[each].kind != kind:
            raise Refused("WrongKeyKind", each)


def _placed(records: list[dict[str, Any]], data: bytes, base: int, align: int, big: bool) -> list[Tensor]:
    tensors, end = [], 0
    for record in records:
        name, at = record["name"], record["at"]
        in_panels = _in_panels(record["type"])
        number = record["type"] - (PANELS["first_id"] if in_panels else 0)
        if number not in BY_ID:
            raise Refused("RemovedType" if number in REMOVED else "UnknownType", name, at)
        if in_panels and BY_ID[number] not in PANELS["types"]:
            raise Refused("UnknownType", name, at)
        tensor = Tensor(name, BY_ID[number], record["ne"], base + record["offset"], 0, in_panels, big, data)
        tensor.n_bytes = _n_bytes(tensor, at)
        if record["offset"] % align:
            raise Refused("BadAlignment", name, at)
        if record["offset"] < end:
            raise Refused("TensorOverlap", name, at)
        end = record["offset"] + tensor.n_bytes
        if base + end > len(data):
            raise Refused("TensorOutOfFile", name, at)
        tensors.append(tensor)
    return tensors


def _n_bytes(tensor: Tensor, at: int) -> int:
    """Stored bytes of a tensor. Python's integers do not overflow; elsewhere every product must be checked."""
    n_rows = 1
    for n in tensor.ne[1:]:
        n_rows *= n
    n_bytes = row_bytes(tensor.type, tensor.n_cols, tensor.in_panels)
    if 0 in tensor.ne or n_bytes is None or n_rows * tensor.n_cols > LIMITS["MAX_TENSOR_SIZE"]:
        raise Refused("BadShape", tensor.name, at)
    stored = n_rows * n_bytes
    if tensor.in_panels:
        stored = -(-n_rows // PANELS["rows"]) * PANELS["rows"] * filled_bytes(tensor.type, tensor.n_cols, n_bytes)
    if stored > LIMITS["MAX_TENSOR_SIZE"]:
        raise Refused("BadShape", tensor.name, at)
    return stored


@dataclass
class File:
    """All parts of a file: the first part's metadata without ``split.*`` where there are several; every tensor."""

    parts: list[Part]
    values: dict[str, Value]
    tensors: dict[str, Tensor]


def read(path: str | os.PathLike[str]) -> File:
    """Read a file, or all parts of the split file that ``path`` is a part of. Raises `Refused`."""
    first = read_part(os.fspath(path), Path(path).read_bytes())
    count = _integer(first.values, SPLIT["count"], 1)
    if not 1 <= count <= LIMITS["MAX_PARTS"]:
        raise Refused("SplitMismatch", SPLIT["count"])
    parts = [first] if count == 1 else _other_parts(first, count)
    tensors: dict[str, Tensor] = {}
    for part in parts:
        for tensor in part.tensors:
            if tensor.name in tensors:
                raise Refused("DuplicateTensor", tensor.name)
            tensors[tensor.name] = tensor
    values = {k: v for k, v in parts[0].values.items() if count == 1 or k not in SPLIT.values()}
    return File(parts, values, tensors)


def _integer(values: dict[str, Value], key: str, default: int | None) -> int:
    value = values.get(key, Value("", default)).value
    if not isinstance(value, int) or isinstance(value, bool):
        raise Refused("SplitMismatch", key)
    return value


def _other_parts(first: Part, count: int) -> list[Part]:
    folder, name = os.path.split(first.path)
    match = re.fullmatch(r"(.*)-([0-9]{5})-of-([0-9]{5})(\.[^./\\]+)", name, re.DOTALL)
    if match is None or int(match[3]) != count:
        raise Refused("SplitMismatch", SPLIT["count"])
    if not 1 <= int(match[2]) <= count:
        raise Refused("SplitMismatch")
    paths = [os.path.join(folder, f"{match[1]}-{i:05d}-of-{count:05d}{match[4]}") for i in range(1, count + 1)]
    if not all(os.path.exists(path) for path in paths):
        raise Refused("SplitMismatch")
    parts = [first if path == first.path else read_part(path, Path(path).read_bytes()) for path in paths]
    for i, part in enumerate(parts):
        for key, value in ((SPLIT["count"], count), (SPLIT["number"], i)):
            if _integer(part.values, key, None) != value:
                raise Refused("SplitMismatch", key)
        if (PROFILE["version_key"] in part.values) != (PROFILE["version_key"] in parts[0].values):
            raise Refused("SplitMismatch", PROFILE["version_key"])
    if _integer(parts[0].values, SPLIT["tensors"], None) != sum(len(part.tensors) for part in parts):
        raise Refused("SplitMismatch", SPLIT["tensors"])
    return parts


def digests(part: Part) -> tuple[list[str], str]:
    """What the two checksum keys of a part should say: the tensors' digests, and the header's."""
    after = part.values[SUMS["header"]].end
    rest, end = part.data[: after - 64] + b"0" * 64 + part.data[after : part.base], part.base
    for tensor in part.tensors:
        rest, end = rest + part.data[end : tensor.start], tensor.start + tensor.n_bytes
    rest += part.data[end:]
    return [hashlib.sha256(tensor.stored).hexdigest() for tensor in part.tensors], hashlib.sha256(rest).hexdigest()


def main() -> int:
    try:
        file = read(sys.argv[1])
    except Refused as refused:
        print(refused, file=sys.stderr)
        return 1
    for key, value in file.values.items():
        print(f"{key}: {value.kind} = {str(value.value)[:80]}")
    for name, tensor in file.tensors.items():
        how = " in panels" if tensor.in_panels else ""
        print(f"{name}: {tensor.type}{how} {tensor.ne} weights {spec_blocks.float_hash(tensor.weights())[:16]}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
