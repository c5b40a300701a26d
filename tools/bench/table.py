#!/usr/bin/env python3
"""The speed table: ggblock and llama.cpp on the same files in turn, with the machine's read bandwidth, and goals.

    python tools/bench/table.py --peer /path/with/llama-cpp-python/bin/python                       # all, some 20 min
    python tools/bench/table.py --peer PYTHON --models smollm2 --tests pp512 tg32 --rounds 2 --no-record   # seconds
    python tools/bench/table.py --peer PYTHON --models other.gguf --tests pp300 tg64@d2000
    chrt -f 2 python tools/bench/table.py ...           # on a busy machine: all sides inherit the priority

What is missing is made first: catalog models are fetched, the model of 1.07 B random weights is written by our writer
and converted by ``ggblock convert`` (3 GB in ``--dir``). Every side is a process that stays loaded (``worker.py``). A
round asks each of them once for the same test: ggblock, llama.cpp with and without flash attention, ggblock on one
thread for prefill, the read bandwidth for decode. A side is asked again, up to twice, when others used more than
``--quiet`` cores meanwhile, and a round when its read bandwidth changed from its begin to its end (virtual cores move:
one chip's memory gives 35 GB/s, two chips' 60). Figures are medians over the rounds; ratios are medians of each round's
ratio, so that a machine that slows down for a minute does not count against one side. The faster of llama.cpp's two
ways counts. Where a ratio asks for more than the roof, the cell says so: no program reads that fast.

The table is printed and appended to RESULTS.md with the facts of the machine. What has been measured is kept in
``--state`` as it comes, and the same command goes on where it was stopped.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from statistics import fmean, median

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
sys.path[:0] = [str(ROOT), str(HERE)]

import goals  # noqa: E402
import machine  # noqa: E402
import random_model  # noqa: E402
from worker import Test, Worker, context_for  # noqa: E402

OURS, ONE, ROOF = "ggblock", "ggblock, 1 thread", "roof"
TESTS = ("pp512", "tg128", "tg128@d4096")


@dataclass(frozen=True)
class Sample:
    """One measurement. ``speed``: tokens a second, of the roof GB a second. ``others``: cores that others used."""

    model: str
    test: str
    side: str
    round: int
    speed: float
    others: float


class Samples:
    """All samples of a run, also in ``path`` where that is given: read at the start, appended to as they come."""

    def __init__(self, path: Path | None = None) -> None:
        self._path = path
        lines = path.read_text(encoding="utf-8").splitlines() if path is not None and path.exists() else []
        self.all = [Sample(**json.loads(line)) for line in lines]

    def add(self, sample: Sample) -> None:
        self.all.append(sample)
        if self._path is not None:
            with self._path.open("a", encoding="utf-8") as out:
                out.write(json.dumps(asdict(sample)) + "\n")

    def has(self, model: str, test: str, round_: int) -> bool:
        """Whether that round was measured to its end: the last side of a round is kept last."""
        return any((s.model, s.test, s.round) == (model, test, round_) for s in self.all)

    def speeds(self, model: str, test: str, side: str) -> list[float]:
        """In the order of rounds."""
        found = [s for s in self.all if (s.model, s.test, s.side) == (model, test, side)]
        return [s.speed for s in sorted(found, key=lambda s: s.round)]

    def sides(self, model: str) -> list[str]:
        return list(dict.fromkeys(s.side for s in self.all if s.model == model))


def bytes_per_token(path: Path, depth: int = 0) -> int:
    """What a step of decode must read: all tensors, of an untied embedding only a row, and the float16 keys and values
    of ``depth`` positions. 0 where it does not read all of these, since layers have a sliding window."""
    import ggblock
    from ggblock.kernels.shapes import panel_bytes
    from ggblock.models.compiled import default_kv
    from ggblock.models.config import Source, read_config

    with ggblock.open(path) as file:
        total = sum(t.n_bytes for t in file.tensors.values())
        if "output.weight" in file.tensors:
            total -= file.tensors["token_embd.weight"].n_bytes
        if depth:
            source = Source(file, file.metadata["general.architecture"])
            if source.integer("*.attention.sliding_window", 0, low=0):
                return 0
            config = read_config(source)
            of_panel = panel_bytes(config.head, default_kv("fast"))
            total += depth * config.n_layers * config.n_kv_heads * 2 * of_panel // 16
    return int(total)


def locate(names: Sequence[str], folder: Path, python: str) -> dict[str, Path]:
    """Path of every model by its name; what is missing is fetched or made."""
    from ggblock import catalog

    found = {}
    for name in names:
        entry = goals.TABLE.get(name)
        if entry is None:
            found[name] = Path(name)
        elif entry.is_random:
            found[name] = random_model.make(folder, [entry.source], python=python)[entry.source]
        else:
            found[name] = catalog.resolve(entry.source, notify=lambda text: print(text, file=sys.stderr))
    return found


class Sides:
    """The processes of one model: started when first asked, ended together."""

    def __init__(self, args: argparse.Namespace, path: Path, tests: Sequence[Test]) -> None:
        self._args, self._path, self._context = args, path, context_for(tests)
        self._n_bytes = {test: bytes_per_token(path, test.depth) for test in tests if test.kind == "tg"}
        self._open = contextlib.ExitStack()
        self._workers: dict[str, Worker] = {}
        self._flash = {f"llama.cpp, flash attention {way}": way for way in args.flash if args.peer}

    def __enter__(self) -> Sides:
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def names(self, test: Test) -> list[str]:
        """Who is asked for a test, beside the roof."""
        scaling = [ONE] if test.kind == "pp" and not test.depth and self._args.threads > 1 else []
        ours = [] if self._args.peer_only else [OURS, *scaling]
        return [*ours, *self._flash]

    def has_roof(self, test: Test) -> bool:
        return self._n_bytes.get(test, 0) > 0

    def _command(self, side: str) -> list[str]:
        a = self._args
        if side == ROOF:
            counts = [str(n) for n in range(1, a.threads + 1)]
            return [a.python, str(HERE / "roof.py"), "--serve", "--threads", *counts]
        common = [str(self._path), "--context", str(self._context), "-t", "1" if side == ONE else str(a.threads)]
        if side in self._flash:
            return [a.peer, str(HERE / "llama_peer.py"), "serve", *common, "--flash", self._flash[side]]
        return [a.python, str(HERE / "ours.py"), *common, *(["--load", *a.load] if a.load else [])]

    def ask(self, side: str, test: Test) -> dict[str, float]:
        if side not in self._workers:
            self._workers[side] = self._open.enter_context(Worker(self._command(side)))
        return self._workers[side].ask(Test("rd", self._n_bytes[test]) if side == ROOF else test)


def one_round(args: argparse.Namespace, sides: Sides, model: str, test: Test, number: int) -> list[Sample]:
    """Each side once, and the roof before and after them; said on stderr."""

    def ask(side: str) -> Sample:
        answers = []
        for _ in range(machine.TRIES):
            answers.append(sides.ask(side, test))
            # where a core is left to others, what they do there says little
            if answers[-1]["others"] <= args.quiet or side in (ONE, ROOF):
                break
        best = min(answers, key=lambda a: a["others"])
        return Sample(model, test.name, side, number, best["speed"], best["others"])

    names = sides.names(test)
    taken = [ask(side) for side in ([ROOF, *names, ROOF] if sides.has_roof(test) else names)]
    said = ", ".join(f"{s.side} {s.speed:.1f}" for s in taken)
    busy = max(s.others for s in taken)
    print(f"{model} {test.name} round {number + 1}: {said}  (others {busy:.2f} cores)", file=sys.stderr)
    return taken


def roofs_of(taken: Sequence[Sample]) -> list[float]:
    return [s.speed for s in taken if s.side == ROOF]


def with_one_roof(taken: Sequence[Sample]) -> list[Sample]:
    """A round's samples, of the roof their mean."""
    roofs = roofs_of(taken)
    mean = [replace(taken[-1], speed=fmean(roofs))] if roofs else []
    return [s for s in taken if s.side != ROOF] + mean


