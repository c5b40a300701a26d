"""Coverage-guided fuzzing of everything that reads GGUF and GGB files; optional, needs the package ``atheris``.

    pip install atheris
    python tools/fuzz/fuzz.py TARGET --seconds 60

``TARGET`` is one of `targets.TARGETS`. Anything but a sound file or a named error is a crash, and so is a file of at
most 8 kB that brings the process to 640 MB. Any other argument goes to libFuzzer, e.g. a folder to keep the corpus in.
"""
from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import atheris

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

ROOMS = ["ggblock.format", "ggblock.inspect", "ggblock.convert", "ggblock.tokenizer", "tools"]
with atheris.instrument_imports(include=ROOMS):
    from tools.fuzz import targets


def main() -> None:
    arguments = sys.argv[1:]
    if not arguments or arguments[0] not in targets.TARGETS:
        sys.exit(f"usage: fuzz.py {'|'.join(targets.TARGETS)} [--seconds N] [libFuzzer's arguments]")
    target = targets.TARGETS[arguments.pop(0)]
    if "--seconds" in arguments:
        at = arguments.index("--seconds")
        arguments[at : at + 2] = [f"-max_total_time={int(arguments[at + 1])}"]
    corpus = Path(tempfile.mkdtemp(prefix="ggblock-corpus-"))
    for number, raw in enumerate(targets.seeds()):
        (corpus / f"{number:03d}").write_bytes(raw)
    words = corpus.with_suffix(".dict")
    quoted = ("".join(f"\\x{byte:02x}" for byte in word) for word in targets.words())
    words.write_text("".join('"' + word + '"\n' for word in quoted))
    path = Path(tempfile.mkdtemp(prefix="ggblock-fuzz-")) / "m.gguf"

    def one_input(data: bytes) -> None:
        path.write_bytes(data)
        target(path)

    options = ["-rss_limit_mb=640", "-max_len=8192", "-timeout=60", f"-dict={words}"]
    atheris.Setup([sys.argv[0], *options, *arguments, str(corpus)], one_input)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
