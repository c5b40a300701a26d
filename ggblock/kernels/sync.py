"""Words with which the threads of a team find each other, as plain numbers: int64 indices; no Numba here.

Words that different threads write lie on cache lines of their own. After ``N_SYNC`` words every thread has 16 of its
own.
"""
from __future__ import annotations

ARRIVED = 0     # threads at the barrier
PHASE = 16      # barriers passed
JOB = 32        # number of the newest job; negative: the team ends
DONE = 48       # workers that finished it
SLEEPERS = 64   # threads that sleep, or are about to
PLAN, N_ROWS = 80, 81   # the job
# addresses of C functions: give up the processor; and of pthreads, where there are such (else 0), of what they work on
YIELD, LOCK, UNLOCK, SLEEP, WAKE, MUTEX, CONDITION = 82, 83, 84, 85, 86, 87, 88
FINISHED = 96   # number of the last job that all workers finished
N_SYNC = 112
