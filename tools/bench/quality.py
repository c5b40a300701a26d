#!/usr/bin/env python3
"""What a run of ggblock loses: its logits against exact ones (torch, float32, dequantized weights), beside llama.cpp's.

    python tools/bench/quality.py MODEL.gguf TEXT.txt --cache /tmp/exact/MODEL \
        --oracle-python /env/with/torch/bin/python --peer-python /env/with/llama-cpp-python/bin/python

The text is cut into chunks of 512 tokens and the second half of each is scored (12 chunks: 3,072 tokens). Checked are

- reference mode: normalised mean squared error of the logits at most 1e-6;
- fast mode, the prompt read in one go and token by token: mean KL at most that of llama.cpp on the same tokens;
- greedy continuations of 20 prompts, 64 tokens: fast mode equals reference mode up to a first divergence at which the
  two best logits are closer than the largest error of such a gap that was measured on the text (of prefill for a
  first token, of decoding for the others).

Exact logits are computed once and kept in the cache folder. Exit code 1 when a check fails.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
sys.path[:0] = [str(HERE), str(ROOT)]

import exact  # noqa: E402
import machine  # noqa: E402

PROMPTS = (
    "The capital of France is",
    "Once upon a time, in a small village by the sea,",
    "def fibonacci(n):\n    ",
    "Water boils at",
    "The three laws of motion state that",
    "Dear Sir or Madam,\n\nI am writing to",
    "Q: What is the tallest mountain on Earth?\nA:",
    "1, 2, 3, 5, 8, 13,",
    "In 1969, the first human",
    "To bake bread, you need",
    "The difference between a frog and a toad is",
    "Photosynthesis is the process by which",
    "import numpy as np\n\n",
    "She opened the letter and read:",
    "The stock market fell sharply today after",
    "Wer nicht wagt,",
    "Our solar system consists of",
    "The best way to learn a language is",
    "<html>\n<head>\n",
    "It was a dark and stormy night;",
)


def open_model(path: str, args: argparse.Namespace, *, reference: bool, context: int = 512) -> Any:
    import ggblock
    from ggblock import models

    return models.build(
        ggblock.open(path),
        threads=args.threads,
        context=context,
        reference=reference,
        kv_type="f32" if reference else args.kv,
        activations="exact" if reference else args.activations,
    )


def read_exact(args: argparse.Namespace) -> exact.Cache:
    """The cache, completed by the oracle's interpreter when there is one."""
    folder, name = Path(args.cache), Path(args.model).name
    facts = folder / "cache.json"
    if facts.exists() and (other := json.loads(facts.read_text())["model"]) != name:
        raise SystemExit(f"{folder}: has the exact logits of {other}, not of {name}; name another folder")
    if args.oracle_python:
        import ggblock
        from ggblock.evaluate import chunks

        tokenizer = ggblock.load_tokenizer(args.model)
        text = Path(args.text).read_text(encoding="utf-8")[: args.chunks * 512 * 8]
        with ggblock.open(args.model) as file:
            begins = bool(file.metadata.get("tokenizer.ggml.add_bos_token", False))
        parts = chunks.split(
            tokenizer.tokenize(text, add_special=False), limit=args.chunks, bos_id=tokenizer.bos_id if begins else None
        )
        folder.mkdir(parents=True, exist_ok=True)
        job = folder / "job.json"
        job.write_text(json.dumps({"chunks": parts.ids.tolist(), "first_scored": parts.first_scored}))
        machine.run([args.oracle_python, str(HERE / "exact.py"), args.model, str(job), str(folder)])
    return exact.Cache(folder)


def scored(model: Any, ids: list[int], first: int, *, step: int) -> np.ndarray:
    """float32 (n_scored, n_vocab): the context in one forward, the scored tokens ``step`` at a time."""
    model.forward(ids[:first], 0)
    rows = [model.forward(ids[i : i + step], i, all_logits=True).copy() for i in range(first, len(ids), step)]
    return np.concatenate(rows)


def measure(args: argparse.Namespace, cache: exact.Cache) -> dict[str, Any]:
    """Divergence of reference mode, of fast prefill and of fast decode."""
    first, found = cache.first_scored, {}
    jobs = (
        ("reference", True, len(cache.ids[0]), args.reference_chunks),
        ("prefill", False, 512, args.chunks),
        ("decode", False, 1, args.decode_chunks),
    )
    for name, reference, step, n_chunks in jobs:
        if n_chunks == 0:
            continue
        model = open_model(args.model, args, reference=reference)
        try:
            found[name] = cache.compare(lambda ids, m=model, s=step: scored(m, ids, first, step=s), chunks=n_chunks)
        finally:
            model.close()
        print(name, json.dumps(found[name]), file=sys.stderr, flush=True)
    return found


def continuation(model: Any, ids: list[int], n: int) -> tuple[list[int], list[np.ndarray]]:
    """Greedy tokens and the row of logits that each was chosen from."""
    tokens: list[int] = []
    rows = []
    row = model.forward(ids, 0)[-1].copy()
    while len(tokens) < n:
        rows.append(row)
        tokens.append(int(row.argmax()))
        row = model.forward(tokens[-1:], len(ids) + len(tokens) - 1)[-1].copy()
    return tokens, rows


