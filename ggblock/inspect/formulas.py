"""How each block type decodes, step by step: the normative steps of ``spec/blocks``, word for word.

The tests hold them against the specification. The notation is that of ``spec/blocks/README.md``; `notation` evaluates
it. Steps are computed for weight ``j`` of a block, in order; the last is the weight.
"""
from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from ..blocks import BlockType, codebooks

_X = ("weight = x[0]",)
_ROUNDED = ("weight = f32(x[0])",)
_K_SCALES = (
    "s = j // 32",
    "multiple = (scales[s] & 63) if s < 4 else ((scales[s + 4] & 15) | ((scales[s - 4] >> 6) << 4))",
    "min_multiple = (scales[s + 4] & 63) if s < 4 else ((scales[s + 4] >> 4) | ((scales[s] >> 6) << 4))",
    "scale = d[0] * multiple",
    "min = dmin[0] * min_multiple",
)

#: Block type to its decoding steps.
STEPS: Mapping[str, tuple[str, ...]] = MappingProxyType({
    "f32": _X,
    "f16": _X,
    "bf16": _X,
    "f64": _ROUNDED,
    "i8": _ROUNDED,
    "i16": _ROUNDED,
    "i32": _ROUNDED,
    "i64": _ROUNDED,
    "q1_0": (
        "weight = d[0] * ((2 * qs[j]) - 1)",
    ),
    "q2_0": (
        "code = qs[j]",
        "weight = d[0] * (code - 1)",
    ),
    "q4_0": (
        "code = qs[j]",
        "weight = d[0] * (code - 8)",
    ),
    "q4_1": (
        "code = qs[j]",
        "weight = (d[0] * code) + m[0]",
    ),
    "q5_0": (
        "code = qs[j] | (qh[j] << 4)",
        "weight = d[0] * (code - 16)",
    ),
    "q5_1": (
        "code = qs[j] | (qh[j] << 4)",
        "weight = (d[0] * code) + m[0]",
    ),
    "q8_0": (
        "weight = d[0] * qs[j]",
    ),
    "q8_1": (
        "weight = d[0] * qs[j]",
    ),
    "q2_k": (
        "s = j // 16",
        "scale = d[0] * scales[s]",
        "min = dmin[0] * scales[16 + s]",
        "code = qs[j]",
        "weight = (scale * code) - min",
    ),
    "q3_k": (
        "s = j // 16",
        "multiple = (scales_l[s] | (scales_h[s] << 4)) - 32",
        "scale = d[0] * multiple",
        "code = qs[j] | (hmask[j] << 2)",
        "weight = scale * (code - 4)",
    ),
    "q4_k": (
        *_K_SCALES,
        "code = qs[j]",
        "weight = (scale * code) - min",
    ),
    "q5_k": (
        *_K_SCALES,
        "code = qs[j] | (qh[j] << 4)",
        "weight = (scale * code) - min",
    ),
    "q6_k": (
        "s = j // 16",
        "scale = d[0] * scales[s]",
        "code = ql[j] | (qh[j] << 4)",
        "weight = scale * (code - 32)",
    ),
    "q8_k": (
        "weight = d[0] * qs[j]",
    ),
    "iq1_s": (
        "word = qh[j // 32]",
        "pattern = qs[j // 8] | (((word >> (3 * ((j // 8) % 4))) & 7) << 8)",
        "scale = d[0] * (1 + (2 * ((word >> 12) & 7)))",
        "shift = -0.125 if (word >> 15) else 0.125",
        "level = iq1[(8 * pattern) + (j % 8)] + shift",
        "weight = scale * level",
    ),
    "iq1_m": (
        "high = qh[j // 8]",
        "pattern = qs[j // 8] | ((high & 7) << 8)",
        "d = f16_bits((scales[0] >> 12) | ((scales[1] >> 12) << 4) | ((scales[2] >> 12) << 8) | "
        "((scales[3] >> 12) << 12))",
        "multiple = 1 + (2 * ((scales[j // 64] >> (3 * ((j // 16) % 4))) & 7))",
        "scale = d * multiple",
        "shift = -0.125 if (high >> 3) else 0.125",
        "level = iq1[(8 * pattern) + (j % 8)] + shift",
        "weight = scale * level",
    ),
    "iq2_xxs": (
        "g = j // 32",
        "part = (j // 8) % 4",
        "k = j % 8",
        "pattern = (qs[2 * g] >> (8 * part)) & 255",
        "high = qs[(2 * g) + 1]",
        "sign7 = (high >> (7 * part)) & 127",
        "negative = ((sign7 >> k) & 1) if k < 7 else (popcount(sign7) & 1)",
        "scale = (d[0] * (0.5 + (high >> 28))) * 0.25",
        "level = iq2_xxs[(8 * pattern) + k]",
        "weight = scale * (-level if negative else level)",
    ),
    "iq2_xs": (
        "word = qs[j // 8]",
        "k = j % 8",
        "pattern = word & 511",
        "sign7 = word >> 9",
        "negative = ((sign7 >> k) & 1) if k < 7 else (popcount(sign7) & 1)",
        "scale = (d[0] * (0.5 + scales[j // 16])) * 0.25",
        "level = iq2_xs[(8 * pattern) + k]",
        "weight = scale * (-level if negative else level)",
    ),
    "iq2_s": (
        "pattern = qs[j // 8] | (qh[j // 8] << 8)",
        "scale = (d[0] * (0.5 + scales[j // 16])) * 0.25",
        "level = iq2_s[(8 * pattern) + (j % 8)]",
        "weight = scale * (-level if signs[j] else level)",
    ),
    "iq3_xxs": (
        "part = (j // 8) % 4",
        "k = j % 8",
        "word = signs[j // 32]",
        "sign7 = (word >> (7 * part)) & 127",
        "negative = ((sign7 >> k) & 1) if k < 7 else (popcount(sign7) & 1)",
        "scale = (d[0] * (0.5 + (word >> 28))) * 0.5",
        "level = iq3_xxs[(4 * qs[j // 4]) + (j % 4)]",
        "weight = scale * (-level if negative else level)",
    ),
    "iq3_s": (
        "pattern = qs[j // 4] | (qh[j // 4] << 8)",
        "scale = d[0] * (1 + (2 * scales[j // 32]))",
        "level = iq3_s[(4 * pattern) + (j % 4)]",
        "weight = scale * (-level if signs[j] else level)",
    ),
    "iq4_nl": (
        "level = iq4_levels[qs[j]]",
        "weight = d[0] * level",
    ),
    "iq4_xs": (
        "s = j // 32",
        "multiple = (scales_l[s] | (scales_h[s] << 4)) - 32",
        "scale = d[0] * multiple",
        "level = iq4_levels[qs[j]]",
        "weight = scale * level",
    ),
    "tq1_0": (
        "byte = qs[j % 32] if j < 160 else (qs[32 + (j % 16)] if j < 240 else qh[j % 4])",
        "digit = (j // 32) if j < 160 else (((j - 160) // 16) if j < 240 else ((j - 240) // 4))",
        "rest = (byte * power_of_3[digit]) & 255",
        "code = (rest * 3) >> 8",
        "weight = d[0] * (code - 1)",
    ),
    "tq2_0": (
        "code = qs[j]",
        "weight = d[0] * (code - 1)",
    ),
    "mxfp4": (
        "scale = pow2(e[0] - 128)",
        "weight = scale * e2m1_doubled[qs[j]]",
    ),
    "nvfp4": (
        "s = j // 16",
        "exponent = (d[s] >> 3) & 15",
        "mantissa = d[s] & 7",
        "number = (mantissa * pow2(-10)) if exponent == 0 else ((8 + mantissa) * pow2(exponent - 11))",
        "scale = 0.0 if d[s] == 127 else number",
        "weight = scale * e2m1_doubled[qs[j]]",
    ),
})


