"""llama.cpp, asked in a process of its own (tools/bench/llama_peer.py)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
# llama-cpp-python may live in another environment than torch.
PYTHON = os.environ.get("GGBLOCK_PEER_PYTHON", sys.executable)


def ask(*args: str | Path) -> dict[str, Any]:
    """One subcommand of the driver; its JSON answer."""
    command = [PYTHON, str(ROOT / "tools" / "bench" / "llama_peer.py"), *map(str, args)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def logits(path: Path, ids: list[int], folder: Path, *options: str) -> np.ndarray:
    """float32 (n_tokens, n_vocab) with a float32 cache; ``folder`` takes the files in between."""
    np.save(folder / "ids.npy", np.array(ids, np.int32))
    ask("logits", path, folder / "ids.npy", folder / "out.npy", "--kv", "f32", "--flash", "off", *options)
    found: np.ndarray = np.load(folder / "out.npy")
    return found


def tokens(path: Path, lines: list[str], folder: Path, *, add_special: bool, parse_special: bool) -> list[list[int]]:
    """Token ids of every line."""
    job = {"lines": lines, "add_special": add_special, "parse_special": parse_special}
    (folder / "lines.json").write_text(json.dumps(job), encoding="utf-8")
    ids: list[list[int]] = ask("tokens", path, folder / "lines.json")["ids"]
    return ids
