"""The table of block families that have kernels, and what a family must say.

A family describes one *panel block*: the blocks of 16 rows at the same columns, interleaved unit by unit
(``format.panels``). Where the units lie in the order of the block's bytes, a field at byte ``o`` lies at ``16 * o`` of
the panel block, with units of ``u`` bytes row ``r``'s at ``r * u`` of there. A weight is ``code * scale + offset``.
"""
from __future__ import annotations

import importlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from ..blocks import by_name, tails
from ..format import panels
from ..simd.host import NARROW_MACHINES, PLACE_MACHINES, TABLE_MACHINES, WIDE_MACHINES, WORD_MACHINES, Host
from . import fields
from .shapes import UNIT_CODES

#: Types whose rows are written anew before they are packed (``levels``): a number for each weight.
LEVELS = ("iq3_s", "iq3_xxs", "iq2_s", "iq2_xs", "iq2_xxs", "iq1_s", "iq1_m")

FAMILIES = ("f32", "f16", "bf16", "q4_0", "q4_1", "q5_0", "q5_1", "q8_0", "q2_k", "q3_k", "q4_k", "q5_k", "q6_k",
            "iq4_nl", "iq4_xs", "mxfp4", "nvfp4", "tq1_0", "tq2_0", "q1_0", "q2_0", *LEVELS, "expanded32")

#: Families that the engine makes of a block type: its bits in two regions (``sieve``).
PARTED = {"q8_0": "q8_0_parted"}

#: Others that it makes for products of one token by tables, and on which machines; and the units of their blocks as
#: ``format.panels`` has those of types.
FORMS = {"q1_0": ("q1_0_places", PLACE_MACHINES), "tq1_0": ("tq1_0_threes", TABLE_MACHINES)}
FORM_UNITS = {"q1_0_places": ((0, 2, 2), (2, 16, 1)), "tq1_0_threes": ((0, 2, 2), (2, 54, 1))}

COARSE_BITS = 3.5   # a weight

DEVIATIONS = 7.0    # by which a row of a ``sketch`` may be off
SKETCHES = ((8, 5), (6, 4))  # bits of a code that one has, where an output matrix has so many a weight or more

WORD_UNIT = 16 * 64 + 64  # bytes: see ``float_words``


@dataclass(frozen=True)
class Folded:
    """Units (``unpacked``) whose codes are codes of a block times the scales of its sub-blocks, as bytes: a block then
    has one scale. The names are those of ``Family``."""

    max_code: int
    signed: bool = False
    sub: int = 32
    zero: float = 0.0


