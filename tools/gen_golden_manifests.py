#!/usr/bin/env python3
"""Let llama.cpp's own gguf-hash hash models of tests/models/golden, for tests/inspect/test_manifest.py.

    python tools/gen_golden_manifests.py PROGRAM [--check]

PROGRAM is ``llama-gguf-hash``, which llama.cpp's CMake builds; its source is also in llama-cpp-python's sdist. The
files here were made with that of 0.3.36 (llama.cpp 0c1e57098). ``--check`` rewrites nothing and exits 1 if
anything would differ.
"""
from __future__ import annotations

import argparse
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MODELS, OUT = ROOT / "tests" / "models" / "golden", ROOT / "tests" / "inspect" / "golden"
NAMES = ("llama_every_type", "llama_one_bit")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program", type=Path)
    parser.add_argument("--check", action="store_true")
    args = parser.parse_args()
    program = args.program.resolve()

    def run(*arguments: str) -> str:
        return subprocess.run([program, *arguments], cwd=MODELS, check=True, capture_output=True, text=True).stdout

    OUT.mkdir(exist_ok=True)
    changed = []
    for name in NAMES:
        manifest = OUT / f"{name}.manifest"
        made = {manifest: run("--all", "--uuid", f"{name}.gguf")}
        if not args.check:
            manifest.write_text(made[manifest])
        # What the program says when it checks a file against its own manifest can be used as one, too.
        made[OUT / f"{name}.checked"] = run("--check", f"../../inspect/golden/{manifest.name}", f"{name}.gguf")
        for path, text in made.items():
            if args.check and (not path.exists() or path.read_text() != text):
                changed.append(path.name)
            if not args.check:
                path.write_text(text)
    print("changed:", ", ".join(changed) or "nothing")
    return 1 if changed else 0


if __name__ == "__main__":
    raise SystemExit(main())
