"""The speed table: names of tests, samples that outlive a stop, ratios and verdicts, and a worker that answers."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import pytest

import ggblock
from ggblock.engine.plan import multiplies_words
from tests.oracle import tiny
from tools.bench import goals, table
from tools.bench.table import ONE, OURS, ROOF, Sample, Samples
from tools.bench.worker import Test as Case
from tools.bench.worker import Worker, context_for

HERE = Path(table.__file__).parent
ON, OFF = "llama.cpp, flash attention on", "llama.cpp, flash attention off"


@pytest.mark.parametrize(
    ("name", "case"),
    [("pp512", Case("pp", 512)), ("tg128", Case("tg", 128)), ("tg64@d4096", Case("tg", 64, 4096))],
)
def test_names_of_tests(name: str, case: Case) -> None:
    assert Case.parse(name) == case
    assert case.name == name


@pytest.mark.parametrize("name", ["", "pp", "tg0", "xx5", "tg5@4096", "pp512 "])
def test_what_is_no_test(name: str) -> None:
    with pytest.raises(ValueError, match="no test"):
        Case.parse(name)


def filled(path: Path | None = None) -> Samples:
    """Three rounds; the machine is half as fast in the second one."""
    samples = Samples(path)
    speeds = {OURS: (700, 350, 710), ONE: (350, 190, 355), ON: (100, 50, 100), OFF: (90, 60, 80)}
    for side, values in speeds.items():
        for i, value in enumerate(values):
            samples.add(Sample("smollm2", "pp512", side, i, value, 0.0))
    for side, values in {OURS: (40, 20, 40), ON: (40, 20, 40), ROOF: (50, 25, 50)}.items():
        for i, value in enumerate(values):
            samples.add(Sample("b1-q4_k_m", "tg128", side, i, value, 0.0))
    return samples


def test_ratios_are_those_of_a_round() -> None:
    samples = filled()
    assert table.against_peer(samples, "smollm2", "pp512") == (ON, 7.0)
    assert table.cell(samples, "smollm2", Case.parse("pp512"), 0) == "7.00 × (goal 6.5): pass"
    assert table.scaling_cell(samples, "smollm2", Case.parse("pp512")).startswith("2.00 × (goal 1.85): pass")
    assert table.cell(samples, "smollm2", Case.parse("tg128"), 0) == "–"


def test_a_short_figure_says_by_how_much() -> None:
    said = table.cell(filled(), "b1-q4_k_m", Case.parse("tg128"), 10**9)
    assert said == "1.00 × (goal 1.2): **short by 17%**; 80% of the roof (goal 95%): **short by 16%**"


def test_a_goal_beyond_the_roof_says_so() -> None:
    samples = Samples()
    for side, value in {OURS: 45, ON: 25, ROOF: 36}.items():
        samples.add(Sample("b1-q4_k_m", "tg128@d4096", side, 0, value, 0.0))
    said = table.cell(samples, "b1-q4_k_m", Case.parse("tg128@d4096"), 8 * 10**8)
    assert said == "1.80 × (goal 2.1): **short by 14%**, would take 117% of the roof; 100% of the roof"


def test_every_row_of_the_table_has_goals() -> None:
    for name, entry in goals.TABLE.items():
        assert entry.goal.prefill > 1, name
        assert entry.goal.deep > 1, name
        assert entry.goal.decode or entry.goal.roof, name


def test_samples_outlive_a_stop(tmp_path: Path) -> None:
    path = tmp_path / "state.jsonl"
    first = filled(path)
    again = Samples(path)
    assert again.all == first.all
    assert again.has("smollm2", "pp512", 2)
    assert not again.has("smollm2", "pp512", 3)
    assert not again.has("smollm2", "tg128", 0)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "text.gguf"
    tiny.write(tiny.by_name("llama_text"), path)
    return path


def test_bytes_of_a_token_count_its_cache(model: Path, tmp_path: Path) -> None:
    with ggblock.open(model) as file:
        keys = {key.split(".", 1)[1]: value for key, value in file.metadata.items() if key.startswith("llama.")}
    head = keys["embedding_length"] // keys["attention.head_count"]
    # a byte of the first plane, and a half for 64 of them; or halves
    per_head = head + 2 * -(-head // 64) if multiplies_words() else 2 * head
    position = keys["block_count"] * 2 * keys["attention.head_count_kv"] * per_head
    assert table.bytes_per_token(model, 100) == table.bytes_per_token(model) + 100 * position

    windowed = tmp_path / "windowed.gguf"
    tiny.write(tiny.by_name("gemma3_text"), windowed)
    assert table.bytes_per_token(windowed) > 0
    assert table.bytes_per_token(windowed, 100) == 0


@pytest.mark.parametrize(
    ("roofs", "kept"), [([60, 35, 35, 36], 35.5), ([60, 35, 50, 35, 60, 40], 42.5), ([50, 49], 49.5)]
)
def test_a_round_is_repeated_when_the_machine_changes(
    roofs: list[float], kept: float, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The steadiest of three tries counts, with the mean of its roofs."""
    left = iter(roofs)

    def ask(self: table.Sides, side: str, case: Case) -> dict[str, float]:
        return {"speed": next(left) if side == ROOF else 5.0, "others": 0.0}

    monkeypatch.setattr(table.Sides, "ask", ask)
    args = argparse.Namespace(tests=["tg4"], rounds=1, threads=1, peer=None, peer_only=False, flash=[], quiet=0.2)
    samples = Samples(tmp_path / "state.jsonl")
    table.measure(args, str(model), model, samples)
    assert samples.speeds(str(model), "tg4", ROOF) == [kept]
    assert samples.speeds(str(model), "tg4", OURS) == [5.0]
    assert not list(left)


def test_our_side_answers(model: Path) -> None:
    cases = [Case("pp", 8), Case("tg", 4), Case("tg", 4, 16), Case("tg", 4, 16), Case("pp", 8)]
    command = [sys.executable, str(HERE / "ours.py"), str(model), "-t", "1", "--context", str(context_for(cases))]
    with Worker(command) as worker:
        for case in cases:
            found = worker.ask(case)
            assert found["speed"] > 0
            assert found["others"] >= 0


def test_a_side_that_fails_is_named(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match=r"missing\.gguf"):
        Worker([sys.executable, str(HERE / "ours.py"), str(tmp_path / "missing.gguf")])


def test_measuring_goes_on_where_it_stopped(model: Path, tmp_path: Path) -> None:
    args = argparse.Namespace(
        tests=["pp8", "tg4"], rounds=2, threads=1, peer=None, peer_only=False, python=sys.executable, flash=["on"],
        load=[], quiet=100.0,
    )  # fmt: skip
    name = str(model)
    samples = Samples(tmp_path / "state.jsonl")
    samples.add(Sample(name, "pp8", OURS, 0, 1.0, 0.0))
    table.measure(args, name, model, samples)
    assert samples.speeds(name, "pp8", OURS)[0] == 1.0
    assert len(samples.speeds(name, "pp8", OURS)) == 2
    assert len(samples.speeds(name, "tg4", ROOF)) == 2
    lines = list(table.report(samples, {name: model}, [Case.parse(t) for t in args.tests], args.threads))
    assert lines[2].startswith("| text.gguf | – | ")
    assert "of the roof" in lines[2]