class Family:
    """What ``matmul`` needs to know of a block type; subclasses fill it in. ``e`` is an ``Emit``, ``p`` an address."""

    block = 32          # weights a block
    n_bytes = 0         # bytes a block
    second = 0          # bytes a block in a region behind all panels; then ``p`` is a pair, of both places
    sub = 32            # weights that share a scale and an offset
    max_code = 127      # no code is larger, unless signed
    max_scale = 0       # where sub-blocks share factors (``whole``): no scale is larger
    zero = 0.0          # what is taken off a code, a power of two or nothing
    has_offsets = False # whether a sub-block has an offset of its own
    per_line = 1        # calls of ``codes`` that need one line of memory: it is loaded once if no fence is between them
    weave = None        # columns of a few in the order in which ``woven`` has them; its use to one token
    signed = False      # codes are signed bytes of full range (then ``dot_ss``)
    has_weights = False # blocks of 16 sub-blocks: ``weights`` says what sums of activations are multiplied by
    folded = None       # how units may have scales in their codes: a ``Folded``, where ``folded_codes`` are bytes
    tables = ""         # mode in which one token is multiplied by tables, on machines that have it: see ``mode_of_one``

    def prepare(self, e: Any, p: Any) -> Any:
        """What all sub-blocks of a block share; handed back to ``scale``."""
        return e.half_load(p, 0)

    def whole(self, e: Any, shared: Any) -> tuple[Any, Any] | None:
        """Factors of the scales and offsets of all sub-blocks, which ``parts`` leaves out; or None."""
        return None

    def parts(self, e: Any, p: Any, shared: Any, s: int) -> tuple[Any, Any]:
        """(scale, offset) of sub-block ``s``, each <16 x float>; where there are factors of all (``whole``), without
        these, as whole numbers <16 x i32>. Where offset is None, a weight is ``(code - zero) * scale``; scale may be
        None, which is one, if ``whole`` has a factor."""
        raise AttributeError

    def complete(self, e: Any, p: Any, shared: Any, s: int) -> tuple[Any, Any]:
        """(scale, offset) of sub-block ``s``, complete: a weight is ``(code - zero) * scale + offset``; offset may be
        None."""
        (scale, offset), whole = self.parts(e, p, shared, s), self.whole(e, shared)
        if whole:
            scale = whole[0] if scale is None else e.b.fmul(whole[0], e.i_to_f32(scale))
            offset = None if offset is None else e.b.fmul(whole[1], e.i_to_f32(offset))
        return scale, offset

    def scale(self, e: Any, p: Any, shared: Any, s: int) -> tuple[Any, Any]:
        """The same with ``zero`` in the offset: a weight is ``code * scale + offset``."""
        scale, offset = self.complete(e, p, shared, s)
        return scale, e.b.fmul(scale, e.const("f32x16", -self.zero)) if self.zero else offset

    def codes(self, e: Any, p: Any, s: int, k: int) -> Any:
        """Codes of weights ``4 k .. 4 k + 3`` of sub-block ``s``: <64 x i8>, row-major 16 x 4; at most 127, unsigned,
        unless ``signed``."""
        raise AttributeError

    def raised_codes(self, e: Any, p: Any, s: int, k: int) -> Any:
        """The codes of a ``signed`` family plus 128, as unsigned bytes: for machines with a ``signed_bias``."""
        return e.b.xor(self.codes(e, p, s, k), e.const("i8x64", -128))

    def line(self, s: int, k: int) -> Any:
        """What names the line of memory from which ``codes(s, k)`` come, or most of their bits: one token multiplies
        the codes that share one together (``block_products``)."""
        return s, k

    def lift(self, s: int, most: int) -> int:
        """Bits by which codes of sub-block ``s`` of an unsigned family had better stand higher than they are, none of
        them above ``most``: that saves shifts."""
        return 0

    def lifted_codes(self, e: Any, p: Any, s: int, k: int, lift: int) -> Any:
        """``codes`` as many bits higher as ``lift`` says, for one token."""
        return self.codes(e, p, s, k)

    def walk(self, e: Any, p: Any) -> Iterator[tuple[int, int, Any]]:
        """All codes of a block in the order in which it is read, for one token: (sub-block, k, codes ``4 k .. 4 k + 3``
        of it, <64 x i8>). Machines that multiply unsigned bytes of full range get pairs ``(a, b)``, of which
        ``3 a - b`` is 256 times the codes. Nothing where ``lifted_codes`` does."""
        return iter(())

    def weights(self, e: Any, p: Any, shared: Any) -> list[Any]:
        """What the activations' sums of 16 columns are multiplied by (``sum_tables.weighted``): mins, or scales raised
        by ``max_scale``; of four sub-blocks each, <64 x i8> unsigned, 16 rows of one sub-block after the other."""
        raise AttributeError

    def folded_codes(self, e: Any, p: Any, shared: Any, s: int) -> list[Any]:
        """Codes of sub-block ``s`` times its scale, each <64 x i8>, 128 higher where ``folded`` is signed: for machines
        with a ``signed_bias`` that look bytes up in tables of a row. Signed ones are negative: of ``-whole[0]``."""
        raise AttributeError

    def signs(self, e: Any, p: Any, s: int) -> Any:
        """For weights ``32 s .. 32 s + 31`` of a block a bit each, 1 for plus: <64 x i8>, four bytes a row. Of a family
        with ``tables`` "1t", whose weights are plus or minus the half at the block's start."""
        raise AttributeError

    def woven(self, e: Any, p: Any, s: int) -> Iterator[tuple[Any, int]]:
        """What ``codes`` says of sub-block ``s``, group after group, of the columns that ``weave`` puts there, and how
        many bits higher it is. Eight times the largest is to fit ``block_products.NARROW``."""
        raise AttributeError


