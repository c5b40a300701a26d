"""A measured program that stays loaded: it reads tests as lines of JSON and answers each with its speed.

All sides are kept alive and asked in turn, so that what is compared was measured within seconds, and a long KV cache
is filled once. An idle one costs nothing: all park their threads. The programs are ``ours.py``, ``llama_peer.py
serve`` and ``roof.py --serve``; they say ``{"ready": true}`` when loaded, then answer a request ``{"kind": "tg", "n":
128, "depth": 4096}`` with ``{"speed": 43.2, "cpu_s": 5.9}``: tokens a second (GB a second for the roof), and the CPU
time of the whole request, filling the cache included.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import machine


@dataclass(frozen=True)
class Test:
    """``pp512``, ``tg128``, ``tg128@d4096``: prefill or decode of ``n`` tokens after ``depth`` others.

    Kind ``rd``: read ``n`` bytes of memory.
    """

    kind: str
    n: int
    depth: int = 0

    @staticmethod
    def parse(name: str) -> Test:
        """Raises ``ValueError`` for a name that is none."""
        found = re.fullmatch(r"(pp|tg)([1-9]\d*)(?:@d(\d+))?", name)
        if found is None:
            raise ValueError(f"{name} is no test: pp512, tg128 and tg128@d4096 are some")
        return Test(found[1], int(found[2]), int(found[3] or 0))

    @property
    def name(self) -> str:
        return f"{self.kind}{self.n}" + (f"@d{self.depth}" if self.depth else "")


def context_for(tests: Sequence[Test]) -> int:
    """Tokens that the longest of the tests needs, and a few more."""
    return max(test.depth + test.n for test in tests) + 16


class Worker:
    """The parent's side."""

    def __init__(self, command: Sequence[str]) -> None:
        self._command = list(command)
        self._said = tempfile.TemporaryFile("w+")
        self._child = subprocess.Popen(
            self._command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._said,
            text=True,
        )
        self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self._child.stdout is not None
        line = self._child.stdout.readline()
        if not line:
            self._child.wait()
            self._said.seek(0)
            words = self._said.read().strip()[-600:]
            raise RuntimeError(f"{' '.join(self._command)}: exit {self._child.returncode}: {words}")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def ask(self, test: Test) -> dict[str, float]:
        """``speed``, and in ``others`` the cores' worth of CPU time that everything else used meanwhile."""
        assert self._child.stdin is not None
        busy, begin = machine.busy_s(), time.perf_counter()
        self._child.stdin.write(json.dumps({"kind": test.kind, "n": test.n, "depth": test.depth}) + "\n")
        self._child.stdin.flush()
        answer = self._answer()
        used = machine.busy_s() - busy - answer.pop("cpu_s")
        return answer | {"others": max(0.0, used) / (time.perf_counter() - begin)}

    def close(self) -> None:
        self._child.communicate()
        self._said.close()

    def __enter__(self) -> Worker:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            self._child.kill()
        self.close()


def requests() -> Iterator[Test]:
    """The child's side: says that it is ready, then yields what is asked on stdin."""
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        yield Test(**json.loads(line))


def answer(speed: float, cpu_s: float) -> None:
    """The child's side: one line on stdout."""
    print(json.dumps({"speed": speed, "cpu_s": cpu_s}), flush=True)


def serve(run: Callable[[Test], float]) -> None:
    """The child's side for a program that measures one test at a time: ``run`` returns its speed."""
    for test in requests():
        before = time.process_time()
        answer(run(test), time.process_time() - before)
