"""The tiny models of ``golden/`` and torch's logits of them (see tools/gen_golden.py)."""
from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

FOLDER = Path(__file__).parent / "golden"
INDEX: dict[str, str] = json.loads((FOLDER / "index.json").read_text())["files"]
NAMES = sorted(name.removesuffix(".gguf") for name in INDEX if name.endswith(".gguf"))


@dataclass(frozen=True)
class Golden:
    """``logits``: float32 (len(positions), n_vocab), those after ``ids[positions]`` of the prompt ``ids``."""

    path: Path
    ids: list[int]
    positions: list[int]
    logits: np.ndarray
    nmse_int8: float


def load(name: str) -> Golden:
    """One tiny model; a missing file raises."""
    with np.load(FOLDER / f"{name}.npz") as arrays:
        return Golden(
            FOLDER / f"{name}.gguf", arrays["ids"].tolist(), arrays["positions"].tolist(), arrays["logits"],
            float(arrays["nmse_int8"]),
        )


def digest(path: Path) -> str:
    """SHA-256 of a model file, or of the arrays of an .npz (its zip container holds dates)."""
    sha = hashlib.sha256()
    if path.suffix == ".gguf":
        sha.update(path.read_bytes())
    else:
        with np.load(path) as arrays:
            for name in sorted(arrays.files):
                sha.update(name.encode() + arrays[name].dtype.str.encode() + arrays[name].tobytes())
    return sha.hexdigest()