def measure(args: argparse.Namespace, model: str, path: Path, samples: Samples) -> None:
    """Every round of every test of one model that ``samples`` does not have yet."""
    tests = [Test.parse(name) for name in args.tests]
    with Sides(args, path, tests) as sides:
        for test in tests:
            for number in range(args.rounds):
                if samples.has(model, test.name, number):
                    continue
                taken = machine.steadiest(partial(one_round, args, sides, model, test, number), roofs_of)
                for sample in with_one_roof(taken):
                    samples.add(sample)


def against_peer(samples: Samples, model: str, test: str) -> tuple[str, float] | None:
    """The peer's faster way and the median of each round's ratio to it."""
    ours = samples.speeds(model, test, OURS)
    peers = {s: samples.speeds(model, test, s) for s in samples.sides(model) if s.startswith("llama.cpp")}
    peers = {side: speeds for side, speeds in peers.items() if speeds}
    if not ours or not peers:
        return None
    best = max(peers, key=lambda side: median(peers[side]))
    return best, median(a / b for a, b in zip(ours, peers[best]))


def cell(samples: Samples, model: str, test: Test, n_bytes: int) -> str:
    """Ratio and share of the roof with their verdicts. ``n_bytes``: what a token of the test reads."""
    goal = goals.TABLE[model].goal if model in goals.TABLE else None
    parts = []
    compared = against_peer(samples, model, test.name)
    roofs, ours = samples.speeds(model, test.name, ROOF), samples.speeds(model, test.name, OURS)
    if compared is not None:
        peer, ratio = compared
        wanted = goal.ratio(test.kind, test.depth) if goal else 0
        said = f" (goal {wanted}): {goals.verdict(ratio, wanted)}" if wanted else ""
        if wanted > ratio and roofs:
            theirs = samples.speeds(model, test.name, peer)
            needed = median(wanted * s * n_bytes / 1e9 / r for s, r in zip(theirs, roofs))
            said += f", would take {needed:.0%} of the roof" if needed > 1 else ""
        parts.append(f"{ratio:.2f} ×" + said)
    if roofs and ours:
        share = median(s * n_bytes / 1e9 / r for s, r in zip(ours, roofs))
        wanted = goal.roof if goal and not test.depth else 0
        said = f" (goal {wanted:.0%}): {goals.verdict(share, wanted)}" if wanted else ""
        parts.append(f"{share:.0%} of the roof" + said)
    return "; ".join(parts) or "–"


