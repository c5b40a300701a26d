"""Lists of the largest values of a thread, and of all threads: what ``sieve`` and ``sketch`` look for rows with.

A list is ``k`` float32 in falling order, at first all minus infinity.
"""

from __future__ import annotations

import numpy as np

from ..simd.jit import inline
from ..simd.vec import lane_at, load, store


@inline
def clear(at, k):
    """An empty list of ``k`` at ``at``."""
    for i in range(k):
        store(at + 4 * i, np.float32(-np.inf))


@inline
def keep(at, k, value):
    """Puts ``value``, larger than the last of the ``k`` float32 at ``at``, which are in falling order, among them."""
    i = k - 1
    while i > 0:
        before = load(at + 4 * (i - 1), "f32")
        if not before < value:
            break
        store(at + 4 * i, before)
        i -= 1
    store(at + 4 * i, value)


@inline
def keep_rows(at, k, values, panel, n_rows):
    """Those of a panel's ``values`` that are among the ``k`` largest, at ``at``; not of rows that are none."""
    for lane in range(16):
        value = lane_at(values, lane)
        if value > load(at + 4 * k - 4, "f32") and 16 * panel + lane < n_rows:
            keep(at, k, value)


@inline
def least_of(lists, size, k, to, n_threads):
    """The last of the ``k`` largest of all threads' lists, which are ``size`` bytes apart; ``to``: room for a list."""
    for i in range(k):
        store(to + 4 * i, load(lists + 4 * i, "f32"))
    for other in range(1, n_threads):
        for i in range(k):
            value = load(lists + other * size + 4 * i, "f32")
            if not value > load(to + 4 * k - 4, "f32"):
                break
            keep(to, k, value)
    return load(to + 4 * k - 4, "f32")
