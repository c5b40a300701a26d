"""What can be said of the page without a browser; `test_page_browser.py` opens it in a real one."""
from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

import ggblock
from ggblock import errors
from ggblock.cli.main import main
from ggblock.inspect import page
from tests.inspect import crafted, paper


def test_nothing_points_outside() -> None:
    for name in ("page.html", "page.css", "page.js"):
        source = page._asset(name)
        assert set(re.findall(r"https?://[^\s\"']*", source)) <= {"http://www.w3.org/2000/svg"}
        assert not re.search(r"\b(fetch|XMLHttpRequest|WebSocket|import)\b *\(|@import|src=", source)
    assert "default-src 'none'" in page._asset("page.html")


def test_it_holds_what_it_shows(tmp_path: Path) -> None:
    """The data in the page: every tensor, and blocks whose printed arithmetic gives their weights."""
    path = crafted.write(tmp_path / "m.gguf")
    result = CliRunner().invoke(main, ["dump", str(path), "--html", str(tmp_path / "p.html")], catch_exceptions=False)
    assert result.exit_code == 0 and "open it in a browser" in result.stderr and result.stdout == ""
    html = (tmp_path / "p.html").read_text("utf-8")
    data = json.loads(html.partition('<script type="application/json" id="data">')[2].partition("</script>")[0])
    assert {each[0] for each in data["tensors"]} == {name for name, _, _ in crafted.TENSORS}
    assert data["tensor"]["name"] == "blk.0.ffn_down.weight", "the largest matrix inside a layer"
    with ggblock.open(path) as file:
        for block in data["blocks"]:
            weights = paper.check_claims(paper.read_json(block))
            row = file.tensors[block["tensor"]].rows(block["row"], block["row"] + 1)[0]
            first = block["first_column"]
            np.testing.assert_array_equal(weights, row[first : first + block["block_size"]])
            for j, lines in enumerate(block["worked"]):
                shown = lines[-1][-1]
                assert np.float32(eval(shown, {"f32": np.float32})) == pytest.approx(weights[j], rel=1e-5, abs=1e-30)


def test_the_block_that_is_asked_for_comes_first(tmp_path: Path) -> None:
    path = crafted.write(tmp_path / "m.gguf")
    with ggblock.open(path) as file:
        tensor = file.tensors["blk.0.attn_q.weight"]
        html = page.build(file, tensor, block=0, row=77).decode()
        assert html.index('"row":77') < html.index('"row":0')
        with pytest.raises(errors.SettingError):
            page.build(file, tensor, block=1, row=77)


def test_a_page_never_replaces_the_file(tmp_path: Path) -> None:
    path = crafted.write(tmp_path / "m.gguf")
    before = path.read_bytes()
    result = CliRunner().invoke(main, ["dump", str(path), "--html", str(path)])
    assert result.exit_code == 1 and "also being read" in result.stderr and path.read_bytes() == before


def test_a_large_model_stays_below_five_megabytes(tmp_path: Path) -> None:
    """A thousand tensors, one of every block type that can be written, and the largest blocks there are."""
    from ggblock import blocks

    kinds = [name for name, block in blocks.REGISTRY.items() if block.encode is not None and block.unpack is not None]
    tensors = [(f"blk.{i // 9}.ffn_{i % 9}.weight", kinds[i % len(kinds)], (1, 256)) for i in range(999)]
    tensors.append(("blk.200.big.weight", "q8_k", (2000, 2560)))
    path = crafted.write(tmp_path / "m.gguf", None, tensors)
    with ggblock.open(path) as file:
        chosen = file.tensors["blk.200.big.weight"]
        html = page.build(file, chosen, chosen)
    assert len(html) < 5_000_000