def scaling_cell(samples: Samples, model: str, test: Test) -> str:
    pairs = list(zip(samples.speeds(model, test.name, OURS), samples.speeds(model, test.name, ONE)))
    if not pairs:
        return "–"
    factor = median(two / one for two, one in pairs)
    return f"{factor:.2f} × (goal {goals.SCALING}): {goals.verdict(factor, goals.SCALING)}"


def report(samples: Samples, models: dict[str, Path], tests: Sequence[Test], threads: int) -> Iterator[str]:
    """The table of verdicts, then medians and ranges of everything."""
    scaled = [t for t in tests if t.kind == "pp" and not t.depth] if threads > 1 else []
    head = ["model", *(t.name for t in tests), *(f"{threads} threads / 1, {t.name}" for t in scaled)]
    yield from ("| " + " | ".join(head) + " |", "|" + "---|" * len(head))
    sizes = {name: {t: bytes_per_token(path, t.depth) for t in tests} for name, path in models.items()}
    for name in models:
        title = goals.TABLE[name].title if name in goals.TABLE else Path(name).name
        cells = [cell(samples, name, t, sizes[name][t]) for t in tests]
        yield "| " + " | ".join([title, *cells, *(scaling_cell(samples, name, t) for t in scaled)]) + " |"
    yield ""
    yield "Medians (lowest–highest), tokens a second; the roof in GB/s:"
    yield ""
    head = ["model", "side", *(t.name for t in tests)]
    yield from ("| " + " | ".join(head) + " |", "|" + "---|" * len(head))
    for name in models:
        for side in samples.sides(name):
            cells = []
            for test in tests:
                found = samples.speeds(name, test.name, side)
                cells.append(f"{median(found):.1f} ({min(found):.0f}–{max(found):.0f})" if found else "–")
                if found and side == ROOF:
                    cells[-1] += f" of {sizes[name][test] / 1e6:.0f} MB"
            yield "| " + " | ".join([Path(name).name, side, *cells]) + " |"
    yield ""


def heading(what: str, peer: str | None = None, note: str = "") -> list[str]:
    """The lines of a record that say when, where and with what. ``peer``: its interpreter. ``note``: a line more."""
    lines = [machine.title(what), "", machine.sentence()]
    if peer:
        facts = json.loads(machine.run([peer, str(HERE / "llama_peer.py"), "info"]).stdout)
        lines.append(f"Peer: llama-cpp-python {facts['version']}, {' '.join(facts['flags'])}.")
    return [*lines, *([note] if note else []), ""]


def common_options(parser: argparse.ArgumentParser) -> None:
    """What every comparison with the peer can be told."""
    parser.add_argument("--peer", help="an interpreter with llama-cpp-python")
    parser.add_argument("--python", default=sys.executable, help="the interpreter that runs ggblock")
    parser.add_argument("--dir", type=Path, default=Path("bench-models"), help="where the random model is kept")
    parser.add_argument("-t", dest="threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--quiet", type=float, default=0.2, help="cores that others may use before a test is repeated")
    parser.add_argument("--flash", nargs="+", choices=("on", "off"), default=["on", "off"])
    parser.add_argument("--load", nargs="*", default=[], metavar="NAME=VALUE", help="arguments of ggblock.load")
    parser.add_argument("--note", default="", help="a line for the record")
    parser.add_argument("--no-record", action="store_true")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=list(goals.TABLE), help=f"of {', '.join(goals.TABLE)}, or paths")
    parser.add_argument("--tests", nargs="+", default=list(TESTS), help="pp512 tg128 tg128@d4096 and the like")
    parser.add_argument("--state", type=Path, help="samples as lines of JSON; an interrupted run goes on from them")
    parser.add_argument("--peer-only", action="store_true")
    common_options(parser)
    args = parser.parse_args()

    models = locate(args.models, args.dir, args.python)
    samples = Samples(args.state)
    for name, path in models.items():
        measure(args, name, path, samples)
    lines = heading("table", args.peer, args.note)
    lines += report(samples, models, [Test.parse(name) for name in args.tests], args.threads)
    noise = [s.others for s in samples.all if s.model in models]
    lines.append(
        f"{args.rounds} alternating rounds, {args.threads} threads; meanwhile others used {median(noise):.2f} cores "
        f"(at most {max(noise):.2f})."
    )
    machine.publish(lines, record=not args.no_record)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
