"""The executor: every thread of the team walks the rows of a plan, with a barrier where a row asks for one.

Waiting is bounded: first spin (work is near), then sleep on a condition variable of pthreads until woken. Sleeping,
not giving up the processor again and again, is what a busy machine needs: a scheduler that is fair lets a thread that
slept run as soon as it is woken, and takes one that spun or yielded for one that had its share. Beside a spinning
process a core, SmolLM2 decodes 102 of its 223 tokens/s this way (llama.cpp 21 of 80); with some 15 runnable processes
on 2 cores it decoded 12.8 tokens/s, and 1.1 with yields. On a quiet machine a token sleeps about once. Without pthreads
(Windows), threads yield, and a worker that has waited long for its next job returns to Python, which parks it on a lock
(``engine.team``).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..simd.jit import inline
from ..simd.vec import atomic_add, atomic_load, atomic_store, call_address, call_kernel, load, pause, store
from .fields import ALWAYS, BARRIER, BATCH, DEEP, KERNEL, N_TOKENS, NEVER, POSITION, ROW, STATE, TURN, TURNS
from .shapes import CHUNK, FINE_CHUNK
from .sync import (
    ARRIVED,
    CONDITION,
    DONE,
    FINISHED,
    JOB,
    LOCK,
    MUTEX,
    N_ROWS,
    N_SYNC,
    PHASE,
    PLAN,
    SLEEP,
    SLEEPERS,
    UNLOCK,
    WAKE,
    YIELD,
)

SPINS = 2000  # looks before a thread begins to sleep: some tens of microseconds
IDLE_SPINS = 8000  # of a worker that has no job: between two tokens there is sampling to do
YIELDS = 2000  # yields of an idle worker before it is parked, where it cannot sleep


@inline
def call(sync, function, first, second):
    """Calls a C function of at most two arguments, all of them words of ``sync``."""
    call_kernel(load(sync + 8 * function, "i64"), load(sync + 8 * first, "i64"), load(sync + 8 * second, "i64"), 0)


@inline
def sleep_while(sync, at, value):
    """Sleeps until the word at ``at`` is not ``value``. Who changes it calls ``wake``."""
    # Counted before the last look at the word, while ``wake`` looks at the count after the word was changed: one of
    # the two sees the other.
    atomic_add(sync + 8 * SLEEPERS, 1)
    call(sync, LOCK, MUTEX, MUTEX)
    while atomic_load(at) == value:
        call(sync, SLEEP, CONDITION, MUTEX)
    call(sync, UNLOCK, MUTEX, MUTEX)
    atomic_add(sync + 8 * SLEEPERS, -1)


@inline
def wake(sync):
    """Wakes all that sleep."""
    if atomic_load(sync + 8 * SLEEPERS) != 0:
        # whoever looked at a word before it changed is asleep once the lock is free
        call(sync, LOCK, MUTEX, MUTEX)
        call(sync, UNLOCK, MUTEX, MUTEX)
        call(sync, WAKE, CONDITION, CONDITION)


@inline
def wait_while(sync, at, value):
    """Returns when the word at ``at`` is not ``value``."""
    looks = 0
    while atomic_load(at) == value:
        looks += 1
        if looks < SPINS:
            pause()
        elif load(sync + 8 * SLEEP, "i64") != 0:
            sleep_while(sync, at, value)
        else:
            call_address(load(sync + 8 * YIELD, "i64"))


@inline
def barrier(sync, n_threads):
    if n_threads == 1:
        return
    phase = atomic_load(sync + 8 * PHASE)
    if atomic_add(sync + 8 * ARRIVED, 1) == n_threads - 1:
        atomic_store(sync + 8 * ARRIVED, 0)
        atomic_add(sync + 8 * PHASE, 1)
        wake(sync)
    else:
        wait_while(sync, sync + 8 * PHASE, phase)


@inline
def due(op):
    """Whether threads wait for each other after the row at ``op``."""
    when = load(op + 8 * BARRIER, "i64")
    if when == NEVER or when == ALWAYS:
        return when == ALWAYS
    shared = load(op + 8 * STATE, "i64")
    if load(shared + 8 * N_TOKENS, "i64") != 1:
        return True
    return when != BATCH and load(shared + 8 * POSITION, "i64") >= (CHUNK if when == DEEP else FINE_CHUNK)


@inline
def walk(sync, thread, n_threads):
    plan, n_rows = load(sync + 8 * PLAN, "i64"), load(sync + 8 * N_ROWS, "i64")
    for i in range(n_rows):
        op = plan + i * (8 * ROW)
        call_kernel(load(op + 8 * KERNEL, "i64"), op, thread, n_threads)
        if due(op):
            barrier(sync, n_threads)


def make_team() -> Any:
    """``team(sync, thread, n_threads)``: thread 0 runs one job and returns; the others work until the team ends.

    ``sync`` is the address of ``sync.N_SYNC`` int64 and 16 for each thread. ``post`` announces a job. Every worker
    counts itself in DONE, the last one writes FINISHED, and thread 0 waits for that.
    """

    def team(sync, thread, n_threads):
        if thread == 0:
            job = atomic_load(sync + 8 * JOB)
            walk(sync, 0, n_threads)
            if n_threads > 1:
                wait_while(sync, sync + 8 * FINISHED, job - 1)
            return
        # a worker's last job is kept on its own line after the shared words
        mine = sync + 8 * (N_SYNC + 16 * thread)
        looks = np.int64(0)
        while True:
            job = atomic_load(sync + 8 * JOB)
            if job < 0:
                return
            last = load(mine, "i64")
            if job != last:
                atomic_store(mine, job)
                walk(sync, thread, n_threads)
                if atomic_add(sync + 8 * DONE, 1) == n_threads - 2:
                    atomic_store(sync + 8 * FINISHED, job)
                    wake(sync)
                looks = np.int64(0)
            else:
                looks += 1
                if looks < IDLE_SPINS:
                    pause()
                elif load(sync + 8 * SLEEP, "i64") != 0:
                    sleep_while(sync, sync + 8 * JOB, job)
                elif looks < IDLE_SPINS + YIELDS:
                    call_address(load(sync + 8 * YIELD, "i64"))
                else:
                    return

    return team


def make_post() -> Any:
    """``post(sync, plan, n_rows)``: announces a job to the workers; ``plan`` 0 ends them.

    A job is a turn (``shares``): counted here, where no thread is at work, in the states of its first and last row.
    """

    @inline
    def next_turn(state):
        if state != 0:  # rows that use none have no state
            store(state + 8 * TURN, (load(state + 8 * TURN, "i64") + 1) % TURNS)

    def post(sync, plan, n_rows):
        if plan == 0:
            atomic_store(sync + 8 * JOB, -1)
        else:
            if n_rows > 0:
                first = load(plan + 8 * STATE, "i64")
                last = load(plan + (n_rows - 1) * (8 * ROW) + 8 * STATE, "i64")
                next_turn(first)
                if last != first:
                    next_turn(last)
            store(sync + 8 * PLAN, plan)
            store(sync + 8 * N_ROWS, n_rows)
            atomic_store(sync + 8 * DONE, 0)
            atomic_add(sync + 8 * JOB, 1)
        wake(sync)

    return post
