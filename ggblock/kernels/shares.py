"""Sharing out a row's items among threads that are not equally fast: no two cores get the same from the memory.

Every thread has a share and takes pieces of it from the front. One that is done takes pieces from the backs of the
others' shares. So each reads forward, as the memory likes it, and at the end all wait for one piece at most::

    piece = START
    while True:
        piece = take(piece, shares, thread, n_threads, n, size, most, turn)
        if piece < 0:
            break
        for item in range(first_of(piece), end_of(piece)):

What is left of a share is one int64, on a line of its own: from the top the turn it is of, the first item that is left,
and the one after the last. ``team.post`` counts turns, one a job, in the states of a plan; a word of another turn is a
whole share, so nobody resets words. A row is run once a turn.
"""
from __future__ import annotations

import numpy as np

from ..simd.jit import inline
from ..simd.vec import atomic_load, atomic_swap, store
from .args import larger, smaller
from .fields import SHARE_LINE

BITS = 24  # of an item's number
MASK = (1 << BITS) - 1
NOTHING, START = np.int64(-1), np.int64(-2)


@inline
def first_of(piece):
    """The first item of a piece."""
    return piece >> BITS


@inline
def end_of(piece):
    """The item after its last."""
    return piece & MASK


@inline
def take(before, shares, thread, n_threads, n, size, most, turn):
    """The piece of ``thread`` after ``before``: of ``n`` items (fewer than 2**24) a quarter of what is left of a share,
    but ``size`` at least and ``most`` at most; negative when nothing is left. With size 0 all of its own share, which
    nobody else takes from.

    Few pieces: taking one waits for every load that is under way. ``size`` is best read anew for each piece: where LLVM
    sees that it stays the same, it compiles the caller's loop twice.
    """
    if size == 0:
        if before != START:
            return NOTHING
        # turns come round: a word that was left alone must not look like one of this turn again
        store(shares + SHARE_LINE * thread, NOTHING)
        return ((n * thread // n_threads) << BITS) + n * (thread + 1) // n_threads
    mark = (turn + 1) << (2 * BITS)  # never that of a word which nobody wrote
    passed = 0  # shares in which nothing is left
    while passed < n_threads:
        owner = thread + passed if thread + passed < n_threads else thread + passed - n_threads
        at = shares + SHARE_LINE * owner
        word = atomic_load(at)
        if word & -(1 << (2 * BITS)) == mark:
            first, end = (word >> BITS) & MASK, word & MASK
        else:
            first, end = n * owner // n_threads, n * (owner + 1) // n_threads
        if first >= end:
            passed += 1
            continue
        count = smaller(end - first, smaller(most, larger(size, (end - first) >> 2)))
        if owner == thread:
            cut = first + count
            left, piece = (cut << BITS) + end, (first << BITS) + cut
        else:
            cut = end - count
            left, piece = (first << BITS) + cut, (cut << BITS) + end
        if atomic_swap(at, word, mark + left) == word:  # else another was faster: look again
            return piece
    return NOTHING
