"""Vectors as Numba values: the operations of ``emit`` for use inside Numba functions.

A vector type is named like ``"f32x16"``. Addresses are int64, offsets are in bytes. Operators ``+ - * / & | ^`` work
lane by lane on vectors of one type; ``/`` only on floats. Names that end in ``_of`` take scalars apart or together.
Importing this module imports Numba: only kernels do.
"""

from __future__ import annotations

import operator
from typing import Any

from llvmlite import ir
from numba.core import types
from numba.core.extending import intrinsic, models, register_model  # type: ignore[attr-defined]
from numba.core.imputils import lower_builtin
from numba.core.typing.templates import AbstractTemplate, infer_global, signature

from .emit import Emit, llvm_type, split_name
from .host import host
from .machines import declare

MACHINE = host().machine
AHEAD = host().ahead
SCALARS = {
    "i8": types.int8,
    "u8": types.uint8,
    "i16": types.int16,
    "i32": types.int32,
    "i64": types.int64,
    "f32": types.float32,
}
ROUND = 1.5 * 2.0**23  # added to a float, its low bits are the whole number nearest to it


class Vec(types.Type):  # type: ignore[misc]
    """``lanes`` values of ``element`` ("f32", "i32", "u8", "f16", "b1" ...) in one LLVM vector."""

    def __init__(self, element: str, lanes: int) -> None:
        self.element, self.lanes = element, lanes
        super().__init__(f"{element}x{lanes}")


@register_model(Vec)
class VecModel(models.PrimitiveModel):  # type: ignore[misc]
    def __init__(self, manager: Any, fe_type: Vec) -> None:
        super().__init__(manager, fe_type, llvm_type(fe_type.name))


def vec(name: str) -> Any:
    element, lanes = split_name(name)
    return SCALARS[element] if lanes == 1 else Vec(element, lanes)


def _literal(value: Any) -> str | None:
    return value.literal_value if isinstance(value, types.StringLiteral) else None


def _e(builder: Any) -> Emit:
    return Emit(builder, MACHINE)


@intrinsic(prefer_literal=True)
def load(typingctx, address, name):
    """The value of type ``name`` at ``address``; no alignment assumed. ``f16`` is extended to float32 by
    ``convert``.
    """
    t = vec(_literal(name))
    return t(types.int64, name), lambda c, b, s, a: _e(b).load(
        a[0], 0, t.name if isinstance(t, Vec) else _literal(name)
    )


@intrinsic
def store(typingctx, address, value):
    """Writes ``value`` (scalar or vector) at ``address``."""

    def codegen(c, b, s, a):
        _e(b).store(a[0], 0, a[1])
        return c.get_dummy_value()

    return types.void(types.int64, value), codegen


@intrinsic(prefer_literal=True)
def stack(typingctx, n_bytes):
    """The address of ``n_bytes`` (a literal) on the stack, one place for every call of the function that holds this."""
    return types.int64(n_bytes), lambda c, b, s, a: _e(b).stack(n_bytes.literal_value)


@intrinsic
def store_half(typingctx, address, value):
    """Writes a float32 as an IEEE half, rounded to nearest even."""

    def codegen(c, b, s, a):
        e = _e(b)
        e.store(a[0], 0, e.f32_to_half(a[1]))
        return c.get_dummy_value()

    return types.void(types.int64, types.float32), codegen


@intrinsic(prefer_literal=True)
def store_halves(typingctx, address, value, step):
    """Writes 16 float32 as IEEE halves, rounded to nearest even, ``step`` (a literal) bytes apart."""
    apart = step.literal_value

    def codegen(c, b, s, a):
        e, lanes = _e(b), [ir.Constant(ir.IntType(32), i) for i in range(16)]
        whole = b.fptrunc(a[1], llvm_type("f16x16")) if e.machine.has_half else None
        if whole is not None and apart == 2:
            e.store(a[0], 0, whole)
        else:
            for i, lane in enumerate(lanes):
                one = b.extract_element(a[1] if whole is None else whole, lane)
                e.store(a[0], i * apart, one if whole is not None else e.f32_to_half(one))
        return c.get_dummy_value()

    return types.void(types.int64, value, step), codegen


@intrinsic(prefer_literal=True)
def splat(typingctx, value, name):
    t = vec(_literal(name))
    scalar = SCALARS[t.element]
    return t(scalar, name), lambda c, b, s, a: _e(b).splat(a[0], t.lanes)


@intrinsic(prefer_literal=True)
def zero(typingctx, name):
    t = vec(_literal(name))
    return t(name), lambda c, b, s, a: ir.Constant(llvm_type(t.name), None)


