"""Items shared out among threads: each is done once, whoever is slow."""

from __future__ import annotations

import threading
from itertools import pairwise

import numpy as np
import pytest

from ggblock.kernels import fields, shares
from ggblock.kernels.args import arg
from ggblock.simd.vec import atomic_add, pause, store

from .adhoc import compiled

START, take, first_of, end_of = shares.START, shares.take, shares.first_of, shares.end_of
LINE = fields.SHARE_LINE // 8
SLOW = 20  # looks that thread 1 wastes on each item


def walk(op, thread, n_threads):  # type: ignore[no-untyped-def]
    """Counts how often each item is done, and writes down who took which pieces."""
    piece, n_taken = START, 0
    while True:
        piece = take(piece, arg(op, 0), thread, n_threads, arg(op, 1), arg(op, 2), arg(op, 3), arg(op, 4))
        if piece < 0:
            break
        store(arg(op, 6) + 8 * (arg(op, 7) * thread + n_taken), piece)
        n_taken += 1
        for item in range(first_of(piece), end_of(piece)):
            atomic_add(arg(op, 5) + 8 * item, 1)
            for _ in range(SLOW * (thread == 1)):
                pause()


class Table:
    """``n`` items for ``n_threads`` threads."""

    run = staticmethod(compiled(walk))

    def __init__(self, n: int, n_threads: int) -> None:
        self.n, self.n_threads, self.done = n, n_threads, np.zeros(n + 1, np.int64)
        raw = np.zeros((n_threads + 1) * LINE, np.int64)
        self.words = raw[-raw.ctypes.data // 8 % LINE :]
        self.taken = np.full((n_threads, n + 1), -1, np.int64)

    def row(self, size: int, most: int, turn: int) -> np.ndarray:
        self.taken[:] = -1
        row = np.zeros(fields.ROW, np.int64)
        at = [a.ctypes.data for a in (self.words, self.done, self.taken)]
        row[fields.A :][:8] = at[0], self.n, size, most, turn, at[1], at[2], self.n + 1
        return row

    def together(self, size: int, most: int, turn: int) -> None:
        row = self.row(size, most, turn)
        threads = [threading.Thread(target=self.run, args=(row, i, self.n_threads)) for i in range(self.n_threads)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def pieces(self, thread: int) -> list[tuple[int, int]]:
        taken = self.taken[thread]
        return [(int(p) >> shares.BITS, int(p) & shares.MASK) for p in taken[taken >= 0]]


@pytest.mark.parametrize("n_threads", [1, 2, 3, 5])
@pytest.mark.parametrize("n", [0, 1, 4, 100, 3001])
def test_every_item_once_in_every_turn(n: int, n_threads: int) -> None:
    table = Table(n, n_threads)
    turns = [0, 1, 2, fields.TURNS - 1, 0, 5]  # with nothing reset in between, and turns that come round
    for i, (turn, size) in enumerate(zip(turns, [1, 7, 0, 1, 3, n + 1], strict=True)):
        table.together(size, most=n if i % 2 else max(size, 1), turn=turn)
        assert np.all(table.done[:n] == i + 1), (turn, size)
    assert table.done[n] == 0


def test_who_comes_late_finds_what_is_left_at_the_back() -> None:
    """Thread 0 reads its own share forward in pieces that get smaller, then the other's from its end."""
    table = Table(1000, 2)
    table.run(table.row(size=8, most=1000, turn=3), 0, 2)
    pieces = table.pieces(0)
    assert np.all(table.done[:1000] == 1)
    own = [p for p in pieces if p[1] <= 500]
    assert pieces[: len(own)] == own and own[0] == (0, 125) and own[-1][1] == 500
    assert all(a[1] == b[0] for a, b in pairwise(own))
    others = pieces[len(own) :]
    assert others[0] == (875, 1000) and others[-1][0] == 500
    assert all(a[0] == b[1] for a, b in pairwise(others))
    assert min(b - a for a, b in pieces[:-1] if b != 500) >= 8
    table.run(table.row(size=8, most=1000, turn=3), 1, 2)  # of the same turn: nothing is left
    assert not table.pieces(1) and np.all(table.done[:1000] == 1)


def test_a_share_that_is_not_divided() -> None:
    table = Table(10, 3)
    for turn in (4, 4):  # the same number again, as after many turns: the words must not say that all is done
        table.together(1, 1, turn)
        for thread in range(3):
            table.run(table.row(0, 0, turn + 1), thread, 3)
            assert table.pieces(thread) == [(10 * thread // 3, 10 * (thread + 1) // 3)]
    assert np.all(table.done[:10] == 4)
