#!/usr/bin/env python3
"""What ``--kv`` and ``--activations`` cost and give: divergence from exact logits, and memory of the cache.

    python tools/bench/settings.py MODEL.gguf --cache /tmp/exact/MODEL --record

Exact logits are those of ``exact.py`` (run ``quality.py`` once with ``--oracle-python``). Chunks of 512 tokens are read
in one go ("prefill") and, from the middle on, token by token ("decode"); the second half is scored.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
sys.path[:0] = [str(HERE), str(ROOT)]

import exact  # noqa: E402
import machine  # noqa: E402
import quality  # noqa: E402

SETTINGS = (
    ("fast", "f16"), ("fine", "f16"), ("exact", "f16"), ("exact", "f32"),
    ("fast", "q8_0"), ("fine", "q8_0"), ("exact", "q8_0"),
)  # fmt: skip


def measure(args: argparse.Namespace, activations: str, kv: str) -> dict[str, Any]:
    """Divergence of prefill and decode, and bytes of the cache for a context of 8,192."""
    import ggblock
    from ggblock import models

    cache = exact.Cache(Path(args.cache))
    found: dict[str, Any] = {}
    with ggblock.open(args.model) as file:
        model = models.build(file, threads=args.threads, context=512, kv_type=kv, activations=activations)
        try:
            for name, step, chunks in (("prefill", 512, args.chunks), ("decode", 1, args.decode_chunks)):
                run = lambda ids, s=step: quality.scored(model, ids, cache.first_scored, step=s)  # noqa: E731
                found[name] = cache.compare(run, chunks=chunks)
            found["kv_bytes"] = 16 * sum(c.data.nbytes for c in model._layers.caches)
        finally:
            model.close()
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--cache", required=True, help="folder of the exact logits")
    parser.add_argument("--chunks", type=int, default=12)
    parser.add_argument("--decode-chunks", type=int, default=4)
    parser.add_argument("-t", dest="threads", type=int, default=2)
    parser.add_argument("--record", action="store_true", help="append to tools/bench/RESULTS.md")
    args = parser.parse_args()
    lines = [
        machine.title("activations and KV cache"),
        "",
        f"{Path(args.model).name}, exact logits from torch in float32, chunks of 512 tokens, second half scored "
        f"({args.chunks} in prefill, {args.decode_chunks} in decode); {machine.describe()['cpu']}. "
        "Cache: megabytes for 8,192 tokens.",
        "",
        "| --activations | --kv | mean KL prefill | mean KL decode | same top-1 prefill / decode | cache |",
        "|---|---|---|---|---|---|",
    ]
    for activations, kv in SETTINGS:
        found = measure(args, activations, kv)
        p, d = found["prefill"], found["decode"]
        lines.append(
            f"| {activations} | {kv} | {p['mean_kl']:.2g} ± {p['mean_kl_stderr']:.1g} "
            f"| {d['mean_kl']:.2g} ± {d['mean_kl_stderr']:.1g} "
            f"| {p['same_top1']:.1%} / {d['same_top1']:.1%} | {found['kv_bytes'] / 1e6:.0f} |"
        )
        print(lines[-1], file=sys.stderr, flush=True)
    machine.publish(lines, record=args.record)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
