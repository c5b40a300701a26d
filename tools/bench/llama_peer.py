#!/usr/bin/env python3
"""llama.cpp as a peer, through llama-cpp-python's low-level calls. Run it with an interpreter that has that package.

Every subcommand prints one JSON document on stdout, ``serve`` one a test::

    python tools/bench/llama_peer.py info
    python tools/bench/llama_peer.py tokens MODEL LINES.json          # {"lines": [...]} -> {"ids": [[...], ...]}
    python tools/bench/llama_peer.py logits MODEL IDS.npy OUT.npy     # float32 (n_tokens, n_vocab)
    python tools/bench/llama_peer.py kl MODEL CACHE                   # divergence from cached exact logits
    python tools/bench/llama_peer.py serve MODEL --context 4240 -t 2 --flash on   # tests on stdin: see worker.py
    python tools/bench/llama_peer.py first MODEL -n 1                 # load, answer, time to the first token

When it measures speed it asks for the logits of the last token only, samples nothing and copies nothing, as
llama-bench does.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

FLASH = {"auto": -1, "off": 0, "on": 1}
KV = {"f32": 0, "f16": 1, "q8_0": 8}


class Peer:
    """A loaded model and one context. ``flash`` is "auto", "off" or "on"."""

    def __init__(
        self,
        path: str,
        *,
        n_ctx: int,
        threads: int,
        flash: str = "auto",
        kv: str = "f16",
        n_batch: int = 512,
        vocab_only: bool = False,
        yarn_beta: tuple[float, float] | None = None,
        swa_full: bool = True,
    ) -> None:
        import llama_cpp as L

        self.L = L
        self._log = L.llama_log_callback(lambda *_: None)
        L.llama_log_set(self._log, ctypes.c_void_p())
        L.llama_backend_init()
        params = L.llama_model_default_params()
        params.n_gpu_layers = 0
        params.vocab_only = vocab_only
        self.model = L.llama_model_load_from_file(path.encode(), params)
        if not self.model:
            raise SystemExit(f"{path}: llama.cpp cannot load it")
        self.vocab = L.llama_model_get_vocab(self.model)
        self.n_vocab = L.llama_vocab_n_tokens(self.vocab)
        self.ctx = None
        if not vocab_only:
            cp = L.llama_context_default_params()
            cp.n_ctx, cp.n_batch, cp.n_ubatch = n_ctx, n_batch, min(n_batch, 512)
            cp.n_threads = cp.n_threads_batch = threads
            cp.flash_attn_type = FLASH[flash]
            cp.type_k = cp.type_v = KV[kv]
            cp.no_perf = True
            cp.swa_full = swa_full
            if yarn_beta is not None:  # this llama.cpp leaves the file's yarn_beta_fast/slow unread for `llama`
                cp.yarn_beta_fast, cp.yarn_beta_slow = yarn_beta
            self.ctx = L.llama_init_from_model(self.model, cp)
            if not self.ctx:
                raise SystemExit(f"{path}: llama.cpp cannot make a context")
            self.batch = L.llama_batch_init(n_batch, 0, 1)
            self.n_batch = n_batch

    def clear(self) -> None:
        self.L.llama_memory_clear(self.L.llama_get_memory(self.ctx), True)

    def forget(self, position: int) -> None:
        """Drops what the cache holds from ``position`` on."""
        self.L.llama_memory_seq_rm(self.L.llama_get_memory(self.ctx), 0, position, -1)

    def decode(self, ids: list[int], position: int, want: str) -> None:
        """One llama_decode of at most n_batch tokens; ``want`` logits of "all", "last" or "none" of them."""
        batch = self.batch
        n = len(ids)
        batch.n_tokens = n
        for i, token in enumerate(ids):
            batch.token[i] = token
            batch.pos[i] = position + i
            batch.n_seq_id[i] = 1
            batch.seq_id[i][0] = 0
            batch.logits[i] = want == "all" or (want == "last" and i == n - 1)
        code = self.L.llama_decode(self.ctx, batch)
        if code != 0:
            raise SystemExit(f"llama_decode failed with {code}")

    def logits(self, ids: list[int]) -> np.ndarray:
        """float32 (n_tokens, n_vocab) of a fresh sequence."""
        self.clear()
        out = np.empty((len(ids), self.n_vocab), np.float32)
        for start in range(0, len(ids), self.n_batch):
            part = ids[start : start + self.n_batch]
            self.decode(part, start, "all")
            pointer = self.L.llama_get_logits(self.ctx)
            out[start : start + len(part)] = np.ctypeslib.as_array(pointer, (len(part), self.n_vocab))
        return out

    def tokenize(self, text: str, add_special: bool, parse_special: bool) -> list[int]:
        data = text.encode()
        room = len(data) + 8
        buffer = (ctypes.c_int32 * room)()
        n = self.L.llama_tokenize(self.vocab, data, len(data), buffer, room, add_special, parse_special)
        if n < 0:
            buffer = (ctypes.c_int32 * -n)()
            n = self.L.llama_tokenize(self.vocab, data, len(data), buffer, -n, add_special, parse_special)
        return list(buffer[:n])


def info() -> dict[str, Any]:
    import llama_cpp as L

    text = L.llama_print_system_info().decode()
    flags = [f.split("=")[0].split(":")[-1].strip() for f in text.split("|") if "= 1" in f]
    return {"version": L.__version__, "system": text, "flags": flags}


def cmd_info(_: argparse.Namespace) -> dict[str, Any]:
    return info()


def cmd_tokens(args: argparse.Namespace) -> dict[str, Any]:
    job = json.loads(Path(args.lines).read_text(encoding="utf-8"))
    peer = Peer(args.model, n_ctx=0, threads=1, vocab_only=True)
    special, parse = bool(job.get("add_special", True)), bool(job.get("parse_special", False))
    return {"ids": [peer.tokenize(line, special, parse) for line in job["lines"]], "n_vocab": peer.n_vocab}


def cmd_logits(args: argparse.Namespace) -> dict[str, Any]:
    ids = [int(i) for i in np.load(args.ids)]
    peer = Peer(
        args.model,
        n_ctx=max(256, len(ids)),
        threads=args.threads,
        flash=args.flash,
        kv=args.kv,
        yarn_beta=args.yarn_beta,
    )
    np.save(args.out, peer.logits(ids))
    return {"n_tokens": len(ids), "n_vocab": peer.n_vocab}


def cmd_kl(args: argparse.Namespace) -> dict[str, Any]:
    sys.path.insert(0, str(Path(__file__).resolve().parent))
    import exact

    cache = exact.Cache(Path(args.cache))
    peer = Peer(args.model, n_ctx=cache.chunk, threads=args.threads, flash=args.flash, kv=args.kv)
    return cache.compare(lambda ids: peer.logits(ids)[cache.first_scored :], chunks=args.chunks)


def cmd_serve(args: argparse.Namespace) -> None:
    """Measures the tests that come on stdin: see ``worker.py``."""
    sys.path.insert(0, str(Path(__file__).resolve().parent))
    import worker

    peer = Peer(
        args.model, n_ctx=args.context, threads=args.threads, flash=args.flash, kv=args.kv, swa_full=args.swa_full
    )
    rng = np.random.default_rng(0)
    ids = [int(i) for i in rng.integers(0, peer.n_vocab, size=args.context)]
    filled = 0

    def read(start: int, end: int, want: str) -> None:
        for at in range(start, end, peer.n_batch):
            last = min(at + peer.n_batch, end)
            peer.decode(ids[at:last], at, want if last == end else "none")
        peer.L.llama_synchronize(peer.ctx)

    def write(start: int, n: int) -> None:
        for i in range(start, start + n):
            peer.decode([ids[i]], i, "last")
            peer.L.llama_synchronize(peer.ctx)

    def run(test: worker.Test) -> float:
        nonlocal filled
        if filled > test.depth:
            peer.clear()
            filled = 0
        read(filled, test.depth, "none")
        filled = test.depth
        speed = 0.0
        for n in (test.n if test.kind == "pp" else min(4, test.n), test.n):  # a warm-up first, as llama-bench does
            peer.forget(test.depth)
            begin = time.perf_counter()
            if test.kind == "pp":
                read(test.depth, test.depth + n, "last")
            else:
                write(test.depth, n)
            speed = n / (time.perf_counter() - begin)
        peer.forget(test.depth)
        return speed

    worker.serve(run)


def cmd_first(args: argparse.Namespace) -> dict[str, Any]:
    peer = Peer(args.model, n_ctx=args.ctx, threads=args.threads, flash=args.flash)
    loaded = time.perf_counter() - START
    ids = peer.tokenize("The capital of France is", True, False)
    peer.decode(ids, 0, "last")
    row = np.ctypeslib.as_array(peer.L.llama_get_logits_ith(peer.ctx, -1), (peer.n_vocab,))
    token = int(row.argmax())
    first = time.perf_counter() - START
    for i in range(args.gen - 1):
        peer.decode([token], len(ids) + i, "last")
        token = int(np.ctypeslib.as_array(peer.L.llama_get_logits_ith(peer.ctx, -1), (peer.n_vocab,)).argmax())
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {"loaded_s": loaded, "first_token_s": first, "peak_rss_bytes": peak}


START = time.perf_counter()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)

    def command(name: str, run: Any, *positionals: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(name)
        sub.set_defaults(run=run)
        for positional in positionals:
            sub.add_argument(positional)
        sub.add_argument("-t", "--threads", type=int, default=2)
        sub.add_argument("--flash", choices=FLASH, default="auto")
        sub.add_argument("--kv", choices=KV, default="f16")
        return sub

    command("info", cmd_info)
    command("tokens", cmd_tokens, "model", "lines")
    logits = command("logits", cmd_logits, "model", "ids", "out")
    logits.add_argument("--yarn-beta", type=float, nargs=2, metavar=("FAST", "SLOW"))
    command("kl", cmd_kl, "model", "cache").add_argument("--chunks", type=int)
    serve = command("serve", cmd_serve, "model")
    serve.add_argument("--context", type=int, default=1024)
    serve.add_argument("--swa-full", action="store_true", help="keep all positions of layers with a sliding window")
    first = command("first", cmd_first, "model")
    first.add_argument("-n", dest="gen", type=int, default=1)
    first.add_argument("--ctx", type=int, default=4096)
    args = parser.parse_args()
    found = args.run(args)
    if found is not None:
        print(json.dumps(found))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
