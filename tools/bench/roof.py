#!/usr/bin/env python3
"""How fast this machine reads memory: the roof of decoding, which reads every weight once a token.

    python tools/bench/roof.py --mb 98 253 --threads 1 2
    python tools/bench/roof.py --serve --threads 1 2        # sizes on stdin: see worker.py

A buffer of the given size is read by threads that share it, with plain vector loads and with software prefetch some
distance ahead; the fastest of them is the roof. Needs numba and ggblock.
"""

from __future__ import annotations

import argparse
import functools
import json
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent.parent), str(HERE)]

from worker import serve  # noqa: E402

from ggblock.engine.memory import buffer  # noqa: E402  (huge pages, where weights lie too)

DISTANCES = (0, 2048, 4736, 9472)  # bytes ahead; 0: no prefetch


def _lower(context: Any, builder: Any, signature: Any, args: Any, prefetch: bool) -> Any:
    """IR of: acc = 0; for i in range(low, high, 64): for each of 8 vectors at data[i + 8 k]: acc[k] ^= it."""
    data, low, high, ahead = args
    vector, word = ir.VectorType(ir.IntType(64), 8), ir.IntType(64)
    first = context.make_array(signature.args[0])(context, builder, data).data
    # LLVM turns these stack slots into registers.
    sums = [cgutils.alloca_once_value(builder, ir.Constant(vector, None)) for _ in range(8)]
    with cgutils.for_range_slice(builder, low, high, word(64)) as (i, _):
        for k, place in enumerate(sums):
            address = builder.gep(first, [builder.add(i, word(8 * k))])
            if prefetch:
                byte, flag = ir.IntType(8).as_pointer(), ir.IntType(32)
                function = cgutils.get_or_insert_function(
                    builder.module, ir.FunctionType(ir.VoidType(), [byte, flag, flag, flag]), "llvm.prefetch.p0"
                )
                far = builder.bitcast(builder.gep(address, [ahead]), byte)
                builder.call(function, [far, flag(0), flag(3), flag(1)])
            value = builder.load(builder.bitcast(address, vector.as_pointer()), align=8)
            builder.store(builder.xor(builder.load(place), value), place)
    total = builder.load(sums[0])
    for place in sums[1:]:
        total = builder.xor(total, builder.load(place))
    result = builder.extract_element(total, ir.IntType(32)(0))
    for k in range(1, 8):
        result = builder.xor(result, builder.extract_element(total, ir.IntType(32)(k)))
    return result


@intrinsic
def _plain(typing_context: Any, data: Any, low: Any, high: Any, ahead: Any) -> Any:
    return types.int64(data, types.int64, types.int64, types.int64), lambda c, b, s, a: _lower(c, b, s, a, False)


@intrinsic
def _prefetched(typing_context: Any, data: Any, low: Any, high: Any, ahead: Any) -> Any:
    return types.int64(data, types.int64, types.int64, types.int64), lambda c, b, s, a: _lower(c, b, s, a, True)


@njit(nogil=True)
def _read(data: Any, low: int, high: int, ahead: int, passes: int) -> int:
    """Every value of ``data[low:high]`` (int64, a multiple of 64 of them) combined; ``ahead`` values are prefetched."""
    total = 0
    for _ in range(passes):
        if ahead > 0:
            total ^= _prefetched(data, low, high, ahead)
        else:
            total ^= _plain(data, low, high, ahead)
    return total


def measure(data: Any, threads: int, distance: int, repetitions: int = 3) -> float:
    """Bytes a second, the median over repetitions, for int64 ``data`` shared among ``threads``.

    Its last 4,096 values are only there for prefetches to run into. A thread reads its share again and again for about
    60 ms, so that starting threads does not count.
    """
    n = (len(data) - 4096) // 64 * 64
    passes = max(1, int(2.4e9 / (n * 8)))
    edges = [n * t // threads // 64 * 64 for t in range(threads + 1)]
    ahead = distance // 8
    _read(data, 0, 64, ahead, 1)
    times = []
    for _ in range(repetitions):
        team = [
            threading.Thread(target=_read, args=(data, edges[t], edges[t + 1], ahead, passes)) for t in range(threads)
        ]
        begin = time.perf_counter()
        for thread in team:
            thread.start()
        for thread in team:
            thread.join()
        times.append(time.perf_counter() - begin)
    return n * 8 * passes / float(np.median(times))


def filled(n_bytes: int) -> Any:
    """int64 to read: ``n_bytes`` of them, and what ``measure`` needs after them."""
    data = buffer(n_bytes // 512 * 512 + 8 * 4096).view(np.int64)
    data[:] = 1
    return data


def roof(data: Any, threads: Sequence[int]) -> dict[str, Any]:
    """The fastest way found of reading what ``filled`` made: {"gb_per_s", "threads", "prefetch_bytes"}."""
    best, t, distance = max((measure(data, t, d), t, d) for t in threads for d in DISTANCES)
    return {"gb_per_s": best / 1e9, "threads": t, "prefetch_bytes": distance}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mb", type=int, nargs="+", default=[98, 253, 650], help="buffer sizes in 10^6 bytes")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--serve", action="store_true")
    args = parser.parse_args()
    if args.serve:
        made = functools.lru_cache(maxsize=1)(filled)
        serve(lambda test: roof(made(test.n), args.threads)["gb_per_s"])
        return 0
    rows = [{"mb": mb} | roof(filled(mb * 10**6), [t]) for mb in args.mb for t in args.threads]
    if args.json:
        print(json.dumps({"results": rows}))
        return 0
    for row in rows:
        print(
            f"{row['mb']:5} MB  {row['threads']} threads  {row['gb_per_s']:6.1f} GB/s  "
            f"(prefetch {row['prefetch_bytes']} bytes ahead)"
        )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
