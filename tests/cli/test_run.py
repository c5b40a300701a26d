"""``ggblock run`` from outside: text, faults, interruption."""
from __future__ import annotations

import json
import signal
import subprocess
import time
from pathlib import Path

import pytest

import ggblock
from tests.cli.tiny_models import NO_END, NO_END_BIAS, is_one_line, run, run_here, start
from tests.inspect import schemas


def test_the_answer_goes_to_stdout(models: Path) -> None:
    done = run("run", models / "text.gguf", "-p", "hello", "-n", 12, "--seed", 1, *NO_END)
    assert done.returncode == 0, done.stderr
    with ggblock.load(models / "text.gguf") as model:
        messages = [{"role": "user", "content": "hello"}]
        expected = model.chat(messages, 12, seed=1, logit_bias=NO_END_BIAS).run().text
    assert done.stdout.rstrip("\n") == expected.rstrip("\n") and done.stdout.endswith("\n")


def test_a_seed_gives_one_text_with_any_number_of_threads(models: Path) -> None:
    texts = {
        run("run", models / "text.gguf", "-p", "hello", "-n", 40, "--seed", 7, "-t", threads, *NO_END).stdout
        for threads in (1, 2, 2)
    }
    assert len(texts) == 1 and len(texts.pop()) > 10


def test_json_is_one_document_with_text_ids_and_timings(models: Path) -> None:
    done = run("run", models / "text.gguf", "-p", "hello", "-n", 5, "--seed", 3, "--json", *NO_END)
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    schemas.check(document, "run")
    assert len(document["ids"]) == 5 and document["finish_reason"] == "length" and document["seed"] == 3
    tokenizer = ggblock.load_tokenizer(models / "text.gguf")
    assert document["text"] == tokenizer.detokenize(document["ids"])
    timings = document["timings"]
    assert timings["prompt_tokens"] == len(document["prompt_ids"]) and timings["generated_tokens"] == 5
    for name in ("load_s", "prompt_s", "first_token_s", "decode_s", "prefill_tokens_per_s", "decode_tokens_per_s"):
        assert timings[name] > 0, name


def test_raw_continues_the_text_as_it_is(models: Path) -> None:
    document = json.loads(run("run", models / "text.gguf", "-p", "the rain", "--raw", "-n", 3, "--json").stdout)
    assert document["prompt_ids"] == ggblock.load_tokenizer(models / "text.gguf").tokenize("the rain")


def test_a_file_without_template_is_continued_and_that_is_said(models: Path) -> None:
    done = run("run", models / "no_template.gguf", "-p", "the rain", "-n", 3, *NO_END)
    assert done.returncode == 0 and "no chat template" in done.stderr and is_one_line(done.stderr)
    done = run("run", models / "no_template.gguf", "-p", "the rain", "--system", "be kind")
    assert done.returncode == 1 and "--system" in done.stderr and is_one_line(done.stderr)


def test_a_prompt_from_standard_input(models: Path) -> None:
    arguments = ("run", models / "text.gguf", "--raw", "-n", 1, "--json")
    prompt_ids = json.loads(run(*arguments, "-p", "-", stdin="some – text\n").stdout)["prompt_ids"]
    assert prompt_ids == json.loads(run(*arguments, "-p", "some – text\n").stdout)["prompt_ids"]
    done = run(*arguments, "-p", "-", stdin=b"ab\xff")
    assert done.returncode == 1 and "UTF-8" in done.stderr and "byte 2" in done.stderr and is_one_line(done.stderr)


def test_no_tokens_is_a_clean_end(models: Path) -> None:
    done = run("run", models / "text.gguf", "-p", "hello", "-n", 0)
    assert (done.returncode, done.stdout) == (0, "")
    document = json.loads(run("run", models / "text.gguf", "-p", "hello", "-n", 0, "--json").stdout)
    assert (document["text"], document["ids"], document["finish_reason"]) == ("", [], "length")


def test_a_full_context_ends_with_a_word(models: Path) -> None:
    done = run("run", models / "text.gguf", "-p", "hello", "--raw", "-n", -1, "--ctx", 16, "--json", *NO_END)
    document = json.loads(done.stdout)
    assert done.returncode == 0 and document["finish_reason"] == "context"
    assert len(document["prompt_ids"]) + len(document["ids"]) == 17
    assert "context is full" in done.stderr and "16" in done.stderr and is_one_line(done.stderr)


