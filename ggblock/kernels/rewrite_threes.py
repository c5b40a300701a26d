"""Rows of TQ1_0 as rows of ``tq1_0_threes``, when a file is loaded. Apart from the family, which needs no Numba."""
from __future__ import annotations

from typing import Any

import numpy as np
from numba.core import types
from numba.core.extending import intrinsic

from ..simd.emit import Emit, llvm_type
from ..simd.vec import MACHINE
from .args import arg
from .tq1_0_threes import N_BYTES, OF_TQ1_0, PART_BYTES, PARTS, REST, sign_bit


@intrinsic
def rewrite(typingctx, source, out, n):
    """``n`` blocks of TQ1_0 from ``source`` as rows of the blocks of ``tq1_0_threes`` to ``out``."""

    def codegen(c, builder, s, a):
        e = Emit(builder, MACHINE)
        digits = e.stack(256)

        def block(i: Any, carried: Any) -> Any:
            p, to = carried
            _digits(e, p, digits)
            _write(e, digits, to)
            e.store(to, 0, e.load(p, OF_TQ1_0 - 2, "i16"))
            return [e.at(p, OF_TQ1_0), e.at(to, N_BYTES)]

        e.loop(e.i64(0), a[2], 1, a[:2], block)
        return c.get_dummy_value()

    return types.void(*[types.int64] * 3), codegen


def _digits(e: Emit, p: Any, to: Any) -> None:
    """The 256 digits of a block of TQ1_0, bytes of 0 to 2, at ``to``."""
    for byte, count, column in ((0, 32, 0), (32, 16, 160), (48, 4, 240)):
        value = e.b.zext(e.load(p, byte, f"i8x{count}"), llvm_type(f"i16x{count}"))
        for n in range(4 if count == 4 else 5):
            three = e.b.mul(value, e.const(f"i16x{count}", 3))
            e.store(to, column + n * count, e.b.trunc(e.lshr(three, 8), llvm_type(f"i8x{count}")))
            value = e.and_(three, 255)


def _write(e: Emit, digits: Any, to: Any) -> None:
    b = e.b

    def numbers(columns: list[int], count: int) -> tuple[Any, Any]:
        """How large the numbers of three digits are, and all bits set where they are negative."""
        t = f"i8x{count}"
        x, y, z = (e.load(digits, at, t) for at in columns)
        x = b.add(b.add(x, x), x)
        y = b.add(x, y)
        value = b.sub(b.add(b.add(b.add(y, y), y), z), e.const(t, 13))
        least = e.bytes([i % 2 for i in range(count)])
        return e.abs(value), b.sext(b.icmp_signed("<", value, least), value.type)

    for part in range(PARTS):
        size, negative = numbers([48 * part, 48 * part + 16, 48 * part + 32], 16)
        signs = b.and_(negative, e.bytes([sign_bit(i) - 256 * (sign_bit(i) > 127) for i in range(16)]))
        for count in (8, 4, 2):
            signs = b.or_(e.part(signs, 0, count), e.part(signs, count, count))
        at = 2 + PART_BYTES * part
        e.store(to, at, signs)
        e.store(to, at + 2, b.or_(e.part(size, 0, 8), e.shl(e.part(size, 8, 8), 4)))
    size, negative = numbers([240, 244, 248], 4)
    e.store(to, REST, b.or_(e.part(size, 0, 2), e.shl(e.part(size, 2, 2), 4)))
    signs = b.and_(negative, e.bytes([-128, 0x40, 0x20, 0x10]))
    signs = b.or_(e.part(signs, 0, 2), e.part(signs, 2, 2))
    e.store(to, REST + 2, b.or_(e.part(signs, 0, 1), e.part(signs, 1, 1)))
    last = e.load(digits, 252, "i8x4")
    twos = b.add(b.mul(e.shuffle(last, [0, 2]), e.const("i8x2", 3)), e.shuffle(last, [1, 3]))
    e.store(to, REST + 3, b.or_(e.part(twos, 0, 1), e.shl(e.part(twos, 1, 1), 4)))


def make_threes() -> Any:
    """Columns: blocks of TQ1_0, how many, where they go as blocks of ``tq1_0_threes``, row by row. Split by blocks."""

    def threes(op, thread, n_threads):
        first, end = arg(op, 1) * thread // n_threads, arg(op, 1) * (thread + 1) // n_threads
        rewrite(arg(op, 0) + first * np.int64(OF_TQ1_0), arg(op, 2) + first * np.int64(N_BYTES), end - first)

    return threes
