"""The vector machine of ``simd.emit`` seen from one lane: the same family descriptions, written out for the device.

A family (``kernels/q4_k.py``) says with an ``Emit`` how 16 interleaved rows of a panel are taken apart, in vectors of
64 bytes, 16 floats and so on. On the device a thread is one of the 16 rows. ``Lanes`` offers what families use of
``Emit``, but a vector becomes the part of it that belongs to this thread: <64 x i8> a 32-bit word of four bytes, <16 x
float> a float32. Neighbouring threads then read neighbouring bytes, which is what the memory of a device wants.

The result is Python source, one assignment for each operation, that Numba compiles and its simulator runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ...format import panels

_KINDS = {
    "i8x64": "word", "i8x16": "byte", "i16x16": "short", "i32x16": "int", "f32x16": "float", "f16x16": "half",
    "<64 x i8>": "word", "<16 x i8>": "byte", "<16 x i16>": "short", "<16 x i32>": "int", "<16 x float>": "float",
}  # fmt: skip
_BYTES = {"word": 4, "byte": 1, "short": 2, "int": 4, "float": 4, "half": 2}
#: Views of the panels that elements are read from, with their letters in a signature (``jit.ARRAYS``).
VIEWS = {"w8": "b", "w16": "s", "w32": "u", "wh": "h", "wf": "f"}
ONES, LOW, HIGH = 0x01010101, 0x7F7F7F7F, 0x80808080


@dataclass(frozen=True)
class Value:
    """A lane's part of a vector: ``text`` is a variable or a constant of the generated source.

    ``type``: word (four bytes), byte, short, int (all held as uint32), float, or mask (of bytes 0 and 255).
    ``planar``: the four bytes are neighbouring bytes of the block that are interleaved one by one.
    """

    text: str
    type: str
    planar: bool = False


def _refused(what: str) -> TypeError:
    """The error for a description that one lane alone cannot follow."""
    return TypeError(f"a lane of the device cannot do this: {what}")


class Lanes:
    """Writes the source. ``b`` is what families call the builder: the same object here.

    What a family asks for and a lane cannot do raises `TypeError`: the description does not fit the device.
    """

    def __init__(self, indent: int) -> None:
        self.lines: list[str] = []
        self.views: set[str] = set()
        self.indent = indent
        self._n = 0
        self._units: list[tuple[int, int]] = []  # (end in bytes, in the order of a panel; unit width)

    def begin(self, units: Sequence[panels.Run]) -> None:
        """What follows reads blocks of these runs of units (``format.panels``)."""
        end, self._units = 0, []
        for _, n, width in units:
            end += n
            self._units.append((end, width))

    @property
    def b(self) -> Lanes:
        return self

    def line(self, text: str) -> None:
        self.lines.append("    " * self.indent + text)

    def let(self, text: str, type_: str, planar: bool = False) -> Value:
        """A new variable with the value of ``text``."""
        name = f"v{self._n}"
        self._n += 1
        self.line(f"{name} = {text}")
        return Value(name, type_, planar)

    def _uint(self, text: str, type_: str, *of: Value) -> Value:
        # Numba's integer arithmetic is 64 bits wide: every result is cut, and LLVM sees that 32 bits are enough
        return self.let(f"np.uint32({text})", type_, any(v.planar for v in of))

    # --- memory
    def load(self, p: Any, offset: int, name: str) -> Value:
        """Element of this lane of the vector at ``offset`` bytes of the panel block; ``p`` is always the block."""
        kind = _KINDS[name]
        size, at = _BYTES[kind], offset // panels.ROWS
        width = next(width for end, width in self._units if at < end)
        if size == width:
            return self._element(kind, offset, size)
        if kind != "word" or width != 1:
            raise _refused(f"loading {name} from units of {width} bytes")
        bytes_ = [self._element("byte", offset + panels.ROWS * i, 1).text for i in range(4)]
        shifted = [bytes_[0], *(f"{b} << {8 * i}" for i, b in enumerate(bytes_) if i)]
        return self.let(f"np.uint32({' | '.join(f'({s})' for s in shifted)})", "word", True)

    def _element(self, kind: str, offset: int, size: int) -> Value:
        view = {"half": "wh", "float": "wf"}.get(kind, f"w{8 * size}")
        self.views.add(view)
        at = f"np.uint64(at{size} + {offset // size})"  # unsigned, so that no index is taken for one from the end
        if kind in ("half", "float"):
            return self.let(f"np.float32({view}[{at}])", "float")
        return self.let(f"np.uint32({view}[{at}])", kind)

    def half_load(self, p: Any, offset: int) -> Value:
        return self.load(p, offset, "f16x16")

    # --- constants
    def const(self, name: str, value: float) -> Value:
        kind = _KINDS[name]
        if kind == "float":
            return Value(f"np.float32({float(value)!r})", "float")
        return Value(str(int(value) & 255) if kind == "byte" else str(self._splat(int(value), kind)), kind)

    @staticmethod
    def _splat(value: int, kind: str) -> int:
        return (value & 255) * ONES if kind == "word" else value & 0xFFFFFFFF

    def zero(self, name: str) -> Value:
        return self.const(name, 0)

    def bytes(self, values: Sequence[int]) -> Value:
        """A constant of bytes; every lane must have the same four."""
        four = list(values[:4])
        if list(values) != four * (len(values) // 4):
            raise _refused("a constant that differs between rows")
        return Value(str(int.from_bytes(bytes(four), "little")), "word")

    # --- whole numbers
    def and_(self, a: Value, b: Value | int) -> Value:
        mask = str(self._splat(b, a.type)) if isinstance(b, int) else b.text
        return self._uint(f"{a.text} & {mask}", a.type, a)

    def or_(self, a: Value, b: Value) -> Value:
        return self._uint(f"{a.text} | {b.text}", a.type, a, b)

    def shl(self, a: Value, n: int) -> Value:
        if a.type not in ("int", "word"):
            raise _refused(f"shifting a {a.type} to the left")
        return self._uint(f"np.int64({a.text}) << {n} & 0xFFFFFFFF", a.type, a) if n else a

    def lshr(self, a: Value, n: int) -> Value:
        return self._uint(f"{a.text} >> {n}", a.type, a) if n else a

    def bytes_lshr(self, a: Value, n: int, mask: int) -> Value:
        """``(byte >> n) & mask`` for each byte."""
        return self.and_(self.lshr(a, n), mask)

    def bytes_shl(self, a: Value, n: int) -> Value:
        return self.shl(a, n)

    def add(self, a: Value, b: Value) -> Value:
        if a.type == "word":  # byte by byte: the top bits apart, so that nothing carries into the next byte
            low = f"(({a.text} & {LOW}) + ({b.text} & {LOW}))"
            return self._uint(f"{low} ^ (({a.text} ^ {b.text}) & {HIGH})", "word", a, b)
        return self._uint(f"(np.int64({a.text}) + {b.text}) & 0xFFFFFFFF", a.type)

    def sub(self, a: Value, b: Value) -> Value:
        if a.type == "word":
            low = f"(({a.text} | {HIGH}) - ({b.text} & {LOW}))"
            return self._uint(f"{low} ^ (({a.text} ^ {b.text} ^ {HIGH}) & {HIGH})", "word", a, b)
        return self._uint(f"(np.int64({a.text}) - np.int64({b.text})) & 0xFFFFFFFF", a.type)

    def mul(self, a: Value, b: Value) -> Value:
        return self._uint(f"(np.int64({a.text}) * {b.text}) & 0xFFFFFFFF", a.type)

    def icmp_unsigned(self, how: str, a: Value, b: Value) -> Value:
        if a.type == "word":
            if how != ">=" or not b.text.isdigit():
                raise _refused(f"comparing bytes by {how} with {b.text}")
            add = (256 - (int(b.text) & 255)) * 0x00010001  # bit 8 of each half says whether the byte reached b
            even = f"((({a.text} & 0x00FF00FF) + {add}) >> 8 & 0x00010001) * 255"
            odd = f"((({a.text} >> 8 & 0x00FF00FF) + {add}) >> 8 & 0x00010001) * 65280"
            return self._uint(f"{even} | {odd}", "mask", a)
        return self.let(f"{a.text} {how} {b.text}", "mask")

    def sext(self, a: Value, type_: str) -> Value:
        """Of a byte, and of masks of bytes, which are held as 0 and 255 already."""
        if a.type == "byte":
            return self._uint(f"((np.int64({a.text}) ^ 128) - 128) & 0xFFFFFFFF", _KINDS.get(str(type_), str(type_)))
        return Value(a.text, "word", a.planar)

    def zext(self, a: Value, type_: Any) -> Value:
        return Value(a.text, _KINDS.get(str(type_), str(type_)), a.planar)

    def part(self, a: Value, start: int, count: int) -> Value:
        """16 bytes of 64: byte ``start / 16`` of each row, which the rows must hold one by one."""
        if not a.planar or count != 16 or start % 16:
            raise _refused("taking a part other than one byte of each row")
        return self._uint(f"{a.text} >> {start // 2} & 255", "byte")

    def shuffle(self, a: Value, indices: Sequence[int]) -> Value:
        four = list(indices[:4])
        if len(set(four)) != 1 or list(indices) != [4 * (i // 4) + four[0] for i in range(len(indices))]:
            raise _refused("a shuffle other than of one byte of a row four times")
        return self._uint(f"({a.text} >> {8 * four[0]} & 255) * {ONES}", "word")

    def call(self, name: str, a: Value, b: Value) -> Value:
        """The larger of whole numbers (``umax``); byte by byte the smaller of a word and a constant (``umin``)."""
        if name == "umax" and a.type == "int":
            return self._uint(f"{a.text} if {a.text} > {b.text} else {b.text}", "int")
        if name != "umin" or a.type != "word":
            raise _refused(f"calling {name}")
        reached = self.icmp_unsigned(">=", a, b).text
        return self._uint(f"({b.text} & {reached}) | ({a.text} & ({reached} ^ 0xFFFFFFFF))", "word", a)

    def lookup16(self, table: Sequence[int], index: Value) -> Value:
        """``table[index]`` for each byte below 16: two permutations of eight bytes, chosen by bit 3 of the index."""
        entries = bytes(v & 255 for v in table)
        t = [str(int.from_bytes(entries[i : i + 4], "little")) for i in range(0, 16, 4)]
        low3 = self.let(f"{index.text} & 0x07070707", "word")
        pairs = self.let(f"({low3.text} | {low3.text} >> 4) & 0x00FF00FF", "word")
        selector = self.let(f"np.uint32(({pairs.text} | {pairs.text} >> 8) & 0xFFFF)", "word")
        low, high = (
            self.let(f"permute(np.uint32({t[i]}), np.uint32({t[i + 1]}), {selector.text})", "word") for i in (0, 2)
        )
        mask = self.let(f"({index.text} >> 3 & {ONES}) * 255", "word")
        return self._uint(f"({low.text} & (0xFFFFFFFF ^ {mask.text})) | ({high.text} & {mask.text})", "word")

    # --- floats
    def bitcast(self, a: Value, name: str) -> Value:
        kind = _KINDS[name]
        if (a.type == "float") == (kind == "float"):
            return Value(a.text, kind, a.planar)
        return self.let(f"{'as_float' if kind == 'float' else 'as_bits'}({a.text})", kind)

    def u_to_f32(self, a: Value) -> Value:
        return self.let(f"np.float32({a.text})", "float")

    def i_to_f32(self, a: Value) -> Value:
        if a.type == "byte":
            return self.let(f"np.float32((np.int32({a.text}) ^ 128) - 128)", "float")
        return self.let(f"np.float32(np.int32({a.text}))", "float")

    def _float(self, text: str) -> Value:
        return self.let(f"np.float32({text})", "float")

    def fneg(self, a: Value) -> Value:
        return self._float(f"-{a.text}")

    def fmul(self, a: Value, b: Value) -> Value:
        return self._float(f"{a.text} * {b.text}")

    def fadd(self, a: Value, b: Value) -> Value:
        return self._float(f"{a.text} + {b.text}")

    def fsub(self, a: Value, b: Value) -> Value:
        return self._float(f"{a.text} - {b.text}")

    def select(self, mask: Value, a: Value, b: Value) -> Value:
        return self.let(f"{a.text} if {mask.text} else {b.text}", a.type)
