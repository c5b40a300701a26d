"""The operations that differ from one instruction set to the next.

Everything else in ``emit`` is written for 16 lanes and split by LLVM's type legalizer where registers are narrower.
What LLVM does not find by itself is the integer dot product: 16 lanes of int32, each the sum of four products of bytes.

``dot_us``  unsigned bytes, at most 127, times signed bytes
``dot_ss``  signed bytes of full range times signed bytes in [-127, 127]; a machine that only has the unsigned form
            adds ``signed_bias`` to the left side, and the caller subtracts ``signed_bias`` times the sum of the right
            side
``dot_words``  16 lanes of int32, each plus the sum of two products of int16, where that is faster than float32
``lookup16``  64 bytes below 16 replaced by the entries of a constant table of 16 bytes
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from llvmlite import ir

from .host import TILE_TOKENS

I8, I16, I32 = ir.IntType(8), ir.IntType(16), ir.IntType(32)
V8, V32 = ir.VectorType(I8, 64), ir.VectorType(I32, 16)


def declare(builder: Any, name: str, result: Any, args: list[Any]) -> Any:
    """The LLVM function ``name`` of the builder's module, declared once."""
    module = builder.module
    found = module.globals.get(name)
    return found if found is not None else ir.Function(module, ir.FunctionType(result, args), name)


def _constant(vector: Any, value: int) -> Any:
    return ir.Constant(vector, [value] * vector.count)


def _slices(b: Any, value: Any, n: int) -> list[Any]:
    """A vector cut into ``n`` equal vectors."""
    width = value.type.count // n
    return [
        b.shuffle_vector(value, value, ir.Constant(ir.VectorType(I32, width), list(range(i * width, (i + 1) * width))))
        for i in range(n)
    ]


def joined(b: Any, parts: list[Any]) -> Any:
    """Vectors of one type as one."""
    while len(parts) > 1:
        width = parts[0].type.count
        mask = ir.Constant(ir.VectorType(I32, 2 * width), list(range(2 * width)))
        parts = [b.shuffle_vector(parts[i], parts[i + 1], mask) for i in range(0, len(parts), 2)]
    return parts[0]


