"""Int8 activations of one token, ``BLOCKS`` times 32 columns at once: lanes are blocks where a block has one number, so
that scales and sums of four take the instructions of one. ``activation_tiles`` does the same for tiles of tokens, with
the same results to the bit.

A token's work between two matrices is a twentieth of its time: with one block after the other SmolLM2's norms, copies
and gates took 73 us of a token, and 1.07 B models' 150.
"""

from __future__ import annotations

from typing import Any

from numba.core import types
from numba.core.extending import intrinsic

from ..simd.emit import Emit, llvm_type
from ..simd.machines import joined
from ..simd.vec import MACHINE, emit_max
from .activation_tiles import byte_codes, factors_of, largest, remainder, step_of
from .fields import MOST_LEVELS

BLOCKS = 4
D = f"f32x{BLOCKS}"


def _sums(e: Emit, codes: list[Any]) -> Any:
    """Of 16 codes of each block, <16 x i8> each, the sums of fours: <16 x i32>, four a block."""
    return e.dot_us(e.zero("i32x16"), e.const("i8x64", 1), joined(e.b, codes))


def _by_block(e: Emit, x: Any, y: Any) -> tuple[Any, Any]:
    """Each four lanes of two <16 x i32> added up, <4 x i32> each."""
    both = joined(e.b, [x, y])
    for n in (16, 8):
        even = list(range(0, 2 * n, 2))
        both = e.b.add(e.shuffle(both, even), e.shuffle(both, [i + 1 for i in even]))
    return e.part(both, 0, BLOCKS), e.part(both, BLOCKS, BLOCKS)


@intrinsic(prefer_literal=True)
def quantize_blocks(typingctx, a0, b0, a1, b1, a2, b2, a3, b3, q, q2, meta, size, two):
    """``BLOCKS`` times 32 values of the only token (``a0``, ``b0``, ...: 16 each) as one or two terms of int8, with
    their scales and sums, words of the meta ``size`` bytes apart; see ``activations``."""
    both_terms = two.literal_value

    def codegen(c, builder, s, args):
        e, b = Emit(builder, MACHINE), builder
        halves = [args[0:8:2], args[1:8:2]]
        first, second, to, word = args[8:12]
        peaks = [emit_max(e, e.call("fabs", x), e.call("fabs", y)) for x, y in zip(*halves, strict=True)]
        d, inverse = step_of(e, largest(e, peaks), e.const("f32", float(MOST_LEVELS)))
        factors, sums, rests = factors_of(e, inverse), [], []
        for i, values in enumerate(halves):
            steps = [b.fmul(v, f) for v, f in zip(values, factors, strict=True)]
            rounded = [e.rint(v) for v in steps]
            codes = [byte_codes(e, v) for v in rounded]
            for j, code in enumerate(codes):
                e.store(first, 32 * j + 16 * i, code)
            sums.append(_sums(e, codes))
            if both_terms:
                codes = [byte_codes(e, remainder(e, v, r)) for v, r in zip(steps, rounded, strict=True)]
                for j, code in enumerate(codes):
                    e.store(second, 32 * j + 16 * i, code)
                rests.append(_sums(e, codes))
        sums = _by_block(e, *sums)

        def write(word_of: int, d: Any, low: Any, high: Any) -> None:
            for i, n in enumerate((b.add(low, high), low, high), word_of):
                e.store(e.at(to, word, i), 0, b.fmul(d, b.sitofp(n, llvm_type(D))))

        if both_terms:
            d = b.fmul(d, e.const(D, 1 / 256))
            write(4, d, *sums)
            sums = [b.add(e.shl(n, 8), rest) for n, rest in zip(sums, _by_block(e, *rests), strict=True)]
        e.store(to, 0, d)
        write(1, d, *sums)
        return c.get_dummy_value()

    return types.void(a0, b0, a1, b1, a2, b2, a3, b3, *[types.int64] * 4, two), codegen
