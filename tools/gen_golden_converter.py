#!/usr/bin/env python3
"""Convert the checkpoints of tests/convert/converter_cases.py with llama.cpp's converter, and keep what it wrote.

    python tools/gen_golden_converter.py LLAMA_CPP --python PYTHON [--checkpoint FOLDER] [--check]

LLAMA_CPP is llama.cpp's source tree (the source package of llama-cpp-python holds it under ``vendor/llama.cpp``),
PYTHON an interpreter with torch, transformers, sentencepiece and gguf. Writes tests/convert/golden/converter.json: of
each checkpoint and type every metadata key with its kind and value (long lists as SHA-256), every tensor with type,
shape and SHA-256 of its bytes, in the order of the file. ``--check`` writes nothing and compares.

``--checkpoint`` compares a real checkpoint, converted by both to all four types, and writes nothing.

One thing is told to the converter: the name of the pre-tokenizer of the tests' vocabulary, whose hash it cannot know.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tests.convert.converter_cases import CASES, TYPES, facts  # noqa: E402

TARGET = ROOT / "tests" / "convert" / "golden" / "converter.json"
SHIM = """
import runpy, sys
tree, known, folder, target, *kinds = sys.argv[1:]
sys.path[:0] = [tree, tree + "/gguf-py"]
if known:
    from conversion.base import TextModel
    TextModel.get_vocab_base_pre = lambda self, tokenizer: known
for kind in kinds:
    sys.argv = ["convert_hf_to_gguf.py", folder, "--outfile", f"{target}/{kind}.gguf", "--outtype", kind]
    runpy.run_path(tree + "/convert_hf_to_gguf.py", run_name="__main__")
"""


def theirs(folder: Path, args: argparse.Namespace, known: str) -> dict[str, Any]:
    """What llama.cpp's converter writes, by type."""
    with tempfile.TemporaryDirectory() as scratch:
        command = [args.python, "-c", SHIM, args.llama_cpp, known, str(folder), scratch, *TYPES]
        run = subprocess.run(command, capture_output=True, text=True)
        if run.returncode:
            raise SystemExit(f"{folder.name}: {run.stderr[-2000:]}")
        return {kind: facts(Path(scratch) / f"{kind}.gguf") for kind in TYPES}


def ours(folder: Path, kind: str) -> dict[str, Any]:
    """What `ggblock.convert` writes, without the keys that only it has."""
    from ggblock.convert import convert

    with tempfile.TemporaryDirectory() as scratch:
        convert(folder, Path(scratch) / "ours.gguf", kind)
        found = facts(Path(scratch) / "ours.gguf")
    found["keys"] = [key for key in found["keys"] if not key[0].startswith("ggblock.")]
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("llama_cpp")
    parser.add_argument("--python", default=sys.executable)
    parser.add_argument("--checkpoint", type=Path)
    parser.add_argument("--case", action="append", choices=CASES, help="Make only these anew. May be repeated.")
    parser.add_argument("--check", action="store_true")
    args = parser.parse_args()
    if args.checkpoint:
        different = []
        golden = theirs(args.checkpoint, args, "")
        for kind in TYPES:
            a, b = ours(args.checkpoint, kind), golden[kind]
            different += [kind] * (a != b)
            said = "the same" if a == b else "DIFFERENT"
            print(f"{kind}: {len(a['keys'])} keys and {len(a['tensors'])} tensors, {said}")
        return bool(different)
    found: dict[str, Any] = {}
    for key, fact in json.loads(TARGET.read_text(encoding="utf-8")).items() if args.case else ():
        name, kind = key.split()
        found.setdefault(name, {})[kind] = fact
    for name, make in CASES.items():
        if args.case and name not in args.case:
            continue
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch) / name
            make(folder)
            found[name] = theirs(folder, args, "gpt-2")
        first = found[name]["f32"]["keys"]
        for kind in TYPES[1:]:  # most keys are the same for every type
            found[name][kind]["keys"] = [key for key in found[name][kind]["keys"] if key not in first]
        print(name, flush=True)
    lines = []
    for name, kinds in found.items():
        for kind, fact in kinds.items():
            lines.append(f' "{name} {kind}": {json.dumps(fact)}')
    text = "{\n" + ",\n".join(lines) + "\n}\n"
    if args.check:
        same = TARGET.read_text(encoding="utf-8") == text
        print("the same" if same else "different")
        return not same
    TARGET.write_text(text, encoding="utf-8", newline="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