def registers(b: Any, value: Any, lanes: int) -> list[Any]:
    """A vector cut into registers of ``lanes`` times 32 bits."""
    bits = 32 if isinstance(value.type.element, ir.FloatType) else value.type.element.width
    return _slices(b, value, value.type.count * bits // (32 * lanes))


def _by_parts(b: Any, n: int, acc: Any, u: Any, s: Any, one: Callable[[Any, Any, Any], Any]) -> Any:
    return joined(b, [one(*abc) for abc in zip(_slices(b, acc, n), _slices(b, u, n), _slices(b, s, n))])


def _avx512_us(b: Any, acc: Any, u: Any, s: Any) -> Any:
    return b.call(declare(b, "llvm.x86.avx512.vpdpbusd.512", V32, [V32, V8, V8]), [acc, u, s])


def _avx512_words(b: Any, acc: Any, x: Any, y: Any) -> Any:
    pairs = ir.VectorType(I16, 32)
    f = declare(b, "llvm.x86.avx512.vpdpwssd.512", V32, [V32, pairs, pairs])
    return b.call(f, [acc, b.bitcast(x, pairs), b.bitcast(y, pairs)])


def _avxvnni_words(b: Any, acc: Any, x: Any, y: Any) -> Any:
    v16, v32 = ir.VectorType(I16, 16), ir.VectorType(I32, 8)
    f = declare(b, "llvm.x86.avx512.vpdpwssd.256", v32, [v32, v16, v16])
    return _by_parts(b, 2, acc, x, y, lambda a, p, q: b.call(f, [a, b.bitcast(p, v16), b.bitcast(q, v16)]))


def _avx2_words(b: Any, acc: Any, x: Any, y: Any) -> Any:
    v16, v32 = ir.VectorType(I16, 16), ir.VectorType(I32, 8)
    f = declare(b, "llvm.x86.avx2.pmadd.wd", v32, [v16, v16])
    return _by_parts(b, 2, acc, x, y, lambda a, p, q: b.add(a, b.call(f, [b.bitcast(p, v16), b.bitcast(q, v16)])))


def _of_bytes(name: str) -> Callable[[Any, Any, Any], Any]:
    """The function ``name`` of two vectors of 64 bytes."""
    return lambda b, x, y: b.call(declare(b, name, V8, [V8, V8]), [x, y])


def _avxvnni_us(b: Any, acc: Any, u: Any, s: Any) -> Any:
    v8, v32 = ir.VectorType(I8, 32), ir.VectorType(I32, 8)
    f = declare(b, "llvm.x86.avx512.vpdpbusd.256", v32, [v32, v8, v8])  # AVX-VNNI selects the same intrinsic
    return _by_parts(b, 2, acc, u, s, lambda a, x, y: b.call(f, [a, x, y]))


def _flip(b: Any, v: Any) -> Any:
    return b.xor(v, _constant(V8, 0x80))


def _avx2_us(b: Any, acc: Any, u: Any, s: Any) -> Any:
    v8, v16, v32 = ir.VectorType(I8, 32), ir.VectorType(I16, 16), ir.VectorType(I32, 8)
    mul = declare(b, "llvm.x86.avx2.pmadd.ub.sw", v16, [v8, v8])  # saturates above 127 * 127 * 2: hence at most 127
    add = declare(b, "llvm.x86.avx2.pmadd.wd", v32, [v16, v16])
    ones = _constant(v16, 1)
    return _by_parts(b, 2, acc, u, s, lambda a, x, y: b.add(a, b.call(add, [b.call(mul, [x, y]), ones])))


def _avx2_narrow(b: Any, pairs: Any, u: Any, s: Any) -> Any:
    """Two products a lane of int16, added to ``pairs``."""
    v8, v16 = ir.VectorType(I8, 32), ir.VectorType(I16, 16)
    mul = declare(b, "llvm.x86.avx2.pmadd.ub.sw", v16, [v8, v8])
    return _by_parts(b, 2, pairs, u, s, lambda a, x, y: b.add(a, b.call(mul, [x, y])))


def _avx2_widen(b: Any, acc: Any, pairs: Any, factors: Any = None) -> Any:
    """The two sums of each lane, times ``factors`` (int16 as they are) or one, added to ``acc``."""
    v16, v32 = ir.VectorType(I16, 16), ir.VectorType(I32, 8)
    add = declare(b, "llvm.x86.avx2.pmadd.wd", v32, [v16, v16])
    times = [_constant(v16, 1)] * 2 if factors is None else _slices(b, factors, 2)
    sums = [b.call(add, both) for both in zip(_slices(b, pairs, 2), times, strict=True)]
    return b.add(acc, joined(b, sums))


def _avx2_wide(b: Any, acc: Any, u: Any, even: Any, odd: Any) -> Any:
    v16, v32 = ir.VectorType(I16, 16), ir.VectorType(I32, 8)
    add = declare(b, "llvm.x86.avx2.pmadd.wd", v32, [v16, v16])
    parts = []
    for a, x, y, z in zip(_slices(b, acc, 2), _slices(b, u, 2), _slices(b, even, 2), _slices(b, odd, 2), strict=True):
        pairs = b.bitcast(x, v16)
        a = b.add(a, b.call(add, [b.and_(pairs, _constant(v16, 255)), b.bitcast(y, v16)]))
        parts.append(b.add(a, b.call(add, [b.lshr(pairs, _constant(v16, 8)), b.bitcast(z, v16)])))
    return joined(b, parts)


def _avx2_ss(b: Any, acc: Any, w: Any, s: Any) -> Any:
    # |w| * (sign(w) * s): |-128| is 128 as an unsigned byte, and 128 * 127 * 2 still fits int16
    v8, v16, v32 = ir.VectorType(I8, 32), ir.VectorType(I16, 16), ir.VectorType(I32, 8)
    mul = declare(b, "llvm.x86.avx2.pmadd.ub.sw", v16, [v8, v8])
    add = declare(b, "llvm.x86.avx2.pmadd.wd", v32, [v16, v16])
    sign = declare(b, "llvm.x86.avx2.psign.b", v8, [v8, v8])
    ones = _constant(v16, 1)
    return _by_parts(
        b,
        2,
        acc,
        w,
        s,
        lambda a, x, y: b.add(a, b.call(add, [b.call(mul, [b.call(sign, [x, x]), b.call(sign, [y, x])]), ones])),
    )


def _neon(b: Any, acc: Any, w: Any, s: Any) -> Any:
    v8, v32 = ir.VectorType(I8, 16), ir.VectorType(I32, 4)
    f = declare(b, "llvm.aarch64.neon.sdot.v4i32.v16i8", v32, [v32, v8, v8])
    return _by_parts(b, 4, acc, w, s, lambda a, x, y: b.call(f, [a, x, y]))


def _portable(signed: bool) -> Callable[[Any, Any, Any, Any], Any]:
    def dot(b: Any, acc: Any, w: Any, s: Any) -> Any:
        # byte j of every 32-bit lane, shifted to the top and back, so that no lane ever crosses another
        w32, s32 = b.bitcast(w, V32), b.bitcast(s, V32)
        down = b.ashr if signed else b.lshr
        for j in range(4):
            up = _constant(V32, 24 - 8 * j)
            x = down(b.shl(w32, up), _constant(V32, 24))
            y = b.ashr(b.shl(s32, up), _constant(V32, 24))
            acc = b.add(acc, b.mul(x, y))
        return acc

    return dot


def _by_sixteens(name: str, width: int) -> Callable[[Any, Any, Any], Any]:
    """A lookup in four tables by an instruction that looks bytes up inside each 16 of ``width`` bytes."""

    def lookup(b: Any, table: Any, index: Any) -> Any:
        t, n = ir.VectorType(I8, width), 64 // width
        f = declare(b, name, t, [t, t])
        return joined(b, [b.call(f, pair) for pair in zip(_slices(b, table, n), _slices(b, index, n), strict=True)])

    return lookup


def _in_one_table(by_sixteens: Callable[[Any, Any, Any], Any]) -> Callable[[Any, Sequence[int], Any], Any]:
    """A lookup in a constant table of 16 bytes."""
    return lambda b, table, index: by_sixteens(b, ir.Constant(V8, list(table) * 4), index)


def _table_by_bits(b: Any, table: Sequence[int], index: Any) -> Any:
    # a tree of choices, the lowest bit of the index first: 15 of them, where comparing with all 16 indices takes more
    values = [_constant(V8, v) for v in table]
    for bit in range(4):
        on = b.icmp_unsigned("!=", b.and_(index, _constant(V8, 1 << bit)), _constant(V8, 0))
        values = [b.select(on, high, low) for low, high in zip(values[::2], values[1::2])]
    return values[0]


_avx512_rows = _by_sixteens("llvm.x86.avx512.pshuf.b.512", 64)
_avx2_rows = _by_sixteens("llvm.x86.avx2.pshuf.b", 32)
_neon_rows = _by_sixteens("llvm.aarch64.neon.tbl1.v16i8", 16)


@dataclass(frozen=True)
class Machine:
    """One instruction set: its dot products, and the tile that its registers hold best."""

    name: str
    dot_us: Callable[[Any, Any, Any, Any], Any]
    dot_ss: Callable[[Any, Any, Any, Any], Any]
    lookup16: Callable[[Any, Sequence[int], Any], Any]
    signed_bias: int  # what dot_ss adds to its left side
    lanes: int  # lanes of 32 bits in one register
    has_half: bool = True  # converts IEEE halves in one instruction
    has_fma: bool = True  # multiplies and adds, and rounds to whole numbers, in one instruction
    #: whether values are held in registers by force (``Emit.pin``): 16 registers are too few to leave it to LLVM
    pins: bool = False
    #: (add, widen) where products of small codes may first be summed in int16 lanes, or None
    narrow: tuple[Callable[..., Any], Callable[..., Any]] | None = None
    dot_words: Callable[[Any, Any, Any, Any], Any] | None = None
    #: ``dot_wide``, where that is faster than two terms of bytes times signed bytes of full range: 16 lanes of int32
    #: plus the products of four unsigned bytes with int16, the even ones' and the odd ones'
    dot_wide: Callable[[Any, Any, Any, Any, Any], Any] | None = None
    #: looks bytes up in one table of 64 that is not known before it runs, in one instruction
    lookup64: Callable[[Any, Any, Any], Any] | None = None
    #: looks bytes up in four tables of 16, one for each quarter of a register, not known before it runs
    lookup_rows: Callable[[Any, Any, Any], Any] | None = None

    @property
    def tile_tokens(self) -> int:
        """Tokens of a matrix-matrix tile; the activation layout follows it."""
        return TILE_TOKENS[self.name]


def _via_us(dot_us: Callable[[Any, Any, Any, Any], Any]) -> Callable[[Any, Any, Any, Any], Any]:
    return lambda b, acc, w, s: dot_us(b, acc, _flip(b, w), s)


_AVX512 = Machine(
    "avx512", _avx512_us, _via_us(_avx512_us), _in_one_table(_avx512_rows), 128, 16,
    lookup_rows=_avx512_rows, dot_words=_avx512_words,
)  # fmt: skip

MACHINES = {
    "avx512vbmi": replace(
        _AVX512,
        name="avx512vbmi",
        lookup64=_of_bytes("llvm.x86.avx512.permvar.qi.512"),
    ),
    "avx512": _AVX512,
    "avxvnni": Machine(
        "avxvnni", _avxvnni_us, _via_us(_avxvnni_us), _in_one_table(_avx2_rows), 128, 8, pins=True,
        lookup_rows=_avx2_rows, dot_words=_avxvnni_words,
    ),
    "avx2": Machine(
        "avx2", _avx2_us, _avx2_ss, _in_one_table(_avx2_rows), 0, 8, pins=True, narrow=(_avx2_narrow, _avx2_widen),
        dot_wide=_avx2_wide, lookup_rows=_avx2_rows, dot_words=_avx2_words,
    ),
    "neon": Machine("neon", _neon, _neon, _in_one_table(_neon_rows), 0, 4),
    "portable": Machine("portable", _portable(False), _portable(True), _table_by_bits, 0, 4, False, False),
}