@intrinsic(prefer_literal=True)
def lanes_of(typingctx, name):
    """0, 1, 2, ... as a vector of int32."""
    t = vec(_literal(name))
    return t(name), lambda c, b, s, a: ir.Constant(llvm_type(t.name), list(range(t.lanes)))


@intrinsic(prefer_literal=True)
def convert(typingctx, value, name):
    """Numeric conversion lane by lane; float to integer truncates, integers keep their low bits."""
    t = vec(_literal(name))
    src, dst = value.element, t.element

    def codegen(c, b, s, a):
        v, to = a[0], llvm_type(t.name)
        from_float, to_float = src[0] == "f", dst[0] == "f"
        if from_float and to_float:
            return b.fpext(v, to) if (src, dst) == ("f16", "f32") else b.fptrunc(v, to)
        if from_float:
            return b.fptosi(v, to)
        if to_float:
            wide = ir.VectorType(ir.IntType(32), v.type.count)
            if v.type.element.width < 32:
                v = b.zext(v, wide) if src[0] == "u" else b.sext(v, wide)
            return b.sitofp(v, to)
        if v.type.element.width > to.element.width:
            return b.trunc(v, to)
        return b.zext(v, to) if src[0] in "ub" else b.sext(v, to)

    return t(value, name), codegen


@intrinsic(prefer_literal=True)
def bitcast(typingctx, value, name):
    t = vec(_literal(name))
    return t(value, name), lambda c, b, s, a: b.bitcast(a[0], llvm_type(t.name))


@intrinsic(prefer_literal=True)
def lane_of(typingctx, value, index):
    """Lane ``index`` (a literal) as a scalar."""
    i = index.literal_value
    return SCALARS[value.element](value, index), lambda c, b, s, a: b.extract_element(
        a[0], ir.Constant(ir.IntType(32), i)
    )


@intrinsic
def lane_at(typingctx, value, index):
    """Lane ``index``, known only when the kernel runs."""
    return SCALARS[value.element](value, types.int64), lambda c, b, s, a: b.extract_element(a[0], a[1])


def _call(name: str, n: int) -> Any:
    @intrinsic
    def f1(typingctx, x):
        return x(x), lambda c, b, s, a: _e(b).call(name, *a)

    @intrinsic
    def f2(typingctx, x, y):
        return x(x, y), lambda c, b, s, a: _e(b).call(name, *a)

    @intrinsic
    def f3(typingctx, x, y, z):
        return x(x, y, z), lambda c, b, s, a: _e(b).call(name, *a)

    return (f1, f2, f3)[n - 1]


vabs = _call("fabs", 1)
floor = _call("floor", 1)
vsqrt = _call("sqrt", 1)  # of a float32 too: NumPy's brings an error handler of Python's with it


@intrinsic
def fma(typingctx, x, y, z):
    """x * y + z: see ``Emit.fma``."""
    return x(x, y, z), lambda c, b, s, a: _e(b).fma(*a)


@intrinsic
def round_even(typingctx, x):
    """Whole numbers, ties to even."""
    return x(x), lambda c, b, s, a: _e(b).rint(a[0])


def emit_max(e: Emit, x: Any, y: Any) -> Any:
    """The larger of two floats, y where either is NaN: one instruction, unlike LLVM's maxnum."""
    return e.b.select(e.b.fcmp_ordered(">", x, y), x, y)


def emit_magnitude(e: Emit, x: Any, peak: Any) -> Any:
    """The larger of ``peak`` and the magnitude of ``x``, floats or halves as their bits, lane by lane: magnitudes are
    in the order of these, NaN above all."""
    x = e.and_(x, (1 << (x.type.element.width - 1)) - 1)
    return e.b.select(e.b.icmp_signed(">", x, peak), x, peak)


def emit_inverse(e: Emit, steps: Any, peak: Any) -> Any:
    """``steps / peak``, lane by lane; 0 where everything is zero, or too small for float32 to tell. NaN stays NaN."""
    const = lambda value: ir.Constant(peak.type, [value] * peak.type.count)  # noqa: E731
    found = e.b.fdiv(steps, peak)
    return e.b.select(e.b.fcmp_ordered("<", found, const(3e38)), found, e.b.fmul(peak, const(0.0)))


def emit_min(e: Emit, x: Any, y: Any) -> Any:
    """The smaller of two floats, y where either is NaN."""
    return e.b.select(e.b.fcmp_ordered("<", x, y), x, y)


@intrinsic
def vmax(typingctx, x, y):
    """Lane by lane the larger; y where either is NaN."""
    return x(x, y), lambda c, b, s, a: emit_max(_e(b), a[0], a[1])


