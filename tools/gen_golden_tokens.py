#!/usr/bin/env python3
"""Make the token ids in tests/tokenizer/golden with llama.cpp, never with ggblock.

Run it where ``llama-cpp-python`` is installed, from the root of the checkout::

    python tools/gen_golden_tokens.py --smollm2 SMOLLM2.gguf --gemma3 GEMMA3.gguf [--check]

- ``lines.json.gz``: 2,600 hard lines.
- ``smollm2.json.gz``, ``gemma3.json.gz``: their ids and texts with the real vocabularies.
- ``small.json.gz``: small vocabularies, and the ids of 400 lines for each with each pre-tokenizer and each setting.

``--check`` writes nothing and exits with 1 if anything would differ. ``index.json`` holds the SHA-256 of each file's
content and the version that made it.
"""
from __future__ import annotations

import argparse
import ctypes
import gzip
import hashlib
import json
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tools"), str(ROOT / "tools" / "bench")]

import golden_texts  # noqa: E402
import golden_vocabularies  # noqa: E402
from llama_peer import Peer  # noqa: E402

from ggblock.format.metadata import Typed  # noqa: E402
from ggblock.format.writer import GgufWriter  # noqa: E402

GOLDEN = ROOT / "tests" / "tokenizer" / "golden"
PRE = "tokenizer.ggml.pre"
PRE_NAMES = (
    "default gpt-2 llama-bpe qwen2 qwen35 smollm deepseek-llm deepseek-coder deepseek-v3 falcon starcoder refact"
    " command-r mpt tekken gpt-4o poro-chat viking stablelm2 dbrx glm4 seed-coder minicpm5 superbpe laguna"
).split()


def write_vocabulary(path: Path, metadata: dict[str, object]) -> None:
    kinds = {"_id": "u32", "_length": "u32", "_count": "u32"}
    typed: dict[str, object] = {}
    for key, value in metadata.items():
        kind = next((kind for end, kind in kinds.items() if key.endswith(end)), None)
        typed[key] = Typed(kind, value) if kind else value
        if key.endswith("token_type"):
            typed[key] = Typed("i32[]", value)
        elif key.endswith("scores"):
            typed[key] = Typed("f32[]", value)
    with GgufWriter(path, typed, []):
        pass


def detokenize(peer: Peer, ids: list[int]) -> str:
    room = 64 * len(ids) + 64
    buffer = ctypes.create_string_buffer(room)
    array = (ctypes.c_int32 * len(ids))(*ids)
    count = peer.L.llama_detokenize(peer.vocab, array, len(ids), buffer, room, False, False)
    return buffer.raw[:count].decode("utf-8", "replace")


def tokens_that_end(peer: Peer) -> list[int]:
    return [token for token in range(peer.n_vocab) if peer.L.llama_vocab_is_eog(peer.vocab, token)]


def ids_of(peer: Peer, lines: list[str]) -> dict[str, Any]:
    return {
        "plain": [peer.tokenize(line, True, False) for line in lines],
        "parsed": [peer.tokenize(line, False, True) for line in lines],
        "eog": tokens_that_end(peer),
    }


def real(path: Path, lines: list[str]) -> dict[str, Any]:
    peer = Peer(str(path), n_ctx=0, threads=1, vocab_only=True)
    result = ids_of(peer, lines)
    result["text"] = [detokenize(peer, ids) for ids in result["parsed"]]
    return result


def small(lines: list[str]) -> dict[str, Any]:
    vocabularies = {
        "byte_pairs": golden_vocabularies.byte_pairs(),
        "pieces": golden_vocabularies.pieces(),
        "marked_pairs": golden_vocabularies.marked_pairs(),
        "word_pieces": golden_vocabularies.word_pieces(),
    }
    yes, no = True, False
    settings: list[tuple[str, dict[str, object]]] = [("byte_pairs", {PRE: name}) for name in PRE_NAMES]
    flags = ("tokenizer.ggml.add_bos_token", "tokenizer.ggml.add_eos_token", "tokenizer.ggml.add_space_prefix")
    settings += [("byte_pairs", {PRE: "gpt-2", flags[0]: yes, flags[1]: yes})]
    settings += [("pieces", {}), ("pieces", {flags[0]: no, flags[2]: no}), ("pieces", {flags[1]: yes})]
    settings += [("pieces", {"general.name": "Phi-3 mini"})]
    settings += [("marked_pairs", {})]
    normalizer = "tokenizer.ggml.normalizer."
    settings += [("word_pieces", {}), ("word_pieces", {normalizer + "lowercase": no})]
    settings += [("word_pieces", {normalizer + "lowercase": yes, normalizer + "strip_accents": no})]
    cases = []
    with tempfile.TemporaryDirectory() as folder:
        for name, changes in settings:
            path = Path(folder) / "vocabulary.gguf"
            write_vocabulary(path, {**vocabularies[name], **changes})
            cases.append({"vocabulary": name, "changes": changes, **ids_of(peer_of(path), lines)})
            path.unlink()
    return {"vocabularies": vocabularies, "lines": lines, "cases": cases}


def peer_of(path: Path) -> Peer:
    return Peer(str(path), n_ctx=0, threads=1, vocab_only=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--smollm2", type=Path, required=True)
    parser.add_argument("--gemma3", type=Path, required=True)
    parser.add_argument("--check", action="store_true")
    args = parser.parse_args()
    lines = golden_texts.lines(2600, seed=1)
    files: dict[str, Any] = {
        "lines": lines,
        "smollm2": real(args.smollm2, lines),
        "gemma3": real(args.gemma3, lines),
        "small": small(golden_texts.lines(400, seed=2)),
    }
    contents = {name: json.dumps(value, ensure_ascii=True, separators=(",", ":")) for name, value in files.items()}
    index = {
        "llama-cpp-python": version("llama-cpp-python"),
        "sha256": {name: hashlib.sha256(text.encode()).hexdigest() for name, text in contents.items()},
    }
    index_path = GOLDEN / "index.json"
    old = json.loads(index_path.read_text(encoding="utf-8")) if index_path.exists() else {"sha256": {}}
    changed = [name for name in files if old["sha256"].get(name) != index["sha256"][name]]
    print("changed:", ", ".join(changed) or "nothing")
    if args.check:
        return 1 if changed else 0
    GOLDEN.mkdir(parents=True, exist_ok=True)
    for name in changed:
        (GOLDEN / f"{name}.json.gz").write_bytes(gzip.compress(contents[name].encode(), 9, mtime=0))
    index_path.write_text(json.dumps(index, indent=1) + "\n", encoding="utf-8", newline="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
