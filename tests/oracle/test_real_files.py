"""The two models of the catalog: token ids, logits and divergence beside torch and llama.cpp."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import numpy as np
import pytest

import ggblock
from ggblock import catalog, models
from ggblock.evaluate.divergence import Divergence
from tests.oracle import peer, torch_models

pytestmark = pytest.mark.oracle

ROOT = Path(__file__).resolve().parents[2]
NAMES = ("smollm2-135m-instruct", "gemma-3-270m")


@pytest.fixture(scope="module", params=NAMES)
def path(request: pytest.FixtureRequest) -> Path:
    return catalog.fetch(request.param)


def written_lines() -> list[str]:
    """Prose, tables and code: the project's own pages and sources."""
    files = sorted([*ROOT.glob("*.md"), *ROOT.glob("spec/**/*.md"), *ROOT.glob("ggblock/**/*.py")])
    lines = [line for file in files for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
    return list(dict.fromkeys(lines))[:2500]


def drawn_lines() -> list[str]:
    """Random runs out of many scripts, digits, spaces, marks, emoji and control characters."""
    pools = [
        "abcdefghijklmnopqrstuvwxyz",
        "ABCDEFGHIJKLMNOPQRSTUVWXYZ",
        "0123456789",
        " ",
        "  ",
        "\t",
        "\n",
        ".,;:!?'\"()[]{}<>/\\|@#$%^&*-_=+~`",
        "äöüßéèêçñøåłžőğ",
        "абвгдежзийклмн",
        "αβγδεζηθικλμ",
        "אבגדהוזחט",
        "ابتثجحخدذ",
        "अआइईउऊएऐ",
        "กขฃคฅฆงจ",
        "的一是不了人我在有他",
        "ひらがなカタカナ",
        "한국어말씀",
        "😀🎉👍🏽👩‍👩‍👧🇩🇪❤️",
        "\u0301\u0308\u0327\u200d\u200b\ufeff\u00a0\u2028",
        "\x01\x07\x1b\x7f",
        "①²½Ⅷ٣໓",
        "'s 't 're 've 'm 'll 'd 'S 'LL",
    ]
    rng = np.random.default_rng(11)
    lines = []
    for _ in range(1500):
        parts = []
        for _ in range(rng.integers(1, 9)):
            pool = pools[rng.integers(len(pools))]
            parts.append("".join(pool[rng.integers(len(pool))] for _ in range(rng.integers(1, 6))))
        lines.append("".join(parts))
    return lines


@pytest.mark.parametrize("lines", [written_lines, drawn_lines], ids=["written", "drawn"])
@pytest.mark.parametrize("special", [False, True], ids=["plain", "special"])
def test_token_ids_equal_llama_cpp(path: Path, lines: object, special: bool, tmp_path: Path) -> None:
    texts: list[str] = lines()  # type: ignore[operator]
    assert len(texts) >= 1500
    wanted = peer.tokens(path, texts, tmp_path, add_special=special, parse_special=special)
    tokenizer = ggblock.load_tokenizer(path)
    found = [tokenizer.tokenize(text, add_special=special, parse_special=special) for text in texts]
    different = [(t, f, w) for t, f, w in zip(texts, found, wanted, strict=True) if f != w]
    names = [[unicodedata.name(c, hex(ord(c))) for c in t] for t, _, _ in different[:3]]
    assert different == [], names


def test_logits_and_divergence(path: Path, tmp_path: Path) -> None:
    """Reference mode equals torch; fast mode is no further from it than llama.cpp, within what 192 tokens can tell."""
    tokenizer = ggblock.load_tokenizer(path)
    text = (ROOT / "README.md").read_text(encoding="utf-8") + (ROOT / "ggblock" / "errors.py").read_text(
        encoding="utf-8"
    )
    ids = tokenizer.tokenize(text)[:256]
    assert len(ids) == 256
    exact = torch_models.logits(torch_models.load(str(path)), ids)
    scored = slice(64, None)
    found = {"llama.cpp": Divergence()}
    found["llama.cpp"].add(exact[scored], peer.logits(path, ids, tmp_path)[scored])
    with ggblock.open(path) as file:
        for name, reference in (("reference", True), ("fast", False)):
            model = models.build(
                file, threads=2, context=256, reference=reference, kv_type="f32" if reference else "f16"
            )
            try:
                found[name] = Divergence()
                found[name].add(exact[scored], model.forward(ids, 0, all_logits=True)[scored])
            finally:
                model.close()
    reports = {name: one.report() for name, one in found.items()}
    assert reports["reference"].nmse <= 1e-6
    noise = 3 * np.hypot(reports["fast"].mean_kl_stderr, reports["llama.cpp"].mean_kl_stderr)
    assert reports["fast"].mean_kl <= reports["llama.cpp"].mean_kl + noise
