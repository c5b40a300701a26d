"""Searches that the reference encoders share. Informative: any encoder that the decoders accept is valid.

Every function works on groups of weights that share one scale: ``x`` float32 (n_groups, group_size) with
``weights`` float32 of the same shape for the squared errors. Loops run over candidates, never over groups.
"""
from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .base import F32, U8, put_f16


def reciprocal(values: F32) -> F32:
    """1 / values in float32, 0 where values is 0 (or too small to have a finite reciprocal)."""
    with np.errstate(divide="ignore", over="ignore"):
        inverse = np.float32(1) / values
    finite: F32 = np.where(np.isfinite(inverse), inverse, np.float32(0)).astype(np.float32)
    return finite


def signed_extreme(x: F32) -> F32:
    """The value of largest magnitude of each group, with its sign: float32 (n_groups, 1)."""
    index = np.abs(x).argmax(axis=-1)[:, None]
    return np.take_along_axis(x, index, axis=-1)


def best_scale(x: F32, weights: F32, n_low: int, n_high: int, n_steps: int = 9, width: float = 0.1) -> F32:
    """The scale ``d`` (n_groups,) with least ``sum(weights * (x - d * clip(round(x / d), n_low, n_high))**2)``.

    The value of largest magnitude is sent to ``n_low`` (the side with more codes); candidates move that by
    ``width`` steps, and each candidate's codes get their least-squares scale.
    """
    top = signed_extreme(x)
    best = np.zeros(len(x), np.float32)
    best_gain = np.full(len(x), -1.0, np.float32)
    for step in range(-n_steps, n_steps + 1):
        inverse = np.float32(n_low - width * step) * reciprocal(top)
        codes = np.clip(np.rint(x * inverse), n_low, n_high)
        along = np.sum(weights * x * codes, axis=-1)
        energy = np.sum(weights * codes * codes, axis=-1)
        scale = along * reciprocal(energy)
        gain = along * scale  # the squared error falls by this much
        better = gain > best_gain
        best[better], best_gain[better] = scale[better], gain[better]
    return best


def best_scale_min(
    x: F32, weights: F32, n_max: int, n_steps: int = 20, low: float = -1.0, width: float = 0.1
) -> tuple[F32, F32]:
    """Scale and min (n_groups,) each, >= 0, with least ``sum(weights * (scale * q - min - x)**2)``, q in 0..n_max.

    Starts from the range of the values (which includes 0) and solves the two-parameter least squares for
    the codes of each candidate step.
    """
    minimum = np.minimum(x.min(axis=-1), np.float32(0))
    spread = x.max(axis=-1) - minimum
    total_w = weights.sum(axis=-1)
    total_x = (weights * x).sum(axis=-1)
    scale, offset = spread / np.float32(n_max), minimum.copy()
    error = _weighted_error(x, weights, scale, offset, n_max)
    for step in range(n_steps + 1):
        inverse = np.float32(n_max + low + width * step) * reciprocal(spread)
        codes = np.clip(np.rint((x - minimum[:, None]) * inverse[:, None]), 0, n_max)
        wq = weights * codes
        sum_q, sum_qq, sum_xq = wq.sum(axis=-1), (wq * codes).sum(axis=-1), (wq * x).sum(axis=-1)
        det = total_w * sum_qq - sum_q * sum_q
        inv_det = reciprocal(np.maximum(det, 0))
        new_scale = (total_w * sum_xq - total_x * sum_q) * inv_det
        new_offset = (sum_qq * total_x - sum_q * sum_xq) * inv_det
        positive = new_offset > 0  # a min is stored without sign: the best fit through zero instead
        new_scale = np.where(positive, sum_xq * reciprocal(sum_qq), new_scale).astype(np.float32)
        new_offset = np.where(positive, 0, new_offset).astype(np.float32)
        new_error = _weighted_error(x, weights, new_scale, new_offset, n_max)
        better = (new_error < error) & (new_scale > 0)
        scale[better], offset[better], error[better] = new_scale[better], new_offset[better], new_error[better]
    return scale, -offset


