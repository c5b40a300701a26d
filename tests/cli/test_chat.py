"""``ggblock chat`` over a pipe and in a terminal."""
from __future__ import annotations

import json
import os
import pty
import select
import signal
import subprocess
import time
from pathlib import Path

import ggblock
from tests.cli import tiny_models
from tests.cli.tiny_models import NO_END, NO_END_BIAS, is_one_line, run
from tests.inspect import schemas


def test_a_conversation_over_a_pipe(models: Path) -> None:
    lines = "hello\n\n and now?\n"
    done = run("chat", models / "text.gguf", "-n", 6, "--seed", 2, *NO_END, stdin=lines)
    assert done.returncode == 0 and done.stderr == "", done.stderr
    with ggblock.load(models / "text.gguf") as model:
        session = model.session(max_tokens=6, seed=2, logit_bias=NO_END_BIAS)
        expected = "".join("".join(session.send(text)) + "\n" for text in ("hello", " and now?"))
    assert done.stdout == expected


def test_json_tells_the_conversation(models: Path) -> None:
    lines = "hello\n/system be brief\nwho\nwhere\n/quit\nnever read\n"
    done = run("chat", models / "text.gguf", "-n", 3, "--json", *NO_END, stdin=lines)
    document = json.loads(done.stdout)
    schemas.check(document, "chat")
    roles = [(m["role"], m["content"]) for m in document["messages"] if m["role"] != "assistant"]
    assert roles == [("system", "be brief"), ("user", "who"), ("user", "where")]
    assert [a["finish_reason"] for a in document["answers"]] == ["length"] * 3
    assert document["answers"][2]["timings"]["reused_tokens"] > 0
    assert "system message" in done.stderr


def test_commands(models: Path) -> None:
    lines = "one\n/reset\n/nonsense\n/help\ntwo\n"
    done = run("chat", models / "text.gguf", "-n", 1, "--json", "--system", "kind", stdin=lines)
    assert done.returncode == 0
    users = [m["content"] for m in json.loads(done.stdout)["messages"] if m["role"] != "assistant"]
    assert users == ["kind", "two"]
    assert "/nonsense is no command" in done.stderr and "/system TEXT" in done.stderr


def test_a_missing_template_is_said_before_the_first_message(models: Path) -> None:
    done = run("chat", models / "no_template.gguf", "-n", 2, stdin="")
    assert done.returncode == 0 and "ChatML" in done.stderr and is_one_line(done.stderr)


def test_a_conversation_that_outgrows_the_context(models: Path) -> None:
    done = run("chat", models / "text.gguf", "--ctx", 40, "-n", 2, stdin="hi\n" + "many words " * 20 + "\n")
    assert done.returncode == 1 and "40" in done.stderr and is_one_line(done.stderr)


class Terminal:
    """The command in a pseudo-terminal of its own session, as a person has it."""

    def __init__(self, *arguments: object) -> None:
        self.master, slave = pty.openpty()

        def own_terminal() -> None:
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            import fcntl
            import termios

            fcntl.ioctl(0, termios.TIOCSCTTY, 0)

        self.process = subprocess.Popen(
            tiny_models.command(*arguments), stdin=slave, stdout=slave, stderr=slave,
            env=tiny_models.environment(), start_new_session=True, preexec_fn=own_terminal,
        )  # fmt: skip
        os.close(slave)
        self.seen = ""

    def wait_for(self, text: str, timeout_s: float = 120) -> None:
        """Read until ``text`` appears after what was waited for before."""
        end = time.monotonic() + timeout_s
        while text not in self.seen:
            assert time.monotonic() < end, f"no {text!r} in {self.seen!r}"
            if select.select([self.master], [], [], 0.2)[0]:
                self.seen += os.read(self.master, 65536).decode(errors="replace")
        self.seen = self.seen[self.seen.index(text) + len(text) :]

    def write(self, text: str) -> None:
        os.write(self.master, text.encode())

    def finish(self, timeout_s: float = 60) -> int:
        end = time.monotonic() + timeout_s
        while self.process.poll() is None and time.monotonic() < end:
            if select.select([self.master], [], [], 0.1)[0]:
                try:
                    self.seen += os.read(self.master, 65536).decode(errors="replace")
                except OSError:  # the other end is closed
                    break
        code = self.process.wait(5)
        os.close(self.master)
        return code


def test_in_a_terminal_ctrl_c_stops_the_answer_and_ctrl_d_leaves(models: Path) -> None:
    terminal = Terminal("chat", models / "text.gguf", "--ctx", 200_000, "--temp", 2, *NO_END)
    terminal.wait_for("> ")
    terminal.write("hello\r")
    terminal.wait_for("hello\r\n")
    time.sleep(0.5)  # the answer has no end of its own
    terminal.write("\x03")
    terminal.wait_for("\n> ")
    # CPython's `input` sleeps through a Ctrl-C that comes between the prompt and its first wait: press it again then
    for _ in range(20):
        time.sleep(0.5)
        terminal.write("half a li\x03")
        try:
            terminal.wait_for("leaves", timeout_s=5)
            break
        except AssertionError:
            continue
    else:
        raise AssertionError(f"Ctrl-C does nothing at the prompt: {terminal.seen!r}")
    terminal.wait_for("> ")
    terminal.write("\x04")
    assert terminal.finish() == 0
    assert "Traceback" not in terminal.seen
