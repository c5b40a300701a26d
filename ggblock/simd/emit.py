"""A thin layer over llvmlite's builder for code that works on vectors of 16 lanes.

Addresses are ``i64`` values; a load or store takes an address and a constant offset in bytes. No alignment is assumed.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from llvmlite import ir

from .machines import MACHINES, Machine, declare, joined, registers

I1, I8, I16, I32, I64 = (ir.IntType(n) for n in (1, 8, 16, 32, 64))
F16, F32 = ir.HalfType(), ir.FloatType()
ELEMENTS = {"i8": I8, "u8": I8, "i16": I16, "u16": I16, "i32": I32, "i64": I64, "f16": F16, "f32": F32, "b1": I1}


def split_name(name: str) -> tuple[str, int]:
    """``"f32x16"`` -> ``("f32", 16)``; a scalar has one lane."""
    element, _, lanes = name.partition("x")
    return element, int(lanes or 1)


def llvm_type(name: str) -> Any:
    element, lanes = split_name(name)
    return ELEMENTS[element] if lanes == 1 else ir.VectorType(ELEMENTS[element], lanes)


def _interleaved(width: int) -> list[int]:
    """The shuffle of two registers of 32 bytes into elements of ``width`` bytes of both by turns, within 16 bytes."""
    def of(i: int) -> int:
        register, lane, n, byte = i // 32, i // 16 % 2, i % 16 // width, i % width
        return 32 * (n % 2) + 16 * lane + 8 * register + n // 2 * width + byte

    return [of(i) for i in range(64)]


_LANES = [16 * (2 * (i // 16 % 2) + i // 32) + i % 16 for i in range(64)]  # first 16 bytes of both, last of both
_SWAPPED = [16 * (i // 16 % 2 * 2 + i // 32) + i % 16 for i in range(64)]  # places 0, 2, 1, 3
_ROUNDS = (_interleaved(1), _LANES, _interleaved(2), _LANES)  # ``Emit.rows_of_bytes``

#: The rows of a place as ``Emit.places_of_bytes`` has them.
PLACE_ROWS = [*range(4), *range(8, 12), *range(4, 8), *range(12, 16)]
_FOURS = [i // 16 * 16 + i % 4 * 4 + i // 4 % 4 for i in range(64)]  # within 16 bytes
_HALVES = [32 * (i // 32) + i % 32 // 8 % 2 * 16 + i % 32 // 16 * 8 + i % 8 for i in range(64)]


class Emit:
    """Emits into one function; values are llvmlite values."""

    def __init__(self, builder: Any, machine: Machine | str) -> None:
        self.b = builder
        self.machine = MACHINES[machine] if isinstance(machine, str) else machine
        self._places: list[Any] = []  # where loads are kept in order

    # --- constants and addresses
    def i64(self, value: int) -> Any:
        return ir.Constant(I64, value)

    def const(self, name: str, value: float) -> Any:
        t = llvm_type(name)
        return ir.Constant(t, [value] * t.count) if isinstance(t, ir.VectorType) else ir.Constant(t, value)

    def zero(self, name: str) -> Any:
        return ir.Constant(llvm_type(name), None)

    def at(self, address: Any, offset: Any = 0, scale: int = 1) -> Any:
        """``address + offset * scale`` as an ``i64``."""
        if isinstance(offset, int):
            return self.b.add(address, self.i64(offset * scale)) if offset else address
        return self.b.add(address, self.b.mul(offset, self.i64(scale)) if scale != 1 else offset)

    def _pointer(self, address: Any, offset: int, t: Any) -> Any:
        p = self.b.inttoptr(address, I8.as_pointer())
        if offset:
            p = self.b.gep(p, [self.i64(offset)])
        return self.b.bitcast(p, t.as_pointer())

    def load(self, address: Any, offset: int, name: str) -> Any:
        r = self.b.load(self._pointer(address, offset, llvm_type(name)))
        r.align = 1
        return r

    def store(self, address: Any, offset: int, value: Any) -> None:
        self.b.store(value, self._pointer(address, offset, value.type)).align = 1

    def stack(self, n_bytes: int) -> Any:
        """The address of ``n_bytes`` on the stack, taken once when the function is entered."""
        with self.b.goto_entry_block():
            place = self.b.alloca(ir.ArrayType(I8, n_bytes))
            place.align = 64
            return self.b.ptrtoint(place, I64)

    def prefetch(self, address: Any, offset: int, locality: int = 3) -> None:
        """Asks for a cache line; ``locality`` 3 is every level of cache, 2 and 1 leave out the first."""
        f = declare(self.b, "llvm.prefetch.p0", ir.VoidType(), [I8.as_pointer(), I32, I32, I32])
        self.b.call(f, [self._pointer(address, offset, I8)] + [ir.Constant(I32, v) for v in (0, locality, 1)])

    @contextlib.contextmanager
    def asking(self, address: Any, n_bytes: int, ahead: int) -> Iterator[None]:
        """For as long as ``n_bytes`` at ``address`` are read, prefetches as many that lie ``ahead`` bytes further on,
        evenly where loads are kept in ``order``. Nothing where ``ahead`` is 0. All lines at once have to wait for each
        other: 29 GB/s of Q6_K on a core of Zen 5, and so 41."""
        self._places = places = []
        yield
        lines = range(0, n_bytes, 64) if ahead else range(0)
        for i, line in enumerate(lines):
            with contextlib.ExitStack() as back:
                if places:
                    place = places[i * len(places) // len(lines)]
                    back.enter_context(self.b.goto_block(place.parent))
                    self.b.position_before(place)
                self.prefetch(address, ahead + line)

    def order(self, *seen: Any) -> None:
        """Keeps the compiler from moving loads, stores and prefetches across this place; no instruction. Those of a
        ``stack`` only if its address is among ``seen``."""
        form = "".join(["r,"] * len(seen)) + "~{memory}"
        function = ir.FunctionType(ir.VoidType(), [a.type for a in seen])
        self._places.append(self.b.asm(function, "", form, list(seen), True))

    def pin(self, values: Sequence[Any]) -> list[Any]:
        """``values``, which the compiler must have in registers at this place: what they are made of is computed before
        it, what is loaded after it stays after it. No instruction. Machines with registers enough are left alone.
        """
        return self.held(values) if self.machine.pins else list(values)

    def held(self, values: Sequence[Any]) -> list[Any]:
        """The same on all x86: the compiler no longer knows what ``values`` are made of."""
        b, parts = self.b, [p for v in values for p in registers(self.b, v, self.machine.lanes)]
        t = ir.LiteralStructType([p.type for p in parts]) if len(parts) > 1 else parts[0].type
        kind = "=v" if self.machine.lanes == 16 else "=x"
        form = ",".join([kind] * len(parts) + [str(i) for i in range(len(parts))] + ["~{memory}"])
        made = b.asm(ir.FunctionType(t, [p.type for p in parts]), "", form, parts, True)
        pinned = [b.extract_value(made, i) for i in range(len(parts))] if len(parts) > 1 else [made]
        each = len(parts) // len(values)
        return [joined(b, pinned[i : i + each]) for i in range(0, len(parts), each)]

    # --- vectors
    def splat(self, value: Any, lanes: int = 16) -> Any:
        t = ir.VectorType(value.type, lanes)
        u = self.b.insert_element(ir.Constant(t, ir.Undefined), value, ir.Constant(I32, 0))
        return self.b.shuffle_vector(u, u, ir.Constant(ir.VectorType(I32, lanes), [0] * lanes))

    def splat_load(self, address: Any, offset: int, name: str, lanes: int = 16) -> Any:
        return self.splat(self.load(address, offset, name), lanes)

    def bytes4(self, address: Any, offset: int) -> Any:
        """Four bytes from memory, repeated over 64 bytes."""
        return self.b.bitcast(self.splat_load(address, offset, "i32"), llvm_type("i8x64"))

    def part(self, value: Any, start: int, count: int) -> Any:
        return self.b.shuffle_vector(
            value, value, ir.Constant(ir.VectorType(I32, count), list(range(start, start + count)))
        )

    def shuffle(self, value: Any, indices: Sequence[int]) -> Any:
        return self.b.shuffle_vector(value, value, ir.Constant(ir.VectorType(I32, len(indices)), list(indices)))

    def rows_of_bytes(self, value: Any) -> Any:
        """64 bytes, those of four places by 16 rows, row by row: the four of each row in the order 0, 2, 1, 3."""
        order = [16 * (i % 2 * 2 + i // 2 % 2) + i // 4 for i in range(64)]
        return self._shuffled(value, order, _ROUNDS)

    def rows_of_places(self, value: Any) -> Any:
        """The same with the four of each row in their order."""
        return self.rows_of_bytes(self.shuffle(value, _SWAPPED))

    def places_of_bytes(self, value: Any) -> Any:
        """64 bytes, 16 rows by four places, place by place: the 16 of each in the order of ``PLACE_ROWS``."""
        order = [4 * PLACE_ROWS[i % 16] + i // 16 for i in range(64)]
        return self._shuffled(value, order, (_FOURS, _interleaved(4), _HALVES))

    def _shuffled(self, value: Any, order: list[int], steps: Sequence[list[int]]) -> Any:
        """``order`` of 64 bytes, on machines with registers of 32 in steps of two instructions: of the first four steps
        that there are LLVM makes 39 instead of eight if it sees them together."""
        if not self.machine.pins:
            return self.shuffle(value, order)
        for step in steps:
            (value,) = self.held([self.shuffle(value, step)])
        return value

    def bitcast(self, value: Any, name: str) -> Any:
        return self.b.bitcast(value, llvm_type(name))

    def lanes(self, indices: Sequence[int]) -> Any:
        """A mask of ``shuffle_vector``."""
        return ir.Constant(ir.VectorType(I32, len(indices)), list(indices))

    def and_(self, value: Any, mask: int) -> Any:
        return self.b.and_(value, ir.Constant(value.type, [mask] * value.type.count))

    def shl(self, value: Any, n: int) -> Any:
        return self.b.shl(value, ir.Constant(value.type, [n] * value.type.count)) if n else value

    def ashr(self, value: Any, n: int) -> Any:
        return self.b.ashr(value, ir.Constant(value.type, [n] * value.type.count))

    def lshr(self, value: Any, n: int) -> Any:
        return self.b.lshr(value, ir.Constant(value.type, [n] * value.type.count)) if n else value

    def bytes_lshr(self, value: Any, n: int, mask: int) -> Any:
        """``(byte >> n) & mask`` for each of 64 bytes, through 32-bit shifts (x86 has no byte shift)."""
        if n:
            value = self.bitcast(self.lshr(self.bitcast(value, "i32x16"), n), "i8x64")
        return self.and_(value, mask)

    def bytes_shl(self, value: Any, n: int) -> Any:
        """``byte << n`` where no bit leaves its byte."""
        return self.bitcast(self.shl(self.bitcast(value, "i32x16"), n), "i8x64") if n else value

    def u_to_f32(self, value: Any) -> Any:
        """Small unsigned integers (below 2**31 after widening) to float32."""
        t = ir.VectorType(I32, value.type.count)
        return self.b.sitofp(self.b.zext(value, t) if value.type.element != I32 else value, ir.VectorType(F32, t.count))

    def i_to_f32(self, value: Any) -> Any:
        t = ir.VectorType(I32, value.type.count)
        return self.b.sitofp(self.b.sext(value, t) if value.type.element != I32 else value, ir.VectorType(F32, t.count))

    def half_load(self, address: Any, offset: int, lanes: int = 16) -> Any:
        return self.half_to_f32(self.load(address, offset, f"f16x{lanes}"))

    def bf16_load(self, address: Any, offset: int, lanes: int = 16) -> Any:
        """bfloat16 as float32: the upper halves of their bits."""
        wide = self.b.zext(self.load(address, offset, f"i16x{lanes}"), ir.VectorType(I32, lanes))
        return self.b.bitcast(self.shl(wide, 16), ir.VectorType(F32, lanes))

    def half_to_f32(self, value: Any) -> Any:
        """IEEE halves (a vector of ``half``) as float32, exactly; without instructions for it by integer arithmetic."""
        lanes = value.type.count
        floats = ir.VectorType(F32, lanes)
        if self.machine.has_half:
            return self.b.fpext(value, floats)
        b, i32 = self.b, ir.VectorType(I32, lanes)
        bits = b.zext(b.bitcast(value, ir.VectorType(I16, lanes)), i32)
        sign, rest = self.shl(self.and_(bits, 0x8000), 16), self.shl(self.and_(bits, 0x7FFF), 13)
        # exponent and fraction as float32 bits are 2**112 too small, denormals included; infinity and NaN are set apart
        scaled = b.bitcast(b.fmul(b.bitcast(rest, floats), ir.Constant(floats, [2.0**112] * lanes)), i32)
        special = b.icmp_unsigned(">=", rest, ir.Constant(i32, [0x0F800000] * lanes))
        top = b.or_(rest, ir.Constant(i32, [0x7F800000] * lanes))
        return b.bitcast(b.or_(b.select(special, top, scaled), sign), floats)

    def f32_to_half(self, value: Any) -> Any:
        """A float32 scalar as the 16 bits of an IEEE half, rounded to nearest even."""
        b = self.b
        if self.machine.has_half:
            return b.bitcast(b.fptrunc(value, F16), I16)
        c = lambda n: ir.Constant(I32, n)  # noqa: E731
        bits = b.bitcast(value, I32)
        sign = b.and_(b.lshr(bits, c(16)), c(0x8000))
        magnitude = b.and_(bits, c(0x7FFFFFFF))
        # normal halves: rebias, round the 13 dropped bits to even; a carry moves into the exponent as it should
        odd = b.and_(b.lshr(magnitude, c(13)), c(1))
        normal = b.lshr(b.add(b.add(magnitude, c((-112 << 23) & 0xFFFFFFFF)), b.add(odd, c(0xFFF))), c(13))
        # denormal halves: adding 0.5 lets the float adder round at 2**-24
        small = b.sub(b.bitcast(b.fadd(b.bitcast(magnitude, F32), ir.Constant(F32, 0.5)), I32), c(0x3F000000))
        half = b.select(b.icmp_unsigned("<", magnitude, c(113 << 23)), small, normal)
        half = b.select(b.icmp_unsigned(">=", magnitude, c(0x477FF000)), c(0x7C00), half)  # 65520 and more
        half = b.select(b.icmp_unsigned(">", magnitude, c(0x7F800000)), c(0x7E00), half)
        return b.trunc(b.or_(half, sign), I16)

    def dot_words(self, acc: Any, x: Any, y: Any) -> Any:
        """int32 lanes plus the two products of the pairs of int16 in each lane of ``x`` and ``y`` (<16 x i32>)."""
        if self.machine.dot_words:
            return self.machine.dot_words(self.b, acc, x, y)
        # both halves of a lane, sign-extended: LLVM finds what the machine multiplies them with
        left, right = ([self.ashr(self.shl(v, 16), 16), self.ashr(v, 16)] for v in (x, y))
        return self.b.add(self.b.add(acc, self.b.mul(left[0], right[0])), self.b.mul(left[1], right[1]))

    def call(self, name: str, *args: Any) -> Any:
        """An LLVM intrinsic over equal types, such as ``fma``: ``llvm.fma.v16f32``."""
        t = args[0].type
        suffix = (
            f"v{t.count}{'f32' if t.element == F32 else 'i' + str(t.element.width)}"
            if isinstance(t, ir.VectorType)
            else ("f32" if t == F32 else f"i{t.width}")
        )
        return self.b.call(declare(self.b, f"llvm.{name}.{suffix}", t, [a.type for a in args]), args)

    def fma(self, x: Any, y: Any, z: Any) -> Any:
        """x * y + z: one rounding where the machine has an instruction for it, else two (not a call a lane)."""
        return self.call("fma" if self.machine.has_fma else "fmuladd", x, y, z)

    def rint(self, x: Any) -> Any:
        """Floats rounded to whole numbers, ties to even."""
        if self.machine.has_fma:  # whatever has the one has the other
            return self.call("rint", x)
        b = self.b
        # from 2**23 on every float is whole; below, adding and taking off 2**23 of the same sign rounds
        limit = ir.Constant(x.type, [2.0**23] * x.type.count)
        signed = self.call("copysign", limit, x)
        return b.select(b.fcmp_ordered("<", self.call("fabs", x), limit), b.fsub(b.fadd(x, signed), signed), x)

    def bytes(self, values: Sequence[int]) -> Any:
        """A constant vector of bytes."""
        return ir.Constant(ir.VectorType(I8, len(values)), list(values))

    def lookup16(self, table: Sequence[int], index: Any) -> Any:
        """``table[index]`` for each of 64 bytes below 16; the table's values fit a byte."""
        return self.machine.lookup16(self.b, table, index)

    def lookup64(self, table: Any, index: Any) -> Any:
        """``table[index]`` for each of 64 bytes; of an index the low six bits count. Not on every machine."""
        assert self.machine.lookup64, self.machine.name
        return self.machine.lookup64(self.b, table, index)

    def lookup_rows(self, table: Any, index: Any) -> Any:
        """``table[index]`` within each 16 of 64 bytes, four rows of 4 bytes; an index is below 16. Not on every
        machine."""
        assert self.machine.lookup_rows, self.machine.name
        return self.machine.lookup_rows(self.b, table, index)

    def times(self, u: Any, even: int, odd: int) -> Any:
        """Unsigned bytes of even places times ``even`` plus those of odd places times ``odd``, in int16: on machines
        with ``narrow``."""
        factors = self.bytes([even, odd] * 32)
        return self.machine.narrow[0](self.b, self.zero("i16x32"), u, factors)

    def abs(self, value: Any) -> Any:
        """Whole numbers without their signs; the smallest stays as it is."""
        t = value.type
        f = declare(self.b, f"llvm.abs.v{t.count}i{t.element.width}", t, [t, I1])
        return self.b.call(f, [value, ir.Constant(I1, 0)])

    def odd_bytes(self, even: Any, odd: Any) -> Any:
        """The bytes of even places of one vector of 64, those of odd places of another."""
        order = [i + 64 * (i % 2) for i in range(64)]
        return self.b.shuffle_vector(even, odd, ir.Constant(ir.VectorType(I32, 64), order))

    def dot_us(self, acc: Any, u: Any, s: Any) -> Any:
        return self.machine.dot_us(self.b, acc, u, s)

    def dot_ss(self, acc: Any, w: Any, s: Any) -> Any:
        return self.machine.dot_ss(self.b, acc, w, s)

    def dot_wide(self, acc: Any, u: Any, even: Any, odd: Any) -> Any:
        """int32 lanes plus the products of four unsigned bytes with int16: of bytes 0 and 2 with the pair of a lane of
        ``even``, of 1 and 3 with that of ``odd`` (<16 x i32>). Not on every machine."""
        assert self.machine.dot_wide, self.machine.name
        return self.machine.dot_wide(self.b, acc, u, even, odd)

    # --- control flow
    def choose(self, condition: Any, then: Callable[[], list[Any]], otherwise: Callable[[], list[Any]]) -> list[Any]:
        """The values of one of two pieces of code, by a branch."""
        b, ways = self.b, []
        with b.if_else(condition) as arms:
            for arm, values in zip(arms, (then, otherwise), strict=True):
                with arm:
                    made = values()
                    ways.append((made, b.block))
        phis = [b.phi(v.type) for v in ways[0][0]]
        for values, block in ways:
            for phi, value in zip(phis, values, strict=True):
                phi.add_incoming(value, block)
        return phis

    def loop(
        self, start: Any, stop: Any, step: int, carried: Sequence[Any], body: Callable[[Any, list[Any]], Sequence[Any]]
    ) -> list[Any]:
        """``for i in range(start, stop, step)`` over ``i64``; ``body(i, values)`` returns the next values."""
        b = self.b
        entry = b.block
        head, inner, done = (b.append_basic_block(n) for n in ("head", "body", "done"))
        b.branch(head)
        b.position_at_end(head)
        i = b.phi(I64)
        phis = [b.phi(v.type) for v in carried]
        i.add_incoming(start, entry)
        for phi, value in zip(phis, carried):
            phi.add_incoming(value, entry)
        b.cbranch(b.icmp_signed("<", i, stop), inner, done)
        b.position_at_end(inner)
        following = list(body(i, phis))
        last = b.block
        i.add_incoming(b.add(i, self.i64(step)), last)
        for phi, value in zip(phis, following):
            phi.add_incoming(value, last)
        b.branch(head)
        b.position_at_end(done)
        return phis
