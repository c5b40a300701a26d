"""Calls on a thread of their own: their order, what a fault does, and what is never begun."""
from __future__ import annotations

import threading
import time

import pytest

from ggblock.convert.behind import Behind


def test_calls_are_made_in_order_elsewhere() -> None:
    seen: list[tuple[int, int]] = []
    with Behind() as behind:
        for i in range(20):
            behind.put(lambda i=i: seen.append((i, threading.get_ident())))  # type: ignore[misc]
        behind.drain()
        assert [i for i, _ in seen] == list(range(20))
    assert {thread for _, thread in seen} != {threading.get_ident()} and len({thread for _, thread in seen}) == 1


def test_no_more_than_the_room_waits() -> None:
    gate, done = threading.Event(), threading.Event()
    with Behind(room=1) as behind:
        behind.put(gate.wait)
        behind.put(lambda: None)
        late = threading.Thread(target=lambda: (behind.put(lambda: None), done.set()))
        late.start()
        assert not done.wait(0.05)
        gate.set()
        assert done.wait(5)
        late.join()


def test_a_fault_ends_the_work_and_comes_back() -> None:
    made = []

    def fail() -> None:
        raise OSError("full")

    with pytest.raises(OSError, match="full"), Behind() as behind:
        behind.put(fail)
        for _ in range(100):
            behind.put(lambda: made.append(1))
            time.sleep(0.001)
    assert made == []
    with pytest.raises(OSError, match="full"), Behind() as behind:
        behind.put(fail)          # the last one: the end of the block tells it


def test_after_an_exception_nothing_more_is_begun() -> None:
    gate, made = threading.Event(), []
    with pytest.raises(KeyboardInterrupt), Behind() as behind:
        behind.put(gate.wait)
        behind.put(lambda: made.append(1))
        threading.Timer(0.05, gate.set).start()
        raise KeyboardInterrupt
    assert made == [] and not behind._thread.is_alive()
