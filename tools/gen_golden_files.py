#!/usr/bin/env python3
"""Make the files in `spec/files` and their table `index.toml`, by the specification alone; never with ggblock.

    python tools/gen_golden_files.py            # writes them anew; --check says which differ (exit code 1)

A small writer of GGUF and GGB files that knows nothing of the package, as `spec_reader.py` is a reader: the tests hold
both against each other, against the package and against gguf.
"""
from __future__ import annotations

import argparse
import hashlib
import math
import struct
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tools import spec_blocks, spec_panels, spec_reader
from tools.spec_reader import CONTAINER, LETTERS, PANELS, PROFILE, SPLIT, SUMS, TYPES

FILES = spec_reader.SPEC / "files"
KIND_IDS = {kind["name"]: kind["id"] for kind in CONTAINER["kind"]}
#: Rows of a tensor by its turn: one panel and a bit more, several matrices, exactly one panel; and a vector for types
#: without panels.
SHAPES, VECTOR = ((17,), (3,), (2, 3), (16,), (2, 1, 2)), ()
#: Types that the gguf package does not know yet have files of their own.
RECENT = ("q2_0",)
#: One type of each sort, for a first reader.
FEW = ("f32", "f16", "q4_0", "q8_0", "q2_k", "q4_k", "q6_k", "iq2_xxs", "iq4_xs", "tq1_0")
KEYS: list[tuple[str, str, Any]] = [
    ("general.architecture", "str", "none"),
    ("spec.u8", "u8", 255), ("spec.i8", "i8", -128), ("spec.u16", "u16", 65535), ("spec.i16", "i16", -32768),
    ("spec.u32", "u32", 1 << 31), ("spec.i32", "i32", -1), ("spec.u64", "u64", (1 << 64) - 1),
    ("spec.i64", "i64", -(1 << 63)), ("spec.f32", "f32", 0.5), ("spec.f64", "f64", 0.1), ("spec.bool", "bool", True),
    ("spec.text", "str", "Grüße, 世界"), ("spec.tokens", "str[]", ["a", "", "ß"]),
    ("spec.scores", "f32[]", [1.0, -2.0]),
    ("spec.flags", "bool[]", [True, False]), ("spec.none", "i32[]", []),
]  # fmt: skip


class Tensor:
    """A tensor to be written. ``ne``: row length first. ``rows``: uint8 (n_rows, row_bytes), little-endian blocks."""

    def __init__(self, name: str, kind: str, ne: tuple[int, ...], in_panels: bool = False) -> None:
        self.name, self.kind, self.ne, self.in_panels = name, kind, ne, in_panels
        n_bytes = spec_reader.row_bytes(kind, ne[0], in_panels)
        assert n_bytes is not None
        n_rows = math.prod(ne[1:])
        data = spec_blocks.vector_bytes(f"{kind}", n_rows * n_bytes)
        self.rows = np.frombuffer(data, np.uint8).reshape(n_rows, n_bytes)

    def stored(self, big: bool) -> bytes:
        """The bytes in the file."""
        if self.in_panels:
            pieces = spec_panels.pieces(TYPES[self.kind], PANELS["types"][self.kind], self.ne[0])
            return spec_panels.to_panels([row.tobytes() for row in self.rows], pieces, PANELS["rows"])
        return (spec_reader.swapped(self.rows, self.kind) if big else self.rows).tobytes()

    @property
    def decodable(self) -> tuple[np.ndarray, str, int, bool]:
        """What `spec_reader.decode_rows` takes."""
        return self.rows, self.kind, self.ne[0], self.in_panels

    @property
    def type_id(self) -> int:
        """The number in the file."""
        return int(TYPES[self.kind]["id"]) + (PANELS["first_id"] if self.in_panels else 0)


