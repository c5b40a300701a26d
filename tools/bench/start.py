#!/usr/bin/env python3
"""How long a person waits for the first token, and how much memory a run takes.

    python tools/bench/start.py MODEL.gguf --starts 5

One start with an empty kernel cache (a fresh folder named by ``GGBLOCK_CACHE``), then starts with what it left there.
The first token is the first byte on stdout of ``ggblock run MODEL -p TEXT --raw``, counted from the start of the
process. Goals: 15 s and a line on stderr for the first start ever, later 1.0 s for files up to 150 MB and 1.5 s for
larger ones, and a peak of resident memory of 1.25 x the file + the KV cache + 150 MB.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT))


@dataclass(frozen=True)
class Start:
    """Times in seconds from the start of the process."""

    first_token_s: float
    first_stderr_s: float | None
    total_s: float
    peak_rss_bytes: int
    text: str
    stderr: str


def start(args: argparse.Namespace, cache: str) -> Start:
    """One process from its start to its end."""
    command = [
        args.python,
        "-m",
        "ggblock",
        "run",
        args.model,
        "-p",
        args.prompt,
        "--raw",
        "-n",
        str(args.gen),
        "--temp",
        "0",
        "--ctx",
        str(args.ctx),
        "-t",
        str(args.threads),
    ]
    env = os.environ | {"PYTHONPATH": str(ROOT), "GGBLOCK_CACHE": cache}
    begin = time.perf_counter()
    child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=env)
    assert child.stdout is not None and child.stderr is not None
    streams = {child.stdout.fileno(): bytearray(), child.stderr.fileno(): bytearray()}
    first: dict[int, float] = {}
    import selectors

    with selectors.DefaultSelector() as waiting:
        for fd in streams:
            waiting.register(fd, selectors.EVENT_READ)
        while waiting.get_map():
            for key, _ in waiting.select():
                data = os.read(key.fd, 65536)
                if not data:
                    waiting.unregister(key.fd)
                    continue
                first.setdefault(key.fd, time.perf_counter() - begin)
                streams[key.fd] += data
    _, status, usage = os.wait4(child.pid, 0)
    total_s = time.perf_counter() - begin
    child.returncode = os.waitstatus_to_exitcode(status)
    out, err = child.stdout.fileno(), child.stderr.fileno()
    said = streams[err].decode(errors="replace")
    child.stdout.close()
    child.stderr.close()
    if child.returncode != 0:
        raise SystemExit(f"{' '.join(command)}: exit {child.returncode}: {said.strip()[-500:]}")
    return Start(
        first[out], first.get(err), total_s, usage.ru_maxrss * 1024, streams[out].decode(errors="replace"), said
    )


def kv_bytes(model: str, n_ctx: int) -> int:
    """Bytes of a half-precision cache of ``n_ctx`` positions in every layer."""
    import ggblock

    with ggblock.open(model) as file:
        meta = file.metadata
        arch = meta["general.architecture"]
        heads = int(meta[f"{arch}.attention.head_count"])
        kv_heads = int(meta.get(f"{arch}.attention.head_count_kv", heads))
        width = int(meta.get(f"{arch}.attention.key_length", int(meta[f"{arch}.embedding_length"]) // heads))
        return int(meta[f"{arch}.block_count"]) * n_ctx * kv_heads * width * 2 * 2


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("-p", dest="prompt", default="The capital of France is")
    parser.add_argument("-n", dest="gen", type=int, default=16)
    parser.add_argument("--ctx", type=int, default=2048)
    parser.add_argument("-t", dest="threads", type=int, default=2)
    parser.add_argument("--starts", type=int, default=5)
    parser.add_argument("--python", default=sys.executable)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as cache:
        cold = start(args, cache)
        warm = [start(args, cache) for _ in range(args.starts)]
    size, kv = Path(args.model).stat().st_size, kv_bytes(args.model, args.ctx)
    limit, later = 1.25 * size + kv + 150e6, 1.0 if size < 150e6 else 1.5
    peak = max(s.peak_rss_bytes for s in [cold, *warm])
    warm_peak = max(s.peak_rss_bytes for s in warm)
    checks = [
        (f"first start ever: first token after {cold.first_token_s:.2f} s <= 15", cold.first_token_s <= 15),
        (f"first start ever says what happens: {cold.stderr.strip()[:100]!r}", bool(cold.stderr.strip())),
        (
            f"later starts: first token after {median(s.first_token_s for s in warm):.2f} s <= {later} "
            f"({min(s.first_token_s for s in warm):.2f} to {max(s.first_token_s for s in warm):.2f})",
            median(s.first_token_s for s in warm) <= later,
        ),
        (
            f"peak resident {peak / 1e6:.0f} MB ({warm_peak / 1e6:.0f} with cached kernels) <= {limit / 1e6:.0f} MB",
            peak <= limit,
        ),
    ]
    print(
        json.dumps(
            {"cold": asdict(cold), "warm": [asdict(s) for s in warm], "file_bytes": size, "kv_bytes": kv}, indent=1
        )
    )
    for text, good in checks:
        print(("pass  " if good else "FAIL  ") + text)
    return 0 if all(good for _, good in checks) else 1


if __name__ == "__main__":
    raise SystemExit(main())
