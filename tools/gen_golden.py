#!/usr/bin/env python3
"""Make the tiny random models of tests/models/golden and the logits that torch computes for them.

Run it where ``torch``, ``transformers`` and ``gguf`` are installed::

    python tools/gen_golden.py            # rewrite every file, print what changed
    python tools/gen_golden.py --check    # rewrite nothing, exit 1 if anything would differ

Each model gives ``NAME.gguf`` and ``NAME.npz``:

- ``ids``: int32 (n_tokens,), the prompt; ``positions``: int32 (n_kept,), the tokens whose logits are kept.
- ``logits``: float32 (n_kept, n_vocab), LlamaForCausalLM / Gemma3ForCausalLM on the dequantized weights.
- ``nmse_int8``: float64, normalised mean squared error of the same logits when the input of every matrix product is
  rounded to int8 with one scale per 256 values and keys and values to half precision, the coarsest arithmetic
  that the fast mode may use: its error bound in the tests is a multiple of this figure.

``index.json`` holds the SHA-256 of each file and the versions that made them; the tests check it.
"""
from __future__ import annotations

import argparse
import hashlib
import json
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tests.oracle import emulate, tiny, torch_models  # noqa: E402

GOLDEN = ROOT / "tests" / "models" / "golden"
N_TOKENS = 40
POSITIONS = (0, 1, 2, 7, 8, 9, 15, 16, 17, 31, 32, 38, 39)


def prompt(n_vocab: int, seed: int) -> np.ndarray:
    return np.random.default_rng([7, seed]).integers(0, n_vocab, size=N_TOKENS).astype(np.int32)


def make(spec: tiny.Spec, folder: Path) -> dict[str, object]:
    """Write NAME.gguf and NAME.npz into ``folder``; return what a person wants to see of them."""
    path = folder / f"{spec.name}.gguf"
    tiny.write(spec, path)
    model = torch_models.load(str(path))
    ids = prompt(model.config.vocab_size, spec.seed)
    exact = torch_models.logits(model, ids)
    with emulate.coarse(model):
        rough = torch_models.logits(model, ids)
    nmse = emulate.nmse(rough, exact)
    np.savez_compressed(
        folder / f"{spec.name}.npz", ids=ids, positions=np.array(POSITIONS, np.int32),
        logits=exact[list(POSITIONS)], nmse_int8=np.float64(nmse),
    )
    return {"bytes": path.stat().st_size, "logits_std": float(exact.std()), "nmse_int8": nmse}


def content(path: Path) -> str:
    """SHA-256 of a model file, or of the arrays of an .npz (its zip container holds dates)."""
    digest = hashlib.sha256()
    if path.suffix == ".gguf":
        digest.update(path.read_bytes())
    else:
        with np.load(path) as arrays:
            for name in sorted(arrays.files):
                digest.update(name.encode() + arrays[name].dtype.str.encode() + arrays[name].tobytes())
    return digest.hexdigest()


def versions() -> dict[str, str]:
    return {name: version(name) for name in ("torch", "transformers", "gguf", "numpy")}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="compare with what is there instead of writing")
    parser.add_argument("--only", help="one model by its name")
    args = parser.parse_args()
    GOLDEN.mkdir(parents=True, exist_ok=True)
    index_path = GOLDEN / "index.json"
    index = json.loads(index_path.read_text()) if index_path.exists() else {"files": {}}
    changed = []
    known = {f"{spec.name}{suffix}" for spec in tiny.SPECS for suffix in (".gguf", ".npz")}
    for name in sorted(set(index["files"]) - known):
        changed.append(name)
        if not args.check:
            (GOLDEN / name).unlink(missing_ok=True)
            del index["files"][name]
    with tempfile.TemporaryDirectory() as tmp:
        for spec in tiny.SPECS:
            if args.only not in (None, spec.name):
                continue
            facts = make(spec, Path(tmp))
            print(f"{spec.name:22} " + "  ".join(f"{k} {v:.4g}" for k, v in facts.items()))
            for name in (f"{spec.name}.gguf", f"{spec.name}.npz"):
                fresh = Path(tmp) / name
                digest = content(fresh)
                if index["files"].get(name) != digest or not (GOLDEN / name).exists():
                    changed.append(name)
                    if not args.check:
                        (GOLDEN / name).write_bytes(fresh.read_bytes())
                        index["files"][name] = digest
    if changed and not args.check:
        index["made_with"] = versions()
        index_path.write_text(json.dumps(index, indent=1, sort_keys=True) + "\n")
    print("changed:", ", ".join(changed) or "nothing")
    return 1 if changed and args.check else 0


if __name__ == "__main__":
    raise SystemExit(main())