@intrinsic
def vmin(typingctx, x, y):
    """Lane by lane the smaller; y where either is NaN."""
    return x(x, y), lambda c, b, s, a: emit_min(_e(b), a[0], a[1])


@intrinsic
def less(typingctx, x, y):
    """Lane by lane ``x < y`` as ``b1``; false where a lane is NaN."""
    t = Vec("b1", x.lanes)
    return t(x, y), lambda c, b, s, a: (b.fcmp_ordered if x.element[0] == "f" else b.icmp_signed)("<", a[0], a[1])


@intrinsic
def select(typingctx, mask, x, y):
    return x(mask, x, y), lambda c, b, s, a: b.select(a[0], a[1], a[2])


@intrinsic(prefer_literal=True)
def shift_left(typingctx, x, n):
    k = n.literal_value
    return x(x, n), lambda c, b, s, a: _e(b).shl(a[0], k)


@intrinsic(prefer_literal=True)
def shift_right(typingctx, x, n):
    """Logical shift right by a literal."""
    k = n.literal_value
    return x(x, n), lambda c, b, s, a: _e(b).lshr(a[0], k)


def tree(e: Emit, v: Any, combine: Any) -> Any:
    n = v.type.count
    while n > 1:
        n //= 2
        v = combine(e.part(v, 0, n), e.part(v, n, n))
    return e.b.extract_element(v, ir.Constant(ir.IntType(32), 0))


@intrinsic
def sum_of(typingctx, x):
    """Sum of all lanes, in halves: the same order on every machine."""

    def codegen(c, b, s, a):
        return tree(_e(b), a[0], b.fadd if x.element == "f32" else b.add)

    return SCALARS[x.element](x), codegen


@intrinsic
def max_of(typingctx, x):
    """Largest lane of a float vector."""
    return SCALARS[x.element](x), lambda c, b, s, a: tree(_e(b), a[0], lambda p, q: emit_max(_e(b), p, q))


def emit_exp(e: Emit, x: Any) -> Any:
    """exp(x) for x <= 88: 2**n times a polynomial of degree 6 on [-ln2/2, ln2/2]; 0 below -87.3, about 2 ulp.

    Cody-Waite reduction; coefficients of the truncated series with the last ones adjusted (Cephes ``expf``).
    """
    b = e.b
    c = lambda v: ir.Constant(x.type, [v] * x.type.count)  # noqa: E731
    low = b.fcmp_ordered("<", x, c(-87.33654))
    above = emit_max(e, c(-87.33654), x)
    clamped = b.select(b.fcmp_ordered(">", above, c(88.0)), c(88.0), above)
    n = e.rint(b.fmul(clamped, c(1.4426950216293335)))
    r = e.fma(n, c(-0.693359375), clamped)
    r = e.fma(n, c(2.1219444170128554e-4), r)
    p = c(1.9875691214110702e-04)
    for k in (1.3981999363750219e-03, 8.3334519062191248e-03, 4.1665795072913170e-02, 1.6666665673255920e-01, 0.5):
        p = e.fma(p, r, c(k))
    p = e.fma(b.fmul(p, r), r, b.fadd(r, c(1.0)))
    i = ir.VectorType(ir.IntType(32), x.type.count)
    scale = b.bitcast(
        b.shl(b.add(b.fptosi(n, i), ir.Constant(i, [127] * i.count)), ir.Constant(i, [23] * i.count)), x.type
    )
    return b.select(low, c(0.0), b.fmul(p, scale))


def emit_exp2(e: Emit, x: Any) -> Any:
    """2**x for x <= 127, at least 2**-126, to 0.7 ulp: a polynomial of degree 6 on [-1/2, 1/2], fitted to the smallest
    largest relative error (2e-9; the series of exp(x ln 2) would leave 1.2e-7)."""
    b = e.b
    c = lambda v: ir.Constant(x.type, [v] * x.type.count)  # noqa: E731
    clamped = emit_max(e, c(-126.0), x)
    n = e.rint(clamped)
    r = b.fsub(clamped, n)
    p = c(0.0001535335904918611)
    for k in (
        0.0013398876180872321,
        0.00961843691766262,
        0.055503323674201965,
        0.24022647738456726,
        0.6931471824645996,
        1.0,
    ):
        p = e.fma(p, r, c(k))
    i = ir.VectorType(ir.IntType(32), x.type.count)
    up = b.shl(b.fptosi(n, i), ir.Constant(i, [23] * i.count))
    return b.bitcast(b.add(b.bitcast(p, i), up), x.type)


@intrinsic
def vexp2(typingctx, x):
    """See ``emit_exp2``."""
    return x(x), lambda c, b, s, a: emit_exp2(_e(b), a[0])


@intrinsic
def vexp(typingctx, x):
    """See ``emit_exp``."""
    return x(x), lambda c, b, s, a: emit_exp(_e(b), a[0])