class Writer:
    """Bytes of a container, little or big-endian."""

    def __init__(self, big: bool) -> None:
        self.order, self.out = ">" if big else "<", bytearray()

    def number(self, kind: str, value: Any) -> None:
        self.out += struct.pack(self.order + LETTERS[kind], value)

    def text(self, text: str) -> None:
        self.number("u64", len(text.encode()))
        self.out += text.encode()

    def value(self, kind: str, value: Any) -> None:
        if kind.endswith("[]"):
            self.number("u32", KIND_IDS[kind[:-2]])
            self.number("u64", len(value))
            for each in value:
                self.value(kind[:-2], each)
        elif kind == "str":
            self.text(value)
        else:
            self.number(kind, value)

    def pad(self, align: int) -> None:
        self.out += bytes(-len(self.out) % align)


def container(keys: list[tuple[str, str, Any]], tensors: list[Tensor], align: int, big: bool = False) -> bytes:
    """A whole file with checksums."""
    stored = [tensor.stored(big) for tensor in tensors]
    keys = [*keys, (SUMS["tensors"], "str[]", [hashlib.sha256(raw).hexdigest() for raw in stored]),
            (SUMS["header"], "str", "0" * 64)]  # fmt: skip
    out = Writer(big)
    out.out += CONTAINER["header"]["magic"].encode()
    for kind, value in (("u32", CONTAINER["header"]["write_version"]), ("u64", len(tensors)), ("u64", len(keys))):
        out.number(kind, value)
    for key, kind, value in keys:
        out.text(key)
        out.number("u32", KIND_IDS["array" if kind.endswith("[]") else kind])
        out.value(kind, value)
    digits_at, offset = len(out.out) - 64, 0
    for tensor, raw in zip(tensors, stored, strict=True):
        out.text(tensor.name)
        out.number("u32", len(tensor.ne))
        for n in tensor.ne:
            out.number("u64", n)
        out.number("u32", tensor.type_id)
        out.number("u64", offset)
        offset += -(-len(raw) // align) * align
    out.pad(align)
    rest = bytearray(out.out)
    for raw in stored:
        out.out += raw
        before = len(out.out)
        out.pad(align)
        rest += out.out[before:]
    out.out[digits_at : digits_at + 64] = hashlib.sha256(rest).hexdigest().encode()
    return bytes(out.out)


def tensors_of(names: Iterable[str], ggb: bool) -> list[Tensor]:
    """One tensor a type, of shapes that differ; and a vector, which is never in panels."""
    out = [Tensor("vector", "f32", (5,))]
    for turn, name in enumerate(names):
        has_panels = name in PANELS["types"]
        lead = SHAPES[turn % len(SHAPES)] if has_panels or turn % 3 else VECTOR
        size = TYPES[name]["block_size"]
        n_cols = {1: 11, 32: 64, 64: 128}.get(size, size)
        out.append(Tensor(f"{name}.weight", name, (n_cols, *reversed(lead)), ggb and has_panels))
    return out


def ragged_tensors(names: Iterable[str]) -> list[Tensor]:
    """Rows of a tail alone, and of a block and a tail, for every type that has tails."""
    out = []
    for turn, (name, entry) in enumerate(PANELS["types"].items()):
        if "tail" in entry and name in names:
            step, size = entry["tail"]["step"], TYPES[name]["block_size"]
            for n_cols, n_rows in ((step, 2), (size + (2 * turn + 1) * step % size, 17)):
                out.append(Tensor(f"{name}.{n_cols}.weight", name, (n_cols, n_rows), True))
    return out


def marks(align: bool = False) -> list[tuple[str, str, Any]]:
    """The keys of the GGB profile."""
    kept = [(PROFILE["kept_alignment_key"], "u32", 128)] if align else []
    return [*kept, *((PROFILE[f"{what}_key"], "u32", PROFILE[what]) for what in ("alignment", "version"))]


def parts() -> dict[str, tuple[list[tuple[str, str, Any]], list[Tensor], int, bool]]:
    """What is in each file: keys, tensors, alignment, whether it is big-endian."""
    align = PROFILE["alignment"]
    own = [[Tensor("a", "q8_0", (64, 5), True), Tensor("norm", "f32", (7,))], [Tensor("b", "q6_k", (256, 2), True)],
           [Tensor("last", "f32", (3,))]]  # fmt: skip
    total = [(SPLIT["count"], "u16", 3), (SPLIT["tensors"], "i32", 4)]
    known = [name for name in sorted(TYPES) if name not in RECENT]
    single = [Tensor(f"{name}.weight", name, (TYPES[name]["block_size"],)) for name in known]
    split = {
        f"split-0000{i + 1}-of-00003.ggb": (
            [*(KEYS[:1] if i == 0 else []), *marks(), (SPLIT["number"], "u16", i), *total], own[i], align, False
        )
        for i in range(3)
    }
    aligned = [*KEYS[:1], (PROFILE["alignment_key"], "u32", 128)]
    return {
        "types.gguf": (KEYS, tensors_of(known, False), 32, False),
        "types.ggb": ([*KEYS, *marks()], tensors_of(known, True), align, False),
        "few.gguf": (KEYS, tensors_of(FEW, False), 32, False),
        "few.ggb": ([*KEYS, *marks()], tensors_of(FEW, True), align, False),
        "recent.gguf": (KEYS[:1], tensors_of(RECENT, False), 32, False),
        "recent.ggb": ([*KEYS[:1], *marks()], tensors_of(RECENT, True), align, False),
        "big-endian.gguf": (KEYS, single, 32, True),
        "aligned.gguf": (aligned, [Tensor("w", "q4_0", (32, 2))], 128, False),
        "aligned.ggb": ([*KEYS[:1], *marks(True)], [Tensor("w", "q4_0", (32, 2), True)], align, False),
        "ragged.ggb": ([*KEYS[:1], *marks()], ragged_tensors(TYPES), align, False),
        "few-ragged.ggb": ([*KEYS[:1], *marks()], ragged_tensors(FEW), align, False),
        "empty.ggb": ([*KEYS[:1], *marks()], [], align, False),
        **split,
    }


def index(made: dict[str, bytes], tensors: dict[str, list[Tensor]]) -> str:
    """The text of `index.toml`."""
    lines = ["# Made by tools/gen_golden_files.py by the specification alone; see ../reader.md, 'Proof'.",
             "# rows_sha256: of the rows of little-endian blocks; weights_sha256: as in ../blocks/README.md.", ""]
    for name, raw in made.items():
        digest = hashlib.sha256(raw).hexdigest()
        lines += ["[[file]]", f'name = "{name}"', f"n_bytes = {len(raw)}", f'sha256 = "{digest}"', "tensors = ["]
        for tensor in tensors[name]:
            rows = hashlib.sha256(tensor.rows.tobytes()).hexdigest()
            weights = spec_blocks.float_hash(spec_reader.decode_rows(*tensor.decodable))
            lines.append(
                f'    {{ name = "{tensor.name}", type = "{tensor.kind}", ne = {list(tensor.ne)}, '
                f'order = "{"panels" if tensor.in_panels else "rows"}", rows_sha256 = "{rows}", '
                f'weights_sha256 = "{weights}" }},'
            )
        lines += ["]", ""]
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if a file differs")
    check = parser.parse_args().check
    plan = parts()
    made = {name: container(*each) for name, each in plan.items()}
    texts = {**made, "index.toml": index(made, {name: each[1] for name, each in plan.items()}).encode()}
    found = {path.name: path.read_bytes() for path in FILES.iterdir()} if FILES.exists() else {}
    stale = [name for name, raw in texts.items() if found.get(name) != raw]
    for name in [] if check else stale:
        FILES.mkdir(exist_ok=True)
        (FILES / name).write_bytes(texts[name])
    print(("differ: " if check else "written: ") + (" ".join(stale) or "none"))
    return 1 if check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
