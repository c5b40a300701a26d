#!/usr/bin/env python3
"""Make `spec/blocks/vectors.toml`: hashes of what other programs decode from the conformance vectors' bytes.

Never imports ggblock. Oracles: the packages ``gguf`` (NumPy) and ``libgguf`` (C), ggml itself (``--ggml``, a
libggml-base of llama.cpp, or that of an installed llama-cpp-python), and for plain numbers Python's ``struct``.
Every oracle that knows a type is asked; the tool stops if two disagree or if a type has none.
"""
from __future__ import annotations

import argparse
import ctypes
import hashlib
import importlib.util
import struct
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import libgguf
import numpy as np

OUT = Path(__file__).resolve().parent.parent / "spec" / "blocks" / "vectors.toml"

#: name: (ggml id, weights a block, bytes a block), as in ggml's own table.
TYPES = {
    "f32": (0, 1, 4), "f16": (1, 1, 2), "bf16": (30, 1, 2), "f64": (28, 1, 8),
    "i8": (24, 1, 1), "i16": (25, 1, 2), "i32": (26, 1, 4), "i64": (27, 1, 8),
    "q1_0": (41, 128, 18), "q2_0": (42, 64, 18),
    "q4_0": (2, 32, 18), "q4_1": (3, 32, 20), "q5_0": (6, 32, 22), "q5_1": (7, 32, 24),
    "q8_0": (8, 32, 34), "q8_1": (9, 32, 36),
    "q2_k": (10, 256, 84), "q3_k": (11, 256, 110), "q4_k": (12, 256, 144), "q5_k": (13, 256, 176),
    "q6_k": (14, 256, 210), "q8_k": (15, 256, 292),
    "iq1_s": (19, 256, 50), "iq1_m": (29, 256, 56), "iq2_xxs": (16, 256, 66), "iq2_xs": (17, 256, 74),
    "iq2_s": (22, 256, 82), "iq3_xxs": (18, 256, 98), "iq3_s": (21, 256, 110),
    "iq4_nl": (20, 32, 18), "iq4_xs": (23, 256, 136), "tq1_0": (34, 256, 54), "tq2_0": (35, 256, 66),
    "mxfp4": (39, 32, 17), "nvfp4": (40, 64, 36),
}
#: Formats of the plain numbers, for ``struct``.
PLAIN = {"f32": "f", "f16": "e", "f64": "d", "i8": "b", "i16": "h", "i32": "i", "i64": "q"}
#: At least this many weights a vector: every byte value turns up in every field.
N_WEIGHTS = 16384


def vector_bytes(name: str, n_bytes: int) -> bytes:
    digests = (hashlib.sha256(f"{name}:{i}".encode()).digest() for i in range(-(-n_bytes // 32)))
    return b"".join(digests)[:n_bytes]


def hash_floats(values: np.ndarray) -> str:
    values = np.ascontiguousarray(values, "<f4")
    return hashlib.sha256(np.where(np.isnan(values), np.float32(np.nan), values).astype("<f4").tobytes()).hexdigest()


def by_gguf(name: str, data: bytes, n_weights: int) -> np.ndarray | None:
    if (name in PLAIN and name not in ("f32", "f16")) or name in ("q8_1", "q2_0"):
        return None  # the package has no decoder, or (Q2_0) no such type
    _, _, block_bytes = TYPES[name]
    blocks = np.frombuffer(data, np.uint8).reshape(-1, block_bytes)
    try:
        return gguf.dequantize(blocks, gguf.GGMLQuantizationType(TYPES[name][0])).reshape(-1)
    except NotImplementedError:
        return None


def by_libgguf(name: str, data: bytes, n_weights: int) -> np.ndarray | None:
    try:
        rows = np.frombuffer(data, np.uint8)[None]
        return np.asarray(libgguf.dequantize_rows(rows, TYPES[name][0], n_per_row=n_weights)).reshape(-1)
    except ValueError:
        return None


def by_ggml(library: Any) -> Callable[[str, bytes, int], np.ndarray | None]:
    library.ggml_type_size.restype = ctypes.c_size_t
    library.ggml_blck_size.restype = ctypes.c_int64

    def decode(name: str, data: bytes, n_weights: int) -> np.ndarray | None:
        number, block_size, block_bytes = TYPES[name]
        if (library.ggml_blck_size(number), library.ggml_type_size(number)) != (block_size, block_bytes):
            raise SystemExit(f"{name}: ggml has another block or type size")
        function = getattr(library, f"dequantize_row_{name.replace('_k', '_K')}", None)
        if function is None:
            return None
        out = np.empty(n_weights, np.float32)
        source = np.frombuffer(data, np.uint8).copy()
        function(ctypes.c_void_p(source.ctypes.data), ctypes.c_void_p(out.ctypes.data), ctypes.c_int64(n_weights))
        return out

    return decode


def by_struct(name: str, data: bytes, n_weights: int) -> np.ndarray | None:
    if name == "bf16":
        return np.array([struct.unpack("<f", bytes(2) + data[i : i + 2])[0] for i in range(0, len(data), 2)], "<f4")
    if name == "q8_1":  # a float16 d, a float16 nobody needs, 32 signed bytes
        blocks = list(struct.iter_unpack("<ee32b", data))
        return np.array([[np.float32(d) * np.float32(q) for q in codes] for d, _, *codes in blocks], "<f4").reshape(-1)
    if name not in PLAIN:
        return None
    numbers = [number for (number,) in struct.iter_unpack("<" + PLAIN[name], data)]
    return np.array(numbers, "<i8" if name[0] == "i" else "<f8").astype("<f4")


def find_ggml() -> str | None:
    spec = importlib.util.find_spec("llama_cpp")
    if spec is None or spec.origin is None:
        return None
    names = ("libggml-base.so", "libggml-base.dylib", "ggml-base.dll")
    return next((str(p) for n in names if (p := Path(spec.origin).parent / "lib" / n).exists()), None)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ggml", default=find_ggml(), help="path of libggml-base (default: llama-cpp-python's)")
    path = parser.parse_args().ggml
    if path is None:
        raise SystemExit("libggml-base is needed for Q2_0 and Q8_K: install llama-cpp-python or give --ggml PATH")
    oracles = {
        "gguf": by_gguf, "libgguf": by_libgguf, "ggml": by_ggml(ctypes.CDLL(path)), "struct": by_struct,
    }
    lines = ["# Made by tools/gen_golden_blocks.py with the programs named; see README.md, 'Conformance vectors'."]
    for name, (number, block_size, block_bytes) in TYPES.items():
        n_blocks = max(1, N_WEIGHTS // block_size)
        data = vector_bytes(name, n_blocks * block_bytes)
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            given = {oracle: decode(name, data, n_blocks * block_size) for oracle, decode in oracles.items()}
        hashes = {oracle: hash_floats(values) for oracle, values in given.items() if values is not None}
        if len(set(hashes.values())) != 1:
            raise SystemExit(f"{name}: the oracles disagree or are missing: {hashes}")
        lines += [
            "", f"[{name}]", f"id = {number}", f"n_blocks = {n_blocks}",
            f'data_sha256 = "{hashlib.sha256(data).hexdigest()}"',
            f'weights_sha256 = "{next(iter(hashes.values()))}"',
            "oracles = [" + ", ".join(f'"{oracle}"' for oracle in hashes) + "]",
        ]
    OUT.write_text("\n".join(lines) + "\n", "utf-8")
    print(f"{len(TYPES)} types written to {OUT}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