def test_stop_strings(models: Path) -> None:
    arguments = ("run", models / "text.gguf", "-p", "hello", "-n", 30, "--seed", 1, "--json", *NO_END)
    free = json.loads(run(*arguments).stdout)["text"]
    stop = free[8:12]
    document = json.loads(run(*arguments, "--stop", "not to be seen", "--stop", stop).stdout)
    assert document["text"] == free[: free.index(stop)]
    assert (document["finish_reason"], document["stop_string"]) == ("stop_string", stop)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("absent.gguf", "neither a file nor a catalog name"),
        ("", "directory"),
        ("truncated.gguf", ""),
        ("cut_header.gguf", ""),
        ("empty.gguf", ""),
        ("text.txt", "GGUF"),
        ("unknown_architecture.gguf", "martian"),
        ("unknown_type.gguf", "250"),
        ("no_vocabulary.gguf", ""),
    ],
)
@pytest.mark.parametrize("command", ["run", "chat"])
def test_a_file_that_cannot_run_is_one_line(models: Path, name: str, says: str, command: str) -> None:
    path = models / name if name else models
    done = run_here(command, path, *(("-p", "hello") if command == "run" else ()), stdin="hello\n")
    assert done.returncode == 1 and done.stdout == ""
    assert is_one_line(done.stderr) and says in done.stderr
    assert str(path) in done.stderr


def test_a_prompt_longer_than_the_context(models: Path) -> None:
    done = run_here("run", models / "text.gguf", "--raw", "-p", "a b " * 20, "--ctx", 16)
    assert done.returncode == 1 and done.stdout == "" and is_one_line(done.stderr)
    n_tokens = len(ggblock.load_tokenizer(models / "text.gguf").tokenize("a b " * 20))
    assert "16" in done.stderr and str(n_tokens) in done.stderr


@pytest.mark.parametrize(("option", "value"), [("--offload", "no-such-device")])
def test_an_engine_setting_that_does_not_exist(models: Path, option: str, value: str) -> None:
    done = run_here("run", models / "text.gguf", "-p", "hello", option, value)
    assert done.returncode == 1 and done.stdout == ""
    assert is_one_line(done.stderr) and option.strip("-") in done.stderr and value in done.stderr


def test_reference_mode_writes_what_fast_mode_writes_for_a_while(models: Path) -> None:
    arguments = ("run", models / "text.gguf", "-p", "hello", "-n", 2, "--temp", 0, "--json", *NO_END)
    fast, exact = (json.loads(run(*arguments, *extra).stdout) for extra in ((), ("--reference",)))
    assert fast["ids"] == exact["ids"] and len(exact["ids"]) == 2


def test_an_empty_prompt_without_bos(models: Path) -> None:
    done = run_here("run", models / "text.gguf", "--raw", "-p", "")
    assert done.returncode == 1 and "empty" in done.stderr and is_one_line(done.stderr)


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("-p", "x", "--temp", "-1"),
        ("-p", "x", "-n", "-2"),
        ("-p", "x", "--logit-bias", "5"),
        ("-p", "x", "--top-p", "2"),
        ("-p", "x", "--raw", "--system", "y"),
        ("-p", "x", "--ctx", "0"),
        ("-p", "x", "--threads", "0"),
        ("-p", "x", "--kv", "q9"),
        ("-p", "x", "--activations", "rough"),
        ("-p", "x", "--no"),
    ],
)
def test_wrong_usage_is_exit_code_2(models: Path, arguments: tuple[str, ...]) -> None:
    done = run_here("run", models / "text.gguf", *arguments)
    assert done.returncode == 2 and done.stdout == "" and "Traceback" not in done.stderr


@pytest.mark.parametrize("extra", [(), ("--json",)])
def test_ctrl_c_keeps_the_text_so_far(models: Path, extra: tuple[str, ...]) -> None:
    arguments = ("run", models / "text.gguf", "-p", "hello", "--ctx", 200_000, "--temp", 2, *NO_END, *extra)
    begin = time.monotonic()
    assert run(*arguments, "-n", 2).returncode == 0
    start_s = time.monotonic() - begin
    process = start(*arguments, "-n", -1)
    assert process.stdout is not None and process.stderr is not None
    if extra:  # nothing is to be seen before the end
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(1.0 + 3 * start_s)
        first = b""
    else:
        first = process.stdout.read(1)
        assert first, process.stderr.read().decode()
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate(timeout=60)
    text = (first + stdout).decode()
    assert process.returncode == 130 and b"Traceback" not in stderr
    assert text.endswith("\n")
    if extra:
        document = json.loads(text)
        assert document["finish_reason"] == "cancelled" and len(document["ids"]) > 0


def test_a_reader_that_leaves_ends_the_writer(models: Path) -> None:
    process = start("run", models / "text.gguf", "-p", "hello", "-n", -1, "--ctx", 200_000, *NO_END)
    assert process.stdout is not None and process.stderr is not None
    process.stdout.read(1)
    process.stdout.close()
    assert process.wait(60) != 0
    assert b"Traceback" not in process.stderr.read()
