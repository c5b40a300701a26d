"""Columns of a plan row and of the shared state, as plain numbers: used by kernels and by the engine.

A row is ``ROW`` int64. Column 0 is the kernel's address, 1 the barrier (``ALWAYS``, ``NEVER``, ``BATCH``: only when
more than one token is processed, ``DEEP`` and ``EARLY``: then, or where the context of one token is more than a
chunk of many or of few KV heads, see ``shapes.chunk``), 2 the address of the state. What follows depends on the
kernel; each kernel's docstring lists its columns.
"""
from __future__ import annotations

ROW = 28
KERNEL, BARRIER, STATE, A = 0, 1, 2, 3   # operands start at column A

NEVER, ALWAYS, BATCH, DEEP, EARLY = 0, 1, 2, 3, 4

# state: int64 values shared by all rows of a plan
N_TOKENS, POSITION, TURN, BEST, FOUND, N_STATE = 0, 1, 2, 3, 4, 8

#: Of one token's logits so many of the largest are asked for (word BEST), at most ``MOST``; 0: all. See ``sieve``.
MOST = 256

TURNS = (1 << 15) - 1  # TURN is below; each job has the next one
SHARE_LINE = 64  # bytes of what ``shares`` knows of a thread's share

#: Words per 32 activations and token. Four floats: scale, scale * sum of all, of the first 16, of the last 16. Then
#: three that depend: where tiles of tokens read them, whole numbers, -128 * sum of all, of the first 16, of the last
#: 16 (where products are first summed in int16, ``Machine.narrow``, see below); of one token with two terms, floats,
#: scale * the same sums of the first term alone.
#: Last, where tiles of tokens read them on ``simd.host.PAIR_MACHINES``, whole numbers, what ``winograd`` adds to the
#: products of all, of the first 16, of the last 16. In mode "w" the scale alone is there.
META = 10
META_STEP = 4 * META  # their bytes
START = 4  # the first of the three that depend
PAIRED = 7  # the first of these words

#: Instead, where products are first summed in int16: two int16 each, -1 * sum of the first term of the first 16 and of
#: the last 16 (``START``); how many times ``UNIT`` the scale is (``TOGETHER``), twice, the same for all tokens of a
#: tile; and as many times the sums; then a float, what the scales of all of them are multiples of.
TIMES, TIMES_SUMS, UNIT = 5, 6, 7
SCALES = 4  # the first four alone

#: Operands of a row that are float rows (the kernels' docstrings list them; the next operand is the bytes from one to
#: the next): those that it reads, those that it writes.
READS = {"norm": (8, 12), "gate": (8, 10), "copy": (8,), "rope": (0, 3, 6)}
WRITES = {"embed": (6,), "norm": (15,), "matmul": (9,), "attention": (7,), "combine": (2,)}

#: The operand of rows that write activations, two floats: levels on each side of zero of a tile's first term, in the
#: columns that ``winograd`` pairs wherever it has pairs, the first and the third eight of 32, and in those that it
#: pairs where sub-blocks have 32 columns, the second eight. In the last eight they are ``MOST_LEVELS``.
LEVELS = ROW - A - 1
MOST_LEVELS = 127
NARROW = 32767 // (2 * MOST_LEVELS)  # what codes of sums of int16 may add up to, two products a lane

#: The operand before: the scales of so many times 32 columns of a token are whole multiples, up to ``MOST_TIMES``, of
#: one: ``ALIKE``, or 1 where they are what they are (``narrow.group``). Magnitudes of codes then add up to at most
#: ``MOST_SUM`` in the first and in the last 16 of 32 columns: times 32 that is an int16. What is above the others of
#: four columns apart is not counted, and what it leaves as ``activation_apart.APART_SUM``.
TOGETHER = LEVELS - 1
ALIKE = 8
MOST_TIMES = 32
MOST_SUM = 1023

#: Bytes of the tables of one token's 128 columns: see ``sign_tables``.
TABLES = 576

#: Bytes of the table of one token's 256 columns: see ``sum_tables``, and ``digit_tables``.
SUMS, DIGITS = 64, 1408

#: Bytes of 32 columns of one token as whole numbers of 16 bits: see ``wide``.
WIDE = 64

#: Modes of one token (``matmul``) that read tables of its activations: the kernel that writes these, columns of a
#: table, and its bytes.
TABLED = {
    "1s": ("sums", 256, SUMS),
    "1t": ("tables", 128, TABLES),
    "1d": ("digits", 256, DIGITS),
    "2w": ("wide", 32, WIDE),
}

#: Modes of one token in which a second term of activations counts in some blocks: see ``matmul``.
MIXED = ("1+", "1s", "1t", "1d")

#: Those whose tables are large: rows lie in slices of so many columns that their tables stay in a first level of cache.
SLICED = ("1t", "1d")

#: Share of a token's rounding error, the sum of its squared scales, from which a block gets a second term in mode "1+":
#: of types with few bits a weight; of others, where a block is a super-block, and where it is 32 weights.
#:
#: AVX2, mean KL of decode to float activations (SmolLM2 in Q4_1, gemma in Q4_K_M), and tokens of a 1.07 B Q6_K model
#: beside two terms everywhere: 0.1 for all 0.00065, 0.00042 and 1.22 times; 0.05 0.00049, 0.00027 and 1.22; 0.035
#: 0.00037, 0.00022 and 1.20; 0.02 0.00027, 0.00015 and 1.11, SmolLM2 1.09 with any of them. llama.cpp's KL: 0.0034 and
#: 0.0055.
LOUD = (0.1, 0.035, 0.02)

#: Share of the rounding error of a tile of tokens, the sum of the squared scales, that is to be saved in 32 columns by
#: setting four of them apart in mode "1+".
APART = 0.03

#: Bits by which the upper halves of their codes stand higher: see ``activation_apart``.
HIGH_BITS = 7


LISTS = 12 * MOST  # bytes of a thread's three lists of the largest beside a sketch
AIM = 4  # float32 that a sketch takes of 32 activations: ``sketch.Aims``


def before_pieces(n32: int) -> int:
    """Bytes of a thread's lists, aims and second terms of ``n32`` times 32 columns beside a sketch; what ``shares``
    gave it comes behind."""
    return LISTS + (4 * AIM + 32) * ((n32 + 1) // 2 * 2)


def word_stride(n32: int) -> int:
    """Bytes of a word of one token's meta of ``n32`` times 32 columns: whole lines and one more, so that words never
    lie at the same place of their pages."""
    return (n32 + 15) // 16 * 64 + 64
