#!/usr/bin/env python3
"""What depth costs: the time of one token of decode beside the bytes that it must read, weights and KV cache.

    python tools/bench/depth.py MODEL.gguf --kv f16 q8_0 -t 1 2 --record
    chrt -f 2 python tools/bench/depth.py ...           # on a busy machine

Goal: cost per token grows no faster than the KV bytes it must read. Two checks say so:

- linear: a byte of a long cache costs no more than one of a shorter. The time added since the first depth, by byte, is
  at the last depth at most 1.1 times (the noise of such differences) what it is at half of that;
- no faster than all bytes: time grows at most as weights and cache together do. That is the same as: the cache is read
  at least as fast as the weights are at depth 0.

All depths are asked in turn, round after round, each for a few tokens at one position (their median counts); ratios and
rates are medians of each round's. The cache holds the keys and values of 512 random tokens, over and over. The roof is
``roof.py``'s for as many threads and a buffer as large as all bytes at the last depth, measured in every round. Models
with a sliding window are refused: their layers do not read the whole cache.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent.parent), str(HERE)]

import machine  # noqa: E402
import roof  # noqa: E402
import table  # noqa: E402

FILLED = 512  # tokens whose keys and values are computed
NOISE = 1.1


class Decoder:
    """A model whose cache is full."""

    def __init__(self, file: Any, kv: str, threads: int, context: int) -> None:
        from ggblock import models
        from ggblock.kernels import shapes

        self._model = models.build(file, threads=threads, context=context, kv_type=kv)
        self._model.forward(np.random.default_rng(0).integers(0, self._model.n_vocab, FILLED), 0)
        config = self._model.config
        panel, second = shapes.panel_bytes(config.head, kv), shapes.second_bytes(config.head, kv)
        for cache in self._model._layers.caches:
            head = cache.data.reshape(config.n_kv_heads, -1)
            first = shapes.second_plane(head.shape[1], panel, second)
            for plane in (head[:, :first], head[:, first:]):  # in each a head's positions follow each other
                parts = plane.reshape(len(head), context // FILLED, -1)
                parts[:, 1:] = parts[:, :1]
        each = len(self._model._layers.caches) * config.n_kv_heads * 2 / 16
        self._of_first, self._of_second = each * panel, each * second

    def kv_bytes(self, depth: int) -> float:
        """Bytes of the cache that a token must read if it sees ``depth`` positions: of a cache of 12 bits the second
        plane only of a short context, and not what is mended."""
        from ggblock.kernels.attention_q12 import WHOLE

        return max(1, depth) * (self._of_first + (self._of_second if depth <= WHOLE else 0))

    def token_s(self, depth: int, n_tokens: int) -> float:
        """Seconds of a token that sees ``depth`` positions with its own: the median of ``n_tokens``."""
        times = []
        for token in range(n_tokens + 1):  # the first finds other depths' lines in the processor's caches
            begin = time.perf_counter()
            self._model.forward([token], max(0, depth - 1))
            times.append(time.perf_counter() - begin)
        return median(times[1:])

    def close(self) -> None:
        self._model.close()


def rows(
    times: dict[int, list[float]], roofs: Sequence[float], weights: int, kv_bytes: Callable[[int], float]
) -> Iterator[tuple[int, float, float, float, float, float | None, float | None]]:
    """For each depth: MB of cache, ms, time and bytes over those at the first depth, GB/s of the cache's share of the
    time and that over the roof."""
    first = min(times)
    for depth, found in times.items():
        cache, least = kv_bytes(depth), kv_bytes(first)
        grown = median(t / t0 for t, t0 in zip(found, times[first]))
        rate = share = None
        if depth != first:
            rates = [(cache - least) / 1e9 / (t - t0) for t, t0 in zip(found, times[first])]
            rate, share = median(rates), median(r / top for r, top in zip(rates, roofs))
        yield depth, cache / 1e6, median(found) * 1e3, grown, (weights + cache) / (weights + least), rate, share


def checks(times: dict[int, list[float]], weights: int, kv_bytes: Callable[[int], float]) -> list[tuple[str, bool]]:
    """The two checks of the module's docstring."""
    first, last = min(times), max(times)
    half = max(depth for depth in times if depth <= last / 2)
    added, at_half = (kv_bytes(depth) - kv_bytes(first) for depth in (last, half))
    costs = [
        (c - a) / added / ((b - a) / at_half)
        for a, b, c in zip(times[first], times[half], times[last])
    ]
    grown = median(c / a for a, c in zip(times[first], times[last]))
    wanted = (weights + kv_bytes(last)) / (weights + kv_bytes(first))
    return [
        (
            f"a byte takes {median(costs):.2f} times as long at depth {last} as at {half} (at most {NOISE})",
            median(costs) <= NOISE,
        ),
        (f"time grows to {grown:.2f}, all bytes to {wanted:.2f}", grown <= wanted),
    ]


