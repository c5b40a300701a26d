"""Sizes that kernels and the engine must agree on; no Numba here."""
from __future__ import annotations

KEYS = 64          # keys of a block of attention when many tokens are processed
CHUNK = 256        # positions of a chunk when one token is decoded
FINE_CHUNK, FINE_DEPTH, FINE_HEADS = 64, 512, 8  # chunks of fewer up to this depth where KV heads are fewer: see chunk
MICRO_ROWS = 8     # query rows of a micro-tile when many tokens are processed, at most
FEWER_ROWS = 6     # where a vector takes two of 16 registers: 12 sums hide the adder's four cycles, 8 do not

GROUP = 64         # dimensions with a scale in a cache of 12 bits

UNIT_CODES = 512   # bytes of the codes of a unit, 32 columns of 16 rows taken apart: see ``unpacked``


def weight_bytes(keys: int) -> int:
    """Of a row of softmax weights as codes (``attention_q8_0``): two bytes a key, a float32, and room to stay aligned.
    """
    return 2 * keys + 64


def score_bytes(keys: int) -> int:
    """Scratch for the scores and the weights' codes of ``MICRO_ROWS`` rows and a block of ``keys`` keys."""
    return MICRO_ROWS * (4 * keys + weight_bytes(keys))


def run(cache: str) -> int:
    """Positions whose keys lie together in the cache, before their values: the keys of a block of attention when one
    token is decoded."""
    return CHUNK if cache in ("q8_0", "q12") else KEYS


def place(position: int, run: int) -> int:
    """Where the keys of ``position`` lie from those of position 0 on, and its values from the first values on, in bytes
    of a position: runs of keys and of values by turns."""
    return position + position // run * run


def panel_bytes(size: int, cache: str) -> int:
    """Bytes of 16 positions of one KV head in the key cache, and in the value cache, of "q12" in the first plane. A
    multiple of 16."""
    if cache == "q8_0":
        return 16 * padded(size) + 2 * 16 * -(-padded(size) // 32)
    if cache == "q12":
        return first_panel(padded(size))
    return 16 * padded(size) * {"f16": 2, "f32": 4}[cache]


def groups_of(size: int) -> int:
    """Groups of dimensions of a head, which have a scale each in a cache of 12 bits."""
    return (size + GROUP - 1) // GROUP


def second_bytes(size: int, cache: str) -> int:
    """Bytes of 16 positions of one KV head in the second plane of keys, and of values."""
    return second_panel(padded(size)) if cache == "q12" else 0


def first_panel(size: int) -> int:
    """Bytes of a panel of the first plane of a cache of 12 bits, with heads of ``size``, a multiple of 16."""
    return 16 * size + 32 * ((size + GROUP - 1) // GROUP)


def second_panel(size: int) -> int:
    """Bytes of a panel of the second plane."""
    return (size + 31) // 32 * 256


def second_plane(head_bytes: int, panel: int, second: int) -> int:
    """Where the second plane lies in the ``head_bytes`` of a KV head, with panels of so many bytes in both planes."""
    return head_bytes // (panel + second) * panel


def padded(size: int) -> int:
    """A head's size in the cache and in scratch: rounded up to 16."""
    return -(-size // 16) * 16


def tile_tokens(group: int, size: int, micro: int = MICRO_ROWS) -> int:
    """Query tokens of an item of attention: about 48 rows, more where heads are large and so the blocks that are made
    ready for each item, always whole micro-tiles of ``micro`` rows."""
    rows = 48 if padded(size) <= 128 else 64
    tokens = max(1, rows // group)
    while tokens * group % micro:
        tokens += 1
    return tokens


def pair_bytes(size: int) -> int:
    """Scratch for the keys of a block in pairs of 16 bits, as much again for its values: see ``attention_words``."""
    return KEYS * padded(size) * 2


def scratch_bytes(group: int, size: int) -> int:
    """Bytes of scratch that a thread of attention needs."""
    many = max(tile_tokens(group, size, micro) * group for micro in (MICRO_ROWS, FEWER_ROWS))
    per_row, one = 2 * 4 * padded(size) + 6 * 4, MICRO_ROWS     # q and o, words: two a row and two of eight for six
    pairs = 4 * pair_bytes(size) + 4 * (KEYS + padded(size))    # keys and values, as floats at most, and their steps
    most = max(many * per_row + score_bytes(KEYS) + pairs, one * per_row + score_bytes(CHUNK))
    return -(-(most + 1024) // 4096) * 4096


def chunk(kv_heads: int, position: int) -> int:
    """Positions of a chunk of the context of the token at ``position``.

    Few KV heads do not share evenly: of gemma's one and SmolLM2's three, two threads had nothing and a third of the
    work to wait for, 2 to 3 % of a token.
    """
    return FINE_CHUNK if kv_heads < FINE_HEADS and position < FINE_DEPTH else CHUNK


def n_chunks(n_ctx: int) -> int:
    """Chunks that a context may touch."""
    return max(-(-n_ctx // CHUNK), min(n_ctx, FINE_DEPTH) // FINE_CHUNK) + 1


def n_tops(n_ctx: int) -> int:
    """Panels of 16 positions of which attention keeps the largest score, by head: whole chunks."""
    return -(-n_ctx // CHUNK) * CHUNK // 16


def part_floats(group: int, size: int) -> int:
    """Floats of one partial result: for each head of the group the values, the maximum and the sum, padded to 16."""
    return group * (padded(size) + 16)
