"""The executor: every thread of the team walks the rows of a plan, with a barrier where a row asks for one.

Waiting is bounded: first spin (work is near), then give up the processor after every look, so that a busy machine can
run the thread that is being waited for. A worker that has waited long for its next job returns to Python, which parks
it on a lock (``engine.team``).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..simd.jit import inline
from ..simd.vec import atomic_add, atomic_load, atomic_store, call_address, call_kernel, load, pause, store
from .fields import (
    ALWAYS,
    ARRIVED,
    BARRIER,
    BATCH,
    DONE,
    JOB,
    KERNEL,
    N_ROWS,
    N_SYNC,
    N_TOKENS,
    PHASE,
    PLAN,
    ROW,
    STATE,
    YIELD,
)

SPINS = 4000  # looks before a thread begins to yield: some tens of microseconds
YIELDS = 2000  # yields of an idle worker before it is parked


@inline
def barrier(sync, n_threads):
    if n_threads == 1:
        return
    phase = atomic_load(sync + 8 * PHASE)
    if atomic_add(sync + 8 * ARRIVED, 1) == n_threads - 1:
        atomic_store(sync + 8 * ARRIVED, 0)
        atomic_add(sync + 8 * PHASE, 1)
    else:
        looks = 0
        while atomic_load(sync + 8 * PHASE) == phase:
            looks += 1
            if looks < SPINS:
                pause()
            else:
                call_address(load(sync + 8 * YIELD, "i64"))


@inline
def walk(sync, thread, n_threads):
    plan, n_rows = load(sync + 8 * PLAN, "i64"), load(sync + 8 * N_ROWS, "i64")
    for i in range(n_rows):
        op = plan + i * (8 * ROW)
        call_kernel(load(op + 8 * KERNEL, "i64"), op, thread, n_threads)
        when = load(op + 8 * BARRIER, "i64")
        if when == ALWAYS or (when == BATCH and load(load(op + 8 * STATE, "i64") + 8 * N_TOKENS, "i64") != 1):
            barrier(sync, n_threads)


def make_team() -> Any:
    """``team(sync, thread, n_threads)``: thread 0 runs one job and returns; the others work until idle for long.

    ``sync`` is the address of ``fields.N_SYNC`` int64: see there. The caller bumps JOB after writing PLAN and N_ROWS.
    Every thread counts itself in DONE, and thread 0 waits until all have.
    """

    def team(sync, thread, n_threads):
        if thread == 0:
            walk(sync, 0, n_threads)
            looks = 0
            while atomic_load(sync + 8 * DONE) != n_threads - 1:
                looks += 1
                if looks < SPINS:
                    pause()
                else:
                    call_address(load(sync + 8 * YIELD, "i64"))
            return
        # a worker's last job is kept on its own line after the shared words
        mine = sync + 8 * (N_SYNC + 16 * thread)
        looks = np.int64(0)
        while True:
            job = atomic_load(sync + 8 * JOB)
            if job < 0:
                return
            if job != load(mine, "i64"):
                atomic_store(mine, job)
                walk(sync, thread, n_threads)
                atomic_add(sync + 8 * DONE, 1)
                looks = np.int64(0)
            else:
                looks += 1
                if looks < SPINS:
                    pause()
                elif looks < SPINS + YIELDS:
                    call_address(load(sync + 8 * YIELD, "i64"))
                else:
                    return

    return team


def make_post() -> Any:
    """``post(sync, plan, n_rows)``: announces a job to the workers."""

    def post(sync, plan, n_rows):
        store(sync + 8 * PLAN, plan)
        store(sync + 8 * N_ROWS, n_rows)
        atomic_store(sync + 8 * DONE, 0)
        atomic_add(sync + 8 * JOB, 1)

    return post