#: Steps of tails (``blocks.tails``) where they are others; they begin with ``m``, the number of weights.
TAIL_STEPS: Mapping[str, tuple[str, ...]] = MappingProxyType({
    "q2_k": (
        "s = j // 16",
        "scale = d[0] * scales[s]",
        "min = dmin[0] * scales[(m // 16) + s]",
        "code = qs[j]",
        "weight = (scale * code) - min",
    ),
    "tq1_0": (
        "n = ((m + 19) // 20) * 4",
        "byte = qs[j % n]",
        "rest = (byte * power_of_3[j // n]) & 255",
        "code = (rest * 3) >> 8",
        "weight = d[0] * (code - 1)",
    ),
})


def steps(block_type: BlockType) -> tuple[str, ...]:
    """The decoding steps of a block type or a tail."""
    if block_type.is_tail and block_type.name in TAIL_STEPS:
        return (f"m = {block_type.block_size}", *TAIL_STEPS[block_type.name])
    return STEPS[block_type.name]


@lru_cache(maxsize=16)
def table(name: str) -> NDArray[np.int64]:
    """The table that a step names: int64 (n,). A codebook is its patterns one after another. KeyError if unknown."""
    if name == "power_of_3":
        return 3 ** np.arange(5, dtype=np.int64)
    if name == "iq4_levels":
        return codebooks.IQ4_LEVELS.astype(np.int64)
    if name == "e2m1_doubled":
        return codebooks.E2M1_DOUBLED.astype(np.int64)
    return CODEBOOKS[name].grid.ravel().astype(np.int64)


#: The codebooks by the name that the steps use.
CODEBOOKS: Mapping[str, codebooks.Codebook] = MappingProxyType({
    book.name: book
    for book in (
        codebooks.IQ1, codebooks.IQ2_XXS, codebooks.IQ2_XS, codebooks.IQ2_S, codebooks.IQ3_XXS, codebooks.IQ3_S
    )
})
TABLES = frozenset({"power_of_3", "iq4_levels", "e2m1_doubled", *CODEBOOKS})
