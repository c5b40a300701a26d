"""Weights and importances for the tests of quantizers: sums and products of random bits, the same on every system.

``python -m tests.kernels.quantizer_inputs TYPE ...`` prints one JSON object: type name to SHA-256 of its bytes.
"""

from __future__ import annotations

import hashlib
import json
import sys

import numpy as np

COLUMNS = 1024

#: Types with a compiled quantizer.
TYPES = (
    "f16",
    "bf16",
    "q4_0",
    "q4_1",
    "q5_0",
    "q5_1",
    "q8_0",
    "q2_k",
    "q3_k",
    "q4_k",
    "q5_k",
    "q6_k",
    "iq4_nl",
    "iq4_xs",
    "tq1_0",
    "tq2_0",
    "q1_0",
    "q2_0",
    "mxfp4",
)

KINDS = (
    "normal",
    "heavy",
    "outliers",
    "loud rows",
    "positive",
    "negative",
    "uniform",
    "offset",
    "small",
    "tiny",
    "huge",
    "mixed",
)


def _uniform(shape: tuple[int, ...], seed: int) -> np.ndarray:
    """float64 in [-1, 1), multiples of 2**-31. ``RandomState`` is frozen: NumPy promises its bits."""
    return np.random.RandomState(seed).randint(-(1 << 31), 1 << 31, shape, dtype=np.int64) / 2.0**31


def weights(kind: str, n_rows: int = 24, n_cols: int = COLUMNS, seed: int = 1) -> np.ndarray:
    """float32 (n_rows, n_cols)."""
    shape = (n_rows, n_cols)
    normal = sum(_uniform(shape, 100 * seed + i) for i in range(6)) * 0.7  # variance 0.98
    rare = _uniform(shape, 100 * seed + 6) > 0.99
    loud = _uniform((n_rows, 1), 100 * seed + 7) > 0.8
    made = {
        "normal": normal * 0.02,
        "heavy": normal * normal * normal * 0.01,
        "outliers": normal * np.where(rare, 20, 1),
        "loud rows": normal * np.where(loud, 50, 1),
        "positive": np.abs(normal),
        "negative": -np.abs(normal) - 0.5,
        "uniform": _uniform(shape, 100 * seed + 8),
        "offset": normal * 0.1 + 3,
        "small": normal * 1e-4,
        "tiny": normal * 1e-6,
        "huge": np.clip(normal * 2e4, -65504, 65504),
    }
    if kind == "mixed":
        return np.concatenate(
            [m[:3] for m in made.values()] + [np.zeros((1, n_cols)), np.full((1, n_cols), 0.3)]
        ).astype(np.float32)
    return made[kind].astype(np.float32)


def importance(n_cols: int = COLUMNS, seed: int = 3) -> np.ndarray:
    """float32 (n_cols,): skewed over six orders of magnitude, as measured importances are."""
    u = _uniform((n_cols,), seed)
    return (u * u * u * u * u * u + 1e-6).astype(np.float32)


def digest(name: str, threads: int | None = None) -> str:
    """SHA-256 of what the quantizer makes of the mixed weights, without and with importance."""
    from ggblock.convert.encode import encode_rows

    x = weights("mixed")
    data = hashlib.sha256(encode_rows(x, name, None, threads).tobytes())
    data.update(encode_rows(x, name, importance(), threads).tobytes())
    return data.hexdigest()


if __name__ == "__main__":
    print(json.dumps({name: digest(name) for name in sys.argv[1:]}))
