"""The thread team: any number of threads, a busy machine, idleness, forks and the end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from ggblock.engine.store import default_threads
from ggblock.engine.team import MAX_THREADS, Team
from ggblock.errors import SettingError
from ggblock.kernels import fields

from .chain import Chain


@pytest.mark.parametrize("piece_bytes", [1 << 15, 64], ids=["own shares", "from each other"])
def test_same_results_with_any_number_of_threads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, piece_bytes: int
) -> None:
    """Also where one token's products are taken panel by panel from other threads' shares."""
    monkeypatch.setattr("ggblock.engine.plan.PIECE_BYTES", piece_bytes)
    expected = None
    for n_threads in (1, 2, 3, 4):
        team = Team(n_threads)
        chain = Chain(tmp_path, team)
        sizes = set(chain.plan.rows[1::2, fields.A + 20].tolist())  # of the products, each after its norm
        assert sizes == {int(piece_bytes == 64 and n_threads > 1)}  # panels a piece
        results = [chain.run(n, seed) for seed in range(40) for n in (1, 9)]
        expected = expected or results
        assert all(np.array_equal(a, b) for a, b in zip(results, expected, strict=True)), n_threads
        assert np.isfinite(results[0]).all() and results[0].any()
        team.close()


def test_without_pthreads_threads_yield_and_park(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on Windows."""
    asleep = Team(3)
    expected = Chain(tmp_path, asleep).run(1)
    asleep.close()
    monkeypatch.setattr("ggblock.engine.team._pthreads", lambda words: words[:0])
    before = set(threading.enumerate())
    team = Team(3)
    chain = Chain(tmp_path, team)
    for _ in range(5):
        assert np.array_equal(chain.run(1), expected)
        time.sleep(0.05)
    team.close()
    assert set(threading.enumerate()) == before


@pytest.fixture
def busy_machine() -> Iterator[None]:
    """Two spinning processes for each processor."""
    spinning = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(2 * default_threads())]
    try:
        yield
    finally:
        for process in spinning:
            process.kill()
            process.wait()


def test_busy_machine(busy_machine: None, tmp_path: Path) -> None:
    """Twice as many threads as processors beside twice as many spinning processes: 100 plans of 12 barriers finish.

    A barrier that only spins needs a scheduler's turn (some milliseconds) for each thread that is not running: minutes.
    """
    team = Team(2 * default_threads())
    chain = Chain(tmp_path, team)
    expected = chain.run(1)
    start = time.monotonic()
    for _ in range(100):
        assert np.array_equal(chain.run(1), expected)
    assert time.monotonic() - start < 60
    team.close()


def test_idle_threads_cost_nothing_and_wake_up(tmp_path: Path) -> None:
    team = Team(3)
    chain = Chain(tmp_path, team)
    expected = chain.run(1)
    deadline = time.monotonic() + 60
    while True:  # they spin for a moment first; on a busy machine the moment is longer
        before = time.process_time()
        time.sleep(0.25)
        spent = time.process_time() - before
        if spent < 0.05:
            break
        assert time.monotonic() < deadline, f"idle threads used {spent:.2f} s in 0.25 s"
    for _ in range(5):
        assert np.array_equal(chain.run(1), expected)
        time.sleep(0.05)
    team.close()


def exit_code_of_child(chain: Chain, expected: np.ndarray) -> int:
    """Forks; the child runs the plan and is killed by an alarm if that does not end."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.alarm(60)
            code = 0 if all(np.array_equal(chain.run(1, 5), expected) for _ in range(3)) else 2
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_forked_children(tmp_path: Path) -> None:
    """A child has no threads of its parent's; it makes its own, also when it was forked while the parent's plan ran."""
    if sys.platform == "win32":  # there are no forks there
        return
    team = Team(2)
    chain = Chain(tmp_path, team)
    expected = chain.run(1, 5)
    assert exit_code_of_child(chain, expected) == 0
    assert np.array_equal(chain.run(1, 5), expected), "the parent's threads go on"
    other = Chain(tmp_path, team, length=200)
    stop = threading.Event()

    def keep_running() -> None:
        while not stop.is_set():
            other.run(16)

    thread = threading.Thread(target=keep_running)
    thread.start()
    try:
        codes = [exit_code_of_child(chain, expected) for _ in range(6)]
    finally:
        stop.set()
        thread.join()
    assert codes == [0] * 6
    team.close()


def test_two_callers_take_turns(tmp_path: Path) -> None:
    team = Team(2)
    chains = [Chain(tmp_path, team), Chain(tmp_path, team, length=5)]
    expected = [chain.run(1, 3) for chain in chains]
    wrong: list[int] = []

    def call(i: int) -> None:
        for _ in range(60):
            if not np.array_equal(chains[i].run(1, 3), expected[i]):
                wrong.append(i)

    threads = [threading.Thread(target=call, args=(i,)) for i in range(2)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert wrong == []
    team.close()


def test_close_ends_the_threads(tmp_path: Path) -> None:
    before = set(threading.enumerate())
    team = Team(4)
    assert set(threading.enumerate()) == before, "threads start with the first plan"
    Chain(tmp_path, team).run(1)
    mine = set(threading.enumerate()) - before
    assert len(mine) == 3
    team.close()
    assert not any(t.is_alive() for t in mine)
    parked = Team(2)
    Chain(tmp_path, parked).run(1)
    time.sleep(0.3)
    parked.close()
    assert set(threading.enumerate()) == before


@pytest.mark.parametrize("n_threads", [0, -1, MAX_THREADS + 1])
def test_number_out_of_range(n_threads: int) -> None:
    with pytest.raises(SettingError, match="threads"):
        Team(n_threads)