class RaggedFamily(Family):
    """A family that also describes tails (``blocks.tails``): it finds everything through the fields of its layout, and
    those of a tail of ``m`` weights lie elsewhere. ``RaggedFamily()`` is the whole block."""

    name = ""           # of the block type

    def __init__(self, m: int = 0) -> None:
        kind = tails.tail(by_name(self.name), m) if m else by_name(self.name)
        self.is_tail = kind.is_tail
        self.block, self.n_bytes = kind.block_size, kind.block_bytes
        self.fields = {field.name: field for field in kind.layout}
        self.places = panels.places(kind)
        if m:
            self.weave = None

    def line(self, s: int, k: int) -> Any:
        codes = self.fields["ql" if "ql" in self.fields else "qs"]
        return (s, k) if self.is_tail or codes.kind != "uint" else codes.place(self.sub * s + 4 * k)[0]

    def at(self, field: str, byte: int = 0) -> int:
        """Where the units from byte ``byte`` of a field on begin in the panel block."""
        return self.places[self.fields[field].offset + byte]

    def bytes_of(self, e: Any, p: Any, field: str) -> list[Any]:
        """A field of bytes, each <16 x i8>. Of whole blocks loaded four at a time and at once, so that memory is read
        forward; of tails, whose fields may end anywhere, one at a time."""
        n_bytes = self.fields[field].n_bytes
        if self.is_tail:
            return [e.load(p, self.at(field, i), "i8x16") for i in range(n_bytes)]
        fours = [e.load(p, self.at(field, i), "i8x64") for i in range(0, n_bytes, 4)]
        return [e.part(fours[i // 4], 16 * (i % 4), 16) for i in range(n_bytes)]

    def planes(self, e: Any, p: Any, field: str, j: int, up: int = 0) -> Any:
        """Numbers ``j .. j + 3`` of a field whose planes are multiples of four bytes, as bits ``up`` and on: <64 x i8>.
        """
        byte, shift = self.fields[field].place(j)
        raw, mask = e.load(p, self.places[byte], "i8x64"), (1 << self.fields[field].bits) - 1
        if shift >= up:
            return e.bytes_lshr(raw, shift - up, mask << up)
        return e.and_(e.bytes_shl(raw, up - shift), mask << up)  # what comes from the byte below is cut off


class PlaneFamily(RaggedFamily):
    """Codes that are numbers of field ``qs``, those of a sub-block in one place of their bytes (but in tails)."""

    def lift(self, s: int, most: int) -> int:
        """So that all codes of a byte take few different shifts: those of two bits none or, if ``most`` is small, one.
        """
        if self.is_tail:
            return 0
        bits = int(self.fields["qs"].bits)
        room = max(1, most // self.max_code).bit_length() - 1
        return int(self.fields["qs"].place(self.sub * s)[1] % (bits + room // bits * bits))

    def numbers(self, e: Any, p: Any, j: int, up: int) -> Any:
        """Codes of weights ``j .. j + 3`` of the block as bits ``up`` and on: <64 x i8>."""
        return self.planes(e, p, "qs", j, up)

    def codes(self, e: Any, p: Any, s: int, k: int) -> Any:
        return self.numbers(e, p, self.sub * s + 4 * k, 0)

    def lifted_codes(self, e: Any, p: Any, s: int, k: int, lift: int) -> Any:
        return self.numbers(e, p, self.sub * s + 4 * k, lift)


class FloatFamily:
    """Weights that are floats: no codes, no scales."""

    block = 8
    n_bytes = 0
    in_words = False    # whether whole numbers of 16 bits stand for them beside many tokens (``float_words``)

    def weights(self, e: Any, p: Any, k: int) -> Any:
        """Weight ``k`` of the block in all 16 rows: <16 x float>."""
        raise AttributeError


def second_bytes(fam: Any) -> int:
    """Bytes of a panel block in the second region, 0 where there is none."""
    return 0 if isinstance(fam, FloatFamily) else 16 * int(fam.second)


def in_halves(fam: Any, machine: str) -> bool:
    """Whether a machine has codes in units (``unpacked``) as two bytes each: all upper halves, then, ``UNIT_CODES`` on,
    all lower ones. See ``narrow``."""
    return bool(fam.signed) and machine in NARROW_MACHINES


def has_whole_scales(fam: Any, machine: str) -> bool:
    """Whether a machine has whole numbers for scales in units, two int16 a row, then the factor of both, and mins in
    the same way: where sums of int16 are otherwise widened more than once a unit. See ``narrow``."""
    if machine not in NARROW_MACHINES or not fam.max_scale or fam.signed:
        return False
    return bool(fam.sub == 16 or 8 * max(fam.max_code - fam.zero, fam.zero) > fields.NARROW)


def in_groups(fam: Any, machine: str, mode: str) -> bool:
    """Whether the scales of 256 columns of activations are multiples of one for the products of many tokens in ``mode``
    (``fields.TOGETHER``)."""
    return mode in ("1", "1+") and not isinstance(fam, FloatFamily) and has_whole_scales(fam, machine)


def scales_at(fam: Any, machine: str) -> int:
    """Where the scales of a unit begin, behind its codes."""
    return UNIT_CODES * (1 + in_halves(fam, machine))


def numbers_at(fam: Any, machine: str) -> int:
    """Where the whole numbers of a unit in mode "1p" begin, behind the float32 scales and offsets of 16 rows for each
    sub-block."""
    words = 2 if has_whole_scales(fam, machine) else 32 // int(fam.sub)
    return scales_at(fam, machine) + words * 64 * (1 + int(fam.has_offsets))


def unit_bytes(fam: Any, machine: str, mode: str) -> int:
    """Bytes of a unit for many tokens in ``mode``: codes, scales and offsets, and in mode "1p" an int32 a row for each
    sub-block; in mode "w" those of ``float_words``."""
    if mode == "w":
        return WORD_UNIT
    return numbers_at(fam, machine) + (64 * (32 // int(paired_form(fam).sub)) if mode == "1p" else 0)


def place(fam: Any, p: Any, second: Any) -> Any:
    """A panel block as the methods of ``fam`` take it: ``second`` is where it lies in the second region, if any."""
    return (p, second) if second_bytes(fam) else p


def split(name: str) -> tuple[str, int]:
    """``"q4_k+128"``, rows of Q4_K that end in a tail of 128 weights, as ``("q4_k", 128)``; without a tail 0."""
    base, _, m = name.partition("+")
    return base, int(m or 0)


def family(name: str) -> Any:
    """The description of block family ``name``, of its whole blocks. Raises ``KeyError`` where it has no kernel."""
    base, _ = split(name)
    if base not in FAMILIES and base not in PARTED.values() and base not in FORM_UNITS:
        raise KeyError(name)
    return importlib.import_module(f"{__package__}.{base}").FAMILY


def units(name: str) -> tuple[tuple[int, int, int], ...]:
    """Units of the blocks of family ``name``, rows of which are packed: (first byte, bytes, width) of each run."""
    if name in LEVELS:
        runs: tuple[tuple[int, int, int], ...] = family(name).units
        return runs
    return FORM_UNITS.get(name) or panels.UNITS[name]


def rewriter(name: str) -> str:
    """The kernel that makes rows of blocks of family ``name`` of those of a file; "" where these are packed as they
    are."""
    return f"levels/{name}" if name in LEVELS else "threes" if name == "tq1_0_threes" else ""


def form_of(name: str, modes: tuple[str, str], machine: str) -> str:
    """The family in which weights of block family ``name``, if their panels are not packed yet, are best multiplied
    with one token of activations in ``modes``."""
    form, machines = FORMS.get(name, (name, ()))
    return form if machine in machines and mode_of_one(form, modes, machine) == family(form).tables else name


def modes_of(name: str, modes: tuple[str, str], machine: str) -> tuple[str, str]:
    """The activations, of one token and of many, that block family ``name`` takes where others have ``modes``: weights
    that are floats take floats, and beside "1+" of many tokens whole numbers of 16 bits (``float_words``) where these
    are multiplied faster."""
    fam = family(name)
    if not isinstance(fam, FloatFamily):
        return modes
    return "f", "w" if fam.in_words and modes[1] == "1+" and machine in WORD_MACHINES else "f"


def mode_of_one(name: str, modes: tuple[str, str], machine: str) -> str:
    """How block family ``name`` multiplies one token of activations in ``modes`` (one token, many) on a machine.

    Of types with few bits a weight one token is bound by arithmetic, not by memory, if it has two terms everywhere; and
    their weights are so rough that nothing is lost beside them by a second term only where it is worth it. "1s":
    elsewhere with sums of activations from tables (``sum_tables``). "1t", "1d": elsewhere by tables alone
    (``sign_tables``, ``digit_tables``), where the machine looks bytes up fast. "2w": two terms as one number of 16 bits
    (``wide``), where that is faster.

    Machines that multiply bytes in several instructions are bound by arithmetic with all types, if few cores share a
    memory. There others have a second term where it is worth it too, which takes less to be (``fields.LOUD``). One core
    of Zen 4 as AVX2, weights in L2, GB/s with two terms and so: Q4_K 30 and 43, Q5_K 24 and 31, Q6_K 27 and 33, MXFP4
    24 and 30, Q5_0 23 and 26.
    """
    fam = family(name)
    if modes[0] != "2" or isinstance(fam, FloatFamily):
        return modes[0]
    if fam.signed and machine in WIDE_MACHINES:
        return "2w"
    if modes[1] != "1+" or not (is_coarse(fam) or machine in NARROW_MACHINES):
        return modes[0]
    if fam.has_weights:
        return "1s"
    return fam.tables if fam.tables and machine in TABLE_MACHINES else "1+"


def mode_of_many(name: str, modes: tuple[str, str], here: Host) -> str:
    """How block family ``name`` multiplies many tokens of activations in ``modes`` on a CPU: with fewer dot products
    where that pays (``winograd``), if sums of the family's codes and activations are bytes. Not where
    units have signed codes with scales in them (Q3_K): these are faster."""
    fam = family(name)
    if not here.pairs or modes[1] != "1+" or isinstance(fam, FloatFamily) or fam.signed:
        return modes[1]
    return modes[1] if fam.folded and fam.folded.signed else "1p"


def paired_form(fam: Any) -> Any:
    """The codes that units of mode "1p" have: of a ``Folded``, or of the family."""
    return fam.folded if fam.folded and not fam.folded.signed else fam


def middle(fam: Any) -> int:
    """What is taken off codes in units of mode "1p", so that they lie on both sides of zero: what the type takes off,
    or, where it has offsets, which say the rest, half of the largest."""
    form = paired_form(fam)
    return (form.max_code + 1) // 2 if fam.has_offsets else int(form.zero)


def levels(fam: Any) -> tuple[int, int]:
    """Of activations in mode "1p", the largest code either side of zero in columns that are paired: with a code of a
    weight it is a byte. In those that are wherever there are pairs, and in those that are where sub-blocks have 32
    columns (``fields.LEVELS``)."""
    form = paired_form(fam)
    fewer = fields.MOST_LEVELS - max(middle(fam) - 1, form.max_code - middle(fam))
    return fewer, fewer if form.sub == 32 else fields.MOST_LEVELS


def sketch_bits(name: str) -> int:
    """Bits of a code in the sketch of a matrix of block family ``name``; 0 where that has none, since it is not worth
    one or rows end in tails."""
    fam = family(name)
    if tail(name) is not None or second_bytes(fam):
        return 0
    return next((bits for most, bits in SKETCHES if 8 * fam.n_bytes >= most * fam.block), 0)


def sketch_bytes(bits: int) -> int:
    """Of 32 weights of a sketch with codes of ``bits``."""
    return 2 + 4 * bits


def is_coarse(fam: Any) -> bool:
    """Whether a quantized family has few bits a weight."""
    return bool(8 * fam.n_bytes < COARSE_BITS * fam.block)


def loud(fam: Any) -> float:
    """Share of a token's rounding error from which a block of a family gets a second term: see ``fields.LOUD``."""
    return fields.LOUD[0 if is_coarse(fam) else 1 if fam.block > 32 else 2]


def tail(name: str) -> Any:
    """The description of the tails of ragged rows, or None where ``name`` says that they have none."""
    _, m = split(name)
    return type(family(name))(m) if m else None