def _weighted_error(x: F32, weights: F32, scale: F32, offset: F32, n_max: int) -> F32:
    codes = np.clip(np.rint((x - offset[:, None]) * reciprocal(scale)[:, None]), 0, n_max)
    miss = scale[:, None] * codes + offset[:, None] - x
    result: F32 = (weights * miss * miss).sum(axis=-1)
    return result


def default_weights(x: F32, importance: F32 | None) -> F32:
    """Weights of the squared errors: larger weights matter more, as in ggml's quantizers.

    ``x``: float32 (n_groups, group_size). With ``importance`` (same shape) they are
    ``importance * sqrt(mean(x**2) + x**2)``, else ``sqrt(mean(x**2)) + |x|``.
    """
    power = np.mean(x * x, axis=-1, keepdims=True)
    if importance is None:
        weights: F32 = np.sqrt(power) + np.abs(x)
    else:
        weights = importance * np.sqrt(power + x * x)
    return weights


def round_codes(x: F32, scale: F32, offset: F32 | None, n_low: int, n_high: int) -> F32:
    """Nearest codes of ``x`` (n_groups, group_size) for ``scale * code + offset``: whole float32 numbers."""
    shifted = x if offset is None else x - offset[:, None]
    codes: F32 = np.clip(np.rint(shifted * reciprocal(scale)[:, None]), n_low, n_high)
    return codes


def round_half_away(x: F32) -> F32:
    """Nearest whole numbers, halves away from zero (C's ``roundf``), exactly."""
    size = np.abs(x)
    whole = np.floor(size)
    rounded: F32 = np.copysign(whole + (size - whole >= np.float32(0.5)), x).astype(np.float32)
    return rounded


def fit_range(blocks: F32, importance: F32 | None, code_max: int) -> tuple[F32, F32, U8]:
    """Scale, offset (n_blocks,) and codes for Q4_1 and Q5_1: ``scale * code + offset``.

    Without ``importance``, the smallest and the largest weight are exact but for float16 (ggml's reference);
    with it, the best range that reaches zero or beyond.
    """
    if importance is None:
        offset = blocks.min(axis=1)
        scale = (blocks.max(axis=1) - offset) / np.float32(code_max)
        steps = (blocks - offset[:, None]) * reciprocal(scale)[:, None] + np.float32(0.5)
        return scale, offset, np.clip(np.trunc(steps), 0, code_max).astype(np.uint8)
    scale, minimum = best_scale_min(blocks, importance, code_max)
    scale, offset = _as_stored(scale), _as_stored(-minimum)
    return scale, offset, round_codes(blocks, scale, offset, 0, code_max).astype(np.uint8)


@dataclass(frozen=True)
class SuperBlocks:
    """Fields of fitted super-blocks. ``d``, ``dmin``: uint8 (n_blocks, 2), float16 bytes. ``scales``, ``mins``:
    uint8 or int8 (n_blocks, n_sub). ``codes``: uint8 or int8 (n_blocks, block_size)."""

    d: U8
    dmin: U8
    scales: NDArray[Any]
    mins: U8
    codes: NDArray[Any]


def fit_super_block(
    blocks: F32, importance: F32 | None, *, sub_block_size: int, code_max: int, scale_max: int
) -> SuperBlocks:
    """Scales and mins of sub-blocks, both >= 0 and stored as 0..scale_max times a float16 super-scale."""
    n_blocks = len(blocks)
    groups = blocks.reshape(-1, sub_block_size)
    given = None if importance is None else importance.reshape(groups.shape)
    scale, minimum = best_scale_min(groups, default_weights(groups, given), code_max)
    d, scales = _as_multiples(scale.reshape(n_blocks, -1), 0, scale_max)
    dmin, mins = _as_multiples(minimum.reshape(n_blocks, -1), 0, scale_max)
    stored_scale = (d[:, None] * scales).reshape(-1)
    stored_min = (dmin[:, None] * mins).reshape(-1)
    codes = round_codes(groups, stored_scale, -stored_min, 0, code_max).astype(np.uint8)
    return SuperBlocks(
        put_f16(d), put_f16(dmin), scales.astype(np.uint8), mins.astype(np.uint8), codes.reshape(n_blocks, -1)
    )


