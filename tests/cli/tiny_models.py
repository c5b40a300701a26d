"""Tiny model files, good and damaged, and the command line over them in a process of its own."""
from __future__ import annotations

import dataclasses
import math
import os
import signal
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.oracle import tiny

ROOT = Path(__file__).resolve().parents[2]
NO_END = ("--logit-bias", "0=-inf", "--logit-bias", "2=-inf")
"""Bans the tokens that end a text of llama_text."""
NO_END_BIAS = {0: -math.inf, 2: -math.inf}


def write_all(folder: Path) -> None:
    """text, template-less, vocabulary-only and vocabulary-less models, and files with one fault each."""
    spec = tiny.by_name("llama_text")
    tiny.write(spec, folder / "text.gguf")
    tiny.write(tiny.by_name("llama_f32"), folder / "no_vocabulary.gguf")
    whole = (folder / "text.gguf").read_bytes()
    (folder / "no_template.gguf").write_bytes(whole.replace(b"tokenizer.chat_template", b"tokenizer.Chat_template"))
    (folder / "truncated.gguf").write_bytes(whole[:-1000])
    (folder / "cut_header.gguf").write_bytes(whole[:100])
    (folder / "empty.gguf").write_bytes(b"")
    (folder / "text.txt").write_text("Not a model at all, but long enough to be one.\n" * 10)
    tiny.write(dataclasses.replace(spec, arch="martian"), folder / "unknown_architecture.gguf")
    name = b"blk.0.attn_q.weight"
    start = whole.index(name) + len(name) + 4 + 2 * 8  # after the number of dimensions and two of them
    damaged = bytearray(whole)
    damaged[start : start + 4] = struct.pack("<I", 250)
    (folder / "unknown_type.gguf").write_bytes(damaged)


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "utf-8", "TERM": "dumb"}


def run(*arguments: object, stdin: str | bytes = "", timeout_s: float = 300) -> subprocess.CompletedProcess[str]:
    """Run ``ggblock`` to its end; the output is text."""
    data = stdin.encode() if isinstance(stdin, str) else stdin
    done = subprocess.run(
        command(*arguments), input=data, capture_output=True, env=environment(), timeout=timeout_s, check=False
    )
    return subprocess.CompletedProcess(done.args, done.returncode, done.stdout.decode(), done.stderr.decode())


def run_here(*arguments: object, stdin: str | bytes = "") -> subprocess.CompletedProcess[str]:
    """The same as `run` in this process: for the many ways to be refused, where a process each (0.5 s of imports) would
    tell nothing more."""
    from click.testing import CliRunner

    from ggblock.cli.main import main

    done = CliRunner().invoke(main, [str(each) for each in arguments], input=stdin)
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return subprocess.CompletedProcess(list(arguments), done.exit_code, done.stdout, done.stderr)


def start(*arguments: object, **options: Any) -> subprocess.Popen[bytes]:
    """Start ``ggblock`` so that it can be interrupted, also when the tests themselves run in the background."""
    options.setdefault("bufsize", 0)  # what one read leaves must be there for `communicate`
    return subprocess.Popen(
        command(*arguments),
        env=environment(),
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        **{"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options},
    )


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "ggblock", *map(str, arguments)]


def is_one_line(text: str) -> bool:
    return text.endswith("\n") and text.count("\n") == 1 and "Traceback" not in text