# --- operators
_FLOAT = {operator.add: "fadd", operator.sub: "fsub", operator.mul: "fmul", operator.truediv: "fdiv"}
_INT = {
    operator.add: "add",
    operator.sub: "sub",
    operator.mul: "mul",
    operator.and_: "and_",
    operator.or_: "or_",
    operator.xor: "xor",
}


def _operator(op: Any) -> None:
    @infer_global(op)
    class Typing(AbstractTemplate):  # type: ignore[misc]
        def generic(self, args, kws):
            if len(args) == 2 and isinstance(args[0], Vec) and args[0] == args[1]:
                return signature(args[0], *args)
            return None

    @lower_builtin(op, Vec, Vec)
    def lower(c, b, s, a):
        table = _FLOAT if s.return_type.element[0] == "f" else _INT
        return getattr(b, table[op])(a[0], a[1])


for _op in {**_FLOAT, **_INT}:
    _operator(_op)


# --- atomics and waiting, for the thread team
@intrinsic
def atomic_add(typingctx, address, value):
    """Adds to the int64 at ``address``; returns what was there. Sequentially consistent."""

    def codegen(c, b, s, a):
        return b.atomic_rmw("add", b.inttoptr(a[0], ir.IntType(64).as_pointer()), a[1], "seq_cst")

    return types.int64(types.int64, types.int64), codegen


@intrinsic
def atomic_load(typingctx, address):
    def codegen(c, b, s, a):
        return b.load_atomic(b.inttoptr(a[0], ir.IntType(64).as_pointer()), "seq_cst", 8)

    return types.int64(types.int64), codegen


@intrinsic
def atomic_store(typingctx, address, value):
    def codegen(c, b, s, a):
        b.store_atomic(a[1], b.inttoptr(a[0], ir.IntType(64).as_pointer()), "seq_cst", 8)
        return c.get_dummy_value()

    return types.void(types.int64, types.int64), codegen


@intrinsic
def atomic_swap(typingctx, address, expected, value):
    """Puts ``value`` into the int64 at ``address`` if ``expected`` is there; returns what was there. Sequentially
    consistent."""

    def codegen(c, b, s, a):
        word = b.inttoptr(a[0], ir.IntType(64).as_pointer())
        return b.extract_value(b.cmpxchg(word, a[1], a[2], "seq_cst", "seq_cst"), 0)

    return types.int64(types.int64, types.int64, types.int64), codegen


@intrinsic
def rolled(typingctx, n):
    """``n``, an int64, by a way that LLVM does not see through: a loop over ``range(rolled(8))`` stays one loop. Where
    its body is long, eight copies of it take long to compile and are no faster."""

    def codegen(c, builder, s, args):
        return builder.asm(ir.FunctionType(args[0].type, [args[0].type]), "", "=r,0", [args[0]], False)

    return types.int64(types.int64), codegen


@intrinsic
def pause(typingctx):
    """The processor's hint that this thread is spinning."""

    def codegen(c, b, s, a):
        triple = b.module.triple
        if MACHINE == "neon" or triple.startswith(("aarch64", "arm64")):
            b.call(declare(b, "llvm.aarch64.hint", ir.VoidType(), [ir.IntType(32)]), [ir.Constant(ir.IntType(32), 1)])
        elif triple.startswith(("x86_64", "i686")):
            b.call(declare(b, "llvm.x86.sse2.pause", ir.VoidType(), []), [])
        return c.get_dummy_value()

    return types.void(), codegen


@intrinsic
def call_kernel(typingctx, function, op, thread, n_threads):
    """Calls the kernel at address ``function``: ``kernel(op, thread, n_threads)``."""

    def codegen(c, b, s, a):
        i64 = ir.IntType(64)
        f = b.inttoptr(a[0], ir.FunctionType(ir.VoidType(), [i64, i64, i64]).as_pointer())
        b.call(f, a[1:])
        return c.get_dummy_value()

    return types.void(types.int64, types.int64, types.int64, types.int64), codegen


@intrinsic
def call_address(typingctx, function):
    """Calls a C function of no arguments that returns int32 (``sched_yield``) and drops its result."""

    def codegen(c, b, s, a):
        b.call(b.inttoptr(a[0], ir.FunctionType(ir.IntType(32), []).as_pointer()), [])
        return c.get_dummy_value()

    return types.void(types.int64), codegen


@intrinsic
def prefetch(typingctx, address):
    """Asks for the cache line at ``address``."""

    def codegen(c, b, s, a):
        _e(b).prefetch(a[0], 0)
        return c.get_dummy_value()

    return types.void(types.int64), codegen
