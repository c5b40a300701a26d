"""Tables of cosines and sines for rotary positions, with the scalings that files ask for.

Frequencies ``base ** (-2 i / n_rot)`` (Su et al. 2021). "linear": positions divided by the factor. "llama3": the file
carries a divisor for each pair (``rope_freqs.weight``). "yarn" (Peng et al. 2023): pairs that turn often keep their
frequency, slow ones are interpolated, with a ramp between; cosines and sines are multiplied by an attention factor.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from .. import errors
from ..engine.memory import floats
from .config import Source


class RopeTable:
    """float32 (n_ctx, 2, n_rot / 2): cosines, then sines. Rows are filled when they are first needed."""

    def __init__(self, n_ctx: int, frequencies: npt.NDArray[np.float32], factor: float = 1.0) -> None:
        self.data = floats(n_ctx, 2, len(frequencies))
        self._frequencies, self._factor, self._filled = frequencies, factor, 0

    def ensure(self, n_positions: int) -> None:
        """Fills rows up to ``n_positions``."""
        if n_positions <= self._filled:
            return
        end = min(len(self.data), max(n_positions, self._filled + 512))
        positions = np.arange(self._filled, end, dtype=np.float32)
        angles = (positions[:, None] * self._frequencies).astype(np.float64)
        self.data[self._filled : end, 0] = np.cos(angles) * self._factor
        self.data[self._filled : end, 1] = np.sin(angles) * self._factor
        self._filled = end


def _plain(base: float, n_rot: int) -> npt.NDArray[np.float32]:
    return (1.0 / base ** (np.arange(0, n_rot, 2, dtype=np.float64) / n_rot)).astype(np.float32)


def _yarn(source: Source, base: float, n_rot: int, scale: float, n_train: int) -> tuple[npt.NDArray[np.float32], float]:
    fast, slow = (
        source.number("*.rope.scaling.yarn_beta_fast", 32.0),
        source.number("*.rope.scaling.yarn_beta_slow", 1.0),
    )
    original = source.integer("*.rope.scaling.original_context_length", n_train)

    def turns(n: float) -> float:
        return n_rot * math.log(original / (n * 2 * math.pi)) / (2 * math.log(base))

    low, high = max(0, math.floor(turns(fast))), min(n_rot - 1, math.ceil(turns(slow)))
    ramp = np.clip((np.arange(n_rot // 2) - low) / max(0.001, high - low), 0, 1)
    plain = _plain(base, n_rot).astype(np.float64)
    mixed = plain * scale * ramp + plain * (1 - ramp)
    factor = source.number("*.rope.scaling.attn_factor", 1.0) * (1.0 + 0.1 * math.log(1.0 / scale))
    return mixed.astype(np.float32), float(factor)


def rope_table(source: Source, n_ctx: int, n_rot: int, base: float, n_train: int, scaled: bool = True) -> RopeTable:
    """The table that the file's metadata ask for; ``scaled`` False leaves out any scaling (Gemma 3's local layers)."""
    kind = source.text("*.rope.scaling.type", "none") if scaled else "none"
    old = source.number("*.rope.scale_linear", None) if scaled else None
    factor = source.number("*.rope.scaling.factor", old if old is not None else 1.0) or 1.0
    if kind == "none" and old is not None:
        kind = "linear"
    if base <= 1.0 or factor <= 0:
        raise errors.ShapeMismatch(
            "rotary base must be above 1 and its scaling positive",
            file=source.file.path,
            where=f"{source.architecture}.rope.freq_base",
            actual=f"{base}, factor {factor}",
        )
    gain = 1.0
    if kind == "yarn":
        frequencies, gain = _yarn(source, base, n_rot, 1.0 / factor, n_train)
    else:
        frequencies = _plain(base, n_rot)
        if kind == "linear":
            frequencies = frequencies / np.float32(factor)
        elif kind not in ("none", "llama3"):
            raise errors.ModelError(
                "unknown rotary scaling",
                file=source.file.path,
                where=f"{source.architecture}.rope.scaling.type",
                expected="none, linear, llama3 or yarn",
                actual=kind,
            )
    if scaled and source.has("rope_freqs.weight"):
        divisors: Any = source.tensor("rope_freqs.weight", n_rot // 2).dequantize()
        frequencies = frequencies / divisors
    return RopeTable(n_ctx, frequencies.astype(np.float32), gain)
