"""The thread team: Python threads that run plans in code that holds no interpreter lock.

A thread that waits first spins, then sleeps, so an idle model costs nothing and a busy machine is shared fairly
(``kernels.team``). There is no OpenMP and nothing that a fork could break: after a fork a new team is made.
"""

from __future__ import annotations

import ctypes
import os
import threading

import numpy as np

from ..errors import SettingError
from ..kernels import sync
from .memory import address, buffer
from .store import kernels

MAX_THREADS = 256

_FUNCTIONS = {
    sync.LOCK: "pthread_mutex_lock",
    sync.UNLOCK: "pthread_mutex_unlock",
    sync.SLEEP: "pthread_cond_wait",
    sync.WAKE: "pthread_cond_broadcast",
}
_PTHREAD_BYTES = 128  # room for a mutex or a condition variable on any system (64 bytes at most where we looked)

_CALL = ctypes.CFUNCTYPE(None, ctypes.c_int64, ctypes.c_int64, ctypes.c_int64)


def _yield_address() -> int:
    """A C function of no arguments that gives up the processor."""
    if os.name == "nt":
        f = ctypes.windll.kernel32.SwitchToThread  # type: ignore[attr-defined]
    else:
        f = ctypes.CDLL(None).sched_yield
    return ctypes.cast(f, ctypes.c_void_p).value or 0


def _pthreads(words: np.ndarray) -> np.ndarray:
    """Puts the addresses of a mutex, a condition variable and their functions into ``words``, where the system has
    them; returns the memory they live in.
    """
    memory = buffer(2 * _PTHREAD_BYTES)
    if os.name != "posix":
        return memory
    library = ctypes.CDLL(None)
    mutex, condition = address(memory), address(memory) + _PTHREAD_BYTES
    try:
        functions = {
            word: ctypes.cast(getattr(library, name), ctypes.c_void_p).value or 0 for word, name in _FUNCTIONS.items()
        }
        failed = library.pthread_mutex_init(ctypes.c_void_p(mutex), None) or library.pthread_cond_init(
            ctypes.c_void_p(condition), None
        )
    except AttributeError:  # no such function in this C library: threads yield
        return memory
    if not failed:
        words[sync.MUTEX], words[sync.CONDITION] = mutex, condition
        for word, function in functions.items():
            words[word] = function
    return memory


class Team:
    """``n_threads`` threads, of which the caller of ``run`` is one. Raises ``SettingError`` for a number out of
    range.
    """

    def __init__(self, n_threads: int) -> None:
        if not 1 <= n_threads <= MAX_THREADS:
            raise SettingError("out of range", where="threads", expected=f"1 to {MAX_THREADS}", actual=n_threads)
        self.n_threads = n_threads
        code = kernels(["team", "post"])
        self._team, self._post = _CALL(code["team"]), _CALL(code["post"])
        self._sync = buffer(8 * (sync.N_SYNC + 16 * n_threads)).view(np.int64)
        self._sync[sync.YIELD] = _yield_address()
        self._pthreads = _pthreads(self._sync)
        self._address = address(self._sync)
        self._changed = threading.Condition()
        self._stop = False
        self._pid = os.getpid()
        self._threads: list[threading.Thread] = []
        self._running = threading.Lock()

    def _start(self) -> None:
        for i in range(1, self.n_threads):
            thread = threading.Thread(target=self._work, args=(i,), name=f"ggblock-{i}", daemon=True)
            thread.start()
            self._threads.append(thread)

    def _work(self, number: int) -> None:
        mine = sync.N_SYNC + 16 * number
        while True:
            self._team(self._address, number, self.n_threads)
            with self._changed:
                while not self._stop and self._sync[sync.JOB] == self._sync[mine]:
                    self._changed.wait()
                if self._stop:
                    return

    def run(self, plan_address: int, n_rows: int) -> None:
        """Walks ``n_rows`` rows of the plan at ``plan_address`` on all threads; returns when all are done."""
        if self._pid != os.getpid():  # a forked child has none of its parent's threads, and maybe a lock that one held
            self.__init__(self.n_threads)  # type: ignore[misc]
        with self._running:
            if not self._threads and self.n_threads > 1:
                self._start()
            before = self._sync[sync.JOB]
            try:
                self._post(self._address, plan_address, n_rows)
                if self.n_threads > 1 and not self._sync[sync.SLEEP]:
                    with self._changed:
                        self._changed.notify_all()
            finally:
                # once a job is announced this thread must do its part, also when Ctrl-C comes here: the others wait
                # for it
                if self._sync[sync.JOB] != before:
                    self._team(self._address, 0, self.n_threads)

    def close(self) -> None:
        """Ends the workers. The team cannot be used afterwards."""
        with self._changed:
            self._stop = True
            if self._pid == os.getpid():
                self._post(self._address, 0, 0)
            self._changed.notify_all()
        for thread in self._threads:
            thread.join(timeout=5)
        self._threads = []