def report(args: argparse.Namespace, model: str) -> Iterator[str]:
    """Measures one model and yields the lines of its record."""
    import ggblock

    context = -(-max(args.depths) // FILLED) * FILLED
    weights = table.bytes_per_token(Path(model))
    ways = [(kv, threads) for kv in args.kv for threads in args.threads]
    with ggblock.open(model) as file:
        if file.metadata.get(f"{file.metadata['general.architecture']}.attention.sliding_window"):
            raise SystemExit(f"{model}: its layers have a sliding window")
        decoders = {way: Decoder(file, *way, context) for way in ways}
        data = roof.filled(int(weights + max(d.kv_bytes(context) for d in decoders.values())))
        roofs: dict[int, list[float]] = defaultdict(list)
        times: dict[tuple[str, int], dict[int, list[float]]] = {way: defaultdict(list) for way in ways}
        for number in range(args.rounds + 1):  # round 0 warms everything up
            tops = {threads: roof.roof(data, [threads])["gb_per_s"] for threads in args.threads}
            for depth in sorted(args.depths):
                for way in ways:
                    found = decoders[way].token_s(depth, args.tokens)
                    if number:
                        times[way][depth].append(found)
            if number:
                for threads, top in tops.items():
                    roofs[threads].append(top)
        for decoder in decoders.values():
            decoder.close()
    name = Path(model).name
    for (kv, threads), found in times.items():
        yield f"{name}, {kv}, {threads} thread{'s' * (threads > 1)}; roof {median(roofs[threads]):.1f} GB/s:"
        yield ""
        yield "| depth | cache MB | ms a token (lowest–highest) | time × | bytes × | cache GB/s | of the roof |"
        yield "|---|---|---|---|---|---|---|"
        kv_bytes = decoders[kv, threads].kv_bytes
        for depth, cache, ms, grown, wanted, rate, share in rows(found, roofs[threads], weights, kv_bytes):
            spread = f"({min(found[depth]) * 1e3:.2f}–{max(found[depth]) * 1e3:.2f})"
            end = "– | –" if rate is None or share is None else f"{rate:.1f} | {share:.0%}"
            yield f"| {depth} | {cache:.1f} | {ms:.2f} {spread} | {grown:.2f} | {wanted:.2f} | {end} |"
        yield ""
        for text, good in checks(found, weights, kv_bytes):
            yield f"- {'pass' if good else 'FAIL'}: {text}"
        yield ""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+")
    parser.add_argument("--kv", nargs="+", default=["q12", "f16", "q8_0"])
    parser.add_argument("-t", dest="threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--depths", type=int, nargs="+", default=[0, 512, 1024, 2048, 4096, 8192])
    parser.add_argument("--tokens", type=int, default=8, help="tokens of a sample")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--note", default="", help="a line for the record")
    parser.add_argument("--record", action="store_true", help="append to tools/bench/RESULTS.md")
    args = parser.parse_args()
    if len(set(args.depths)) < 3 or min(args.depths) < 0:
        parser.error("--depths: three different ones and more")
    busy, begin, own = machine.busy_s(), time.perf_counter(), time.process_time()
    lines = table.heading("depth", note=args.note)
    for model in args.models:
        lines += report(args, model)
    others = (machine.busy_s() - busy - (time.process_time() - own)) / (time.perf_counter() - begin)
    lines.append(f"Medians of {args.rounds} rounds; meanwhile others used {max(0.0, others):.2f} cores.")
    machine.publish(lines, record=args.record)
    return 0 if not any(line.startswith("- FAIL") for line in lines) else 1


if __name__ == "__main__":
    raise SystemExit(main())
