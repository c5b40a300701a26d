"""IQ1, IQ2 and IQ3 as they are multiplied: a number for each weight, of a level out of the type's few.

These types name patterns of four or eight weights, which would have to be looked up one after the other. So the engine
writes their rows anew when a file is loaded (``rewrite_levels``), and nothing is rounded. A block of 256 weights:

- its half; then for each sub-block four bits ``n``, two in a byte, the first below: its scale is ``2 n + 1`` times the
  half times the type's ``factor``;
- the numbers of 32 columns after those of the 32 before. Of column ``4 k + i`` of them, ``k`` from 0 to 7: four bits
  are byte ``4 (k % 4) + i``, from bit ``4 (k // 4)`` on. Three bits are byte ``4 (k // 2) + i``, from bit
  ``3 (k % 2)`` on; but of ``k`` = 6 and 7 the lower two are bits 6 and 7 of bytes ``i`` and ``8 + i``, and the third is
  bit 6 or 7 of byte ``4 + i``.

That is 4.2 bits a weight for IQ3, 3.2 or 3.3 for the others; as signed bytes with a scale, as it was before, 9 or 10.
Levels of IQ1 and IQ3_S are raised by ``zero`` to be unsigned bytes below 32, which every machine multiplies fastest;
those of the others, up to 43 and 62, are signed, as they would leave activations too few levels in pairs (``winograd``)
and sums too few products in int16 (``narrow``).
"""
from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np
import numpy.typing as npt

from ..blocks import codebooks
from .families import Family
from .iq4_nl import Levels, raised

SIGNS = 256     # entries of the first of ``tables``


class Patterns(Levels, Family):
    """``levels`` by number; ``book`` has the patterns of their first half. What makes numbers of eight weights ones of
    the second half: a sign bit for each; ``parity``: seven, of which the eighth follows; ``by_eight``: one for all."""

    block = 256
    max_scale = 31

    def __init__(
        self, book: codebooks.Codebook, levels: Sequence[int], zero: int, sub: int, factor: float,
        parity: bool = False, by_eight: bool = False,
    ) -> None:  # fmt: skip
        self.book, self.parity, self.by_eight = book, parity, by_eight
        self.bits = len(levels).bit_length() - 1
        self.levels = tuple(level + zero for level in levels) * (16 // len(levels))
        self.raised = raised(self.levels)
        self.signed, self.max_code = not zero, max(self.levels)
        self.zero, self.sub, self.factor = float(zero), sub, factor
        self.first = 2 + 256 // sub // 2    # byte at which numbers begin
        self.n_bytes = self.first + 32 * self.bits

    @property
    def units(self) -> tuple[tuple[int, int, int], ...]:
        """As ``format.panels`` has them of types."""
        return (0, 2, 2), (2, self.first - 2, 1), (self.first, self.n_bytes - self.first, 4)

    def whole(self, e, d):
        return e.b.fmul(d, e.const("f32x16", self.factor)) if self.factor != 1 else d, None

    def parts(self, e, p, d, s):
        wide = e.zero("i32x16").type
        n = e.and_(e.lshr(e.b.zext(e.load(p, 16 * (2 + s // 2), "i8x16"), wide), 4 * (s % 2)), 15)
        return e.b.add(e.shl(n, 1), e.const("i32x16", 1)), None

    def line(self, s, k):
        return s * self.sub // 32, k % 4 if self.bits == 4 else 0

    def index(self, e, p, s, k):
        k += s * self.sub % 32 // 4     # of the 32 columns
        at = 16 * (self.first + 4 * self.bits * (s * self.sub // 32))
        if self.bits == 4:
            return e.bytes_lshr(e.load(p, at + 64 * (k % 4), "i8x64"), 4 * (k // 4), 15)
        if k < 6:
            return e.bytes_lshr(e.load(p, at + 64 * (k // 2), "i8x64"), 3 * (k % 2), 7)
        low = e.bytes_lshr(e.load(p, at + 128 * (k - 6), "i8x64"), 6, 3)
        return e.b.or_(low, e.bytes_lshr(e.load(p, at + 64, "i8x64"), k - 2, 4))


def signed(magnitudes: Sequence[int]) -> list[int]:
    """Levels by number: magnitudes, then the same of negative weights."""
    return [*magnitudes, *(-m for m in magnitudes)]


def shifted(digits: Sequence[int]) -> list[int]:
    """Levels by number, in eighths: three digits an eighth higher, then an eighth lower."""
    return [8 * digit + shift for shift in (1, -1) for digit in (*digits, 0)]


@cache
def tables(fam: Patterns) -> npt.NDArray[np.uint8]:
    """What ``rewrite_levels`` reads of a type, one after the other: for ``SIGNS`` bytes of signs eight bytes each, what
    they add to the numbers of eight weights; for each pattern the numbers of its four or eight weights."""
    bits = np.arange(SIGNS, dtype=np.uint8)
    if fam.by_eight:
        added = np.repeat(bits[:, None] & np.uint8(1), 8, axis=1)
    else:
        bits = codebooks.parity_signs(bits & np.uint8(127)) if fam.parity else bits
        added = np.unpackbits(bits[:, None], axis=1, bitorder="little")
    numbers = np.searchsorted(np.array(fam.book.values), fam.book.grid).astype(np.uint8)
    return np.concatenate([(added * np.uint8(1 << fam.bits - 1)).reshape(-1), numbers.reshape(-1)])
