"""IQ1, IQ2 and IQ3 as they are multiplied: a number for each weight, of a level out of the type's few.

These types name patterns of four or eight weights, which would have to be looked up one after the other. So the engine
writes their rows anew when a file is loaded (``rewrite_levels``), and nothing is rounded. A block of 256 weights:

- its half; then for each sub-block four bits ``n``, two in a byte, the first below: its scale is ``2 n + 1`` times the
  half times the type's ``factor``;
- the numbers of 32 columns after those of the 32 before. Of column ``4 k + i`` of them, ``k`` from 0 to 7: four bits
  are byte ``4 (k % 4) + i``, from bit ``4 (k // 4)`` on. Of three bits the lower two are byte ``4 (k % 2) + i``, from
  bit ``2 (k // 2)`` on, and the third is bit ``k // 2 + 4 (k % 2)`` of byte ``8 + i``.

That is 4.2 bits a weight for IQ3, 3.2 or 3.3 for the others; as signed bytes with a scale, as it was before, 9 or 10.
Levels of IQ1 and IQ3_S are raised by ``zero`` to be unsigned bytes below 32, which every machine multiplies fastest;
those of the others, up to 43 and 62, are signed, as they would leave activations too few levels in pairs (``winograd``)
and sums too few products in int16 (``narrow``).
"""
from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from ..blocks import codebooks
from .families import Family


class Levels(Family):
    block = 256
    max_scale = 31

    def __init__(self, levels: Sequence[int], zero: int, sub: int, factor: float) -> None:
        self.bits = len(levels).bit_length() - 1
        self.table = [level + zero for level in levels] * (16 // len(levels))
        self.raised = [(level + 256) % 256 - 128 for level in self.table]   # 128 more, in the same bits
        self.signed, self.max_code = not zero, max(self.table)
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
        return s * self.sub // 32, (k + s * self.sub % 32 // 4) % (1 << self.bits - 2)

    def codes(self, e, p, s, k):
        return e.lookup16(self.table, self.number(e, p, s, k))

    def raised_codes(self, e, p, s, k):
        return e.lookup16(self.raised, self.number(e, p, s, k))

    def number(self, e, p, s, k):
        k += s * self.sub % 32 // 4     # of the 32 columns
        at = 16 * (self.first + 4 * self.bits * (s * self.sub // 32))
        if self.bits == 4:
            return e.bytes_lshr(e.load(p, at + 64 * (k % 4), "i8x64"), 4 * (k // 4), 15)
        low = e.bytes_lshr(e.load(p, at + 64 * (k % 2), "i8x64"), 2 * (k // 2), 3)
        third, bit = e.load(p, at + 128, "i8x64"), k // 2 + 4 * (k % 2)
        third = e.bytes_lshr(third, bit - 2, 4) if bit >= 2 else e.and_(e.bytes_shl(third, 2 - bit), 4)
        return e.b.or_(low, third)


def signed(magnitudes: Sequence[int]) -> list[int]:
    """Levels by number: magnitudes, then the same of negative weights."""
    return [*magnitudes, *(-m for m in magnitudes)]


_OF_IQ2 = signed((*codebooks.IQ2_XXS.values, 0))
_OF_IQ1 = [8 * digit + shift for shift in (1, -1) for digit in (*codebooks.IQ1.values, 0)]  # in eighths

#: By block type. IQ3_S has all odd numbers from -15 to 15.
FAMILIES = {
    "iq3_s": Levels(signed(codebooks.IQ3_S.values), 16, 32, 1.0),
    "iq3_xxs": Levels(signed(codebooks.IQ3_XXS.values), 0, 32, 0.25),
    "iq2_s": Levels(_OF_IQ2, 0, 16, 0.125),
    "iq2_xs": Levels(_OF_IQ2, 0, 16, 0.125),
    "iq2_xxs": Levels(_OF_IQ2, 0, 32, 0.125),
    "iq1_s": Levels(_OF_IQ1, 16, 32, 0.125),
    "iq1_m": Levels(_OF_IQ1, 16, 16, 0.125),
}

SIGNS = 256     # entries of the first of ``tables``

_CODEBOOKS = {
    "iq3_s": codebooks.IQ3_S, "iq3_xxs": codebooks.IQ3_XXS, "iq2_s": codebooks.IQ2_S, "iq2_xs": codebooks.IQ2_XS,
    "iq2_xxs": codebooks.IQ2_XXS, "iq1_s": codebooks.IQ1, "iq1_m": codebooks.IQ1,
}


def tables(name: str) -> npt.NDArray[np.uint8]:
    """What ``rewrite_levels`` reads of a type, one after the other: for ``SIGNS`` bytes of signs eight bytes each, what
    they add to the numbers of eight weights; for each pattern the numbers of its four or eight weights."""
    book, negative = _CODEBOOKS[name], 1 << FAMILIES[name].bits - 1
    bits = np.arange(SIGNS, dtype=np.uint8)
    if name in ("iq1_s", "iq1_m"):  # one bit for eight weights
        added = np.repeat(bits[:, None] & np.uint8(1), 8, axis=1)
    else:
        if name in ("iq3_xxs", "iq2_xxs", "iq2_xs"):  # seven bits for eight weights
            bits = codebooks.parity_signs(bits & np.uint8(127))
        added = np.unpackbits(bits[:, None], axis=1, bitorder="little")
    numbers = np.searchsorted(np.array(book.values), book.grid).astype(np.uint8)
    return np.concatenate([(added * np.uint8(negative)).reshape(-1), numbers.reshape(-1)])