def greedy(args: argparse.Namespace, measured: dict[str, Any]) -> dict[str, Any]:
    """First divergences of fast mode from reference mode, each with the gap of the two best reference logits.

    ``measured``: what `measure` found; the first token comes from a prefill, the others from decoding.
    """
    import ggblock

    tokenizer = ggblock.load_tokenizer(args.model)
    prompts = [tokenizer.tokenize(text) for text in PROMPTS]
    runs = []
    for reference in (True, False):
        model = open_model(args.model, args, reference=reference, context=max(map(len, prompts)) + 65)
        try:
            runs.append([continuation(model, ids, 64) for ids in prompts])
        finally:
            model.close()
    divergences = []
    for text, (wanted, rows), (found, _) in zip(PROMPTS, *runs, strict=True):
        at = next((i for i, (a, b) in enumerate(zip(wanted, found, strict=True)) if a != b), None)
        if at is not None:
            second, first = np.sort(rows[at])[-2:]
            error = measured["prefill" if at == 0 else "decode"]["max_gap_error"]
            gap = float(first - second)
            divergences.append({"prompt": text, "at": at, "gap": gap, "max_gap_error": error, "explained": gap < error})
    return {"prompts": len(PROMPTS), "equal": len(PROMPTS) - len(divergences), "divergences": divergences}


def verdicts(found: dict[str, Any]) -> list[tuple[str, bool]]:
    checks = []
    if "reference" in found:
        checks.append((f"reference NMSE {found['reference']['nmse']:.2e} <= 1e-6", found["reference"]["nmse"] <= 1e-6))
    if "peer" in found:
        for name in ("prefill", "decode"):
            if name in found:
                ours, peer = found[name]["mean_kl"], found["peer"]["mean_kl"]
                checks.append(
                    (f"{name} mean KL {ours:.6f} <= llama.cpp's {peer:.6f} ({ours / peer:.2f} of it)", ours <= peer)
                )
    if "greedy" in found:
        result = found["greedy"]
        checks.append(
            (
                f"greedy: {result['equal']} of {result['prompts']} equal, every divergence at a near tie",
                all(d["explained"] for d in result["divergences"]),
            )
        )
    return checks


def record(args: argparse.Namespace, found: dict[str, Any], checks: list[tuple[str, bool]]) -> None:
    """Append what was found to RESULTS.md."""
    facts = machine.describe()
    lines = [
        machine.title("quality"),
        "",
        f"{Path(args.model).name} on {Path(args.text).name}, exact logits from torch in float32; {facts['cpu']}.",
        "",
        "| run | scored tokens | mean KL | 99.9 % KL | same top-1 | NMSE of logits | perplexity exact / as run |",
        "|---|---|---|---|---|---|---|",
    ]
    for name in ("reference", "prefill", "decode", "peer"):
        if name in found:
            one = found[name]
            label = {"peer": "llama.cpp", "reference": "reference mode"}.get(name, f"fast mode, {name}")
            lines.append(
                f"| {label} | {one['n_tokens']} "
                f"| {one['mean_kl']:.2g} ± {one['mean_kl_stderr']:.1g} | {one['kl_999']:.2g} "
                f"| {one['same_top1']:.1%} | {one['nmse']:.2g} "
                f"| {one['perplexity_exact']:.2f} / {one['perplexity']:.2f} |"
            )
    lines += ["", *(f"- {'pass' if good else 'FAIL'}: {text}" for text, good in checks)]
    machine.append(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("text", nargs="?", default=str(ROOT.parent / "shared" / "data" / "prose.txt"))
    parser.add_argument("--cache", required=True, help="folder of the exact logits")
    parser.add_argument("--oracle-python")
    parser.add_argument("--peer-python")
    parser.add_argument("--chunks", type=int, default=12)
    parser.add_argument("--reference-chunks", type=int, default=2)
    parser.add_argument("--decode-chunks", type=int, default=12)
    parser.add_argument("--no-greedy", action="store_true")
    parser.add_argument("--kv")
    parser.add_argument("--activations", default="fast")
    parser.add_argument("-t", dest="threads", type=int, default=2)
    parser.add_argument("--record", action="store_true", help="append to tools/bench/RESULTS.md")
    parser.add_argument("--out", help="write all figures as JSON to this file")
    args = parser.parse_args()
    cache = read_exact(args)
    found = measure(args, cache)
    if args.peer_python:
        done = machine.run(
            [
                args.peer_python,
                str(HERE / "llama_peer.py"),
                "kl",
                args.model,
                args.cache,
                "--chunks",
                str(args.chunks),
                "-t",
                str(args.threads),
            ]
        )
        found["peer"] = json.loads(done.stdout)
    if not args.no_greedy:
        found["greedy"] = greedy(args, found)
    if args.out:
        Path(args.out).write_text(json.dumps(found, indent=1))
    print(json.dumps(found, indent=1))
    checks = verdicts(found)
    if args.record:
        record(args, found, checks)
    for text, good in checks:
        print(("pass  " if good else "FAIL  ") + text)
    return 0 if all(good for _, good in checks) else 1


if __name__ == "__main__":
    raise SystemExit(main())
