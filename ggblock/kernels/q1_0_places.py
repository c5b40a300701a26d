"""Q1_0 as machines multiply it that look bytes up in tables of 16 (``sign_tables``): the engine packs bytes of 16 rows
place by place instead of row by row, so that they need not be brought together for that. Blocks have the same bytes.
GB/s of one core of Zen 4, weights in L2, a scale for 128 columns: AVX2 and AVX-VNNI 19.2 and 25.6, AVX-512 without VBMI
24.5 and 26.3; with one for 64, as tables have it now, 23.1 and 22.7.
"""
from .q1_0 import Q1_0


class InPlaces(Q1_0):
    place_rows = range(16)

    def places_of_bytes(self, e, p, s):
        return e.load(p, 16 * (2 + 4 * s), "i8x64")

    def signs(self, e, p, s):
        return e.rows_of_places(self.places_of_bytes(e, p, s))


FAMILY = InPlaces()