def fit_signed_super_block(
    blocks: F32, importance: F32 | None, *, code_low: int, code_high: int, scale_low: int, scale_high: int
) -> SuperBlocks:
    """Signed scales of sub-blocks of 16, stored as scale_low..scale_high times a float16 super-scale; no mins."""
    n_blocks = len(blocks)
    groups = blocks.reshape(-1, 16)
    weights = groups * groups if importance is None else default_weights(groups, importance.reshape(groups.shape))
    scale = best_scale(groups, weights, code_low, code_high)
    d, scales = _as_multiples(scale.reshape(n_blocks, -1), scale_low, scale_high)
    stored = (d[:, None] * scales).reshape(-1)
    codes = round_codes(groups, stored, None, code_low, code_high).astype(np.int8)
    empty = np.zeros((n_blocks, 0), np.uint8)
    return SuperBlocks(put_f16(d), empty, scales.astype(np.int8), empty, codes.reshape(n_blocks, -1))


def _as_multiples(values: F32, low: int, high: int) -> tuple[F32, F32]:
    """(n_blocks, n_sub) as float16-exact super-scales (n_blocks,) times whole numbers low..high."""
    limit = low if low else high
    top = (signed_extreme(values) / np.float32(limit))[:, 0]
    stored = _as_stored(top)
    # Among the smallest float16 numbers, 2**-24 apart, rounding down would cut the largest sub-blocks off, or lose
    # them all; a hundredth of a step is allowed, so that multiples of an exact super-scale find it again.
    tiny = (np.abs(top) < np.float32(2**-17)) & (top != 0)
    steps = np.maximum(np.ceil(np.abs(top[tiny]) * np.float32(2**24) - np.float32(0.01)), 1)
    stored[tiny] = np.copysign(steps * np.float32(2**-24), top[tiny])
    return stored, np.clip(np.rint(values * reciprocal(stored)[:, None]), low, high).astype(np.float32)


def _as_stored(values: F32) -> F32:
    """Rounded to float16 and back: what a reader will see; the largest float16 instead of infinity."""
    limit = np.float32(65504)
    return np.clip(values, -limit, limit).astype(np.float16).astype(np.float32)


def nearest_levels(x: F32, scale: F32, levels: NDArray[np.int8]) -> U8:
    """Index of the level nearest to ``x / scale``: uint8 of the shape of ``x`` (n_groups, group_size)."""
    middles = (levels[1:].astype(np.float32) + levels[:-1]) / np.float32(2)
    index: U8 = np.searchsorted(middles, x * reciprocal(scale)[:, None]).astype(np.uint8)
    return index


def best_level_scale(x: F32, weights: F32, levels: NDArray[np.int8], n_steps: int = 7) -> F32:
    """As `best_scale`, for codes that stand for ascending ``levels``, the first of which has the largest magnitude."""
    top = signed_extreme(x)[:, 0]
    best: F32 = top / np.float32(levels[0])
    best_gain = np.full(len(x), -1.0, np.float32)
    for step in range(-n_steps, n_steps + 1):
        trial = top / np.float32(int(levels[0]) + step)
        values = levels[nearest_levels(x, trial, levels)].astype(np.float32)
        along = np.sum(weights * x * values, axis=-1)
        scale = along * reciprocal(np.sum(weights * values * values, axis=-1))
        gain = along * scale
        better = gain > best_gain
        best[better], best_gain[better] = scale[better], gain[better]
    return best
