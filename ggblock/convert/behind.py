"""Calls that run one after the other on a thread of their own, while the caller goes on."""
from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from types import TracebackType


class Behind:
    """Used in ``with``. At most ``room`` calls wait; then `put` does.

    A call that raises ends the work: no later one is made, and the next `put` or `drain` raises its exception in the
    caller. When the block is left by an exception, calls that have not begun are never made.
    """

    def __init__(self, room: int = 2) -> None:
        self._calls: queue.Queue[Callable[[], object] | None] = queue.Queue(room)
        self._fault: BaseException | None = None
        self._stop = False
        self._thread = threading.Thread(target=self._work, name="ggblock-behind", daemon=True)

    def _work(self) -> None:
        while (call := self._calls.get()) is not None:
            if not self._stop:
                try:
                    call()
                except BaseException as fault:
                    self._fault, self._stop = fault, True
            self._calls.task_done()

    def put(self, call: Callable[[], object]) -> None:
        """Have ``call`` made after those before it."""
        self._raise()
        self._calls.put(call)

    def drain(self) -> None:
        """Wait until all calls are done."""
        self._calls.join()
        self._raise()

    def _raise(self) -> None:
        fault, self._fault = self._fault, None
        if fault is not None:
            raise fault

    def __enter__(self) -> Behind:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop |= kind is not None
        self._calls.put(None)
        self._thread.join()
        if kind is None:
            self._raise()
