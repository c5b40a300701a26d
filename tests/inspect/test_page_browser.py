"""The page in a real browser: hovered, clicked, with nothing on the console, small, and without any network."""
from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

import ggblock
from ggblock.cli.main import main
from ggblock.format import GgufWriter, TensorSpec, ggb
from ggblock.inspect import page, reference
from tests.inspect import crafted, schemas
from tests.inspect.browser import Browser, browser

pytestmark = pytest.mark.browser
TENSOR = "blk.0.attn_q.weight"


@pytest.fixture(scope="module")
def window(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with browser(tmp_path_factory.mktemp("browser")) as opened:
        yield opened


@pytest.fixture(scope="module")
def html(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page about a Q4_K tensor with its error against the weights that it was made from."""
    folder = tmp_path_factory.mktemp("page")
    path = crafted.write(folder / "m.gguf")
    original = crafted.write(folder / "f32.gguf", None, [(TENSOR, "f32", (256, 256))])
    arguments = ["dump", str(path), "--html", str(folder / "p.html"), "--tensor", TENSOR, "--reference", str(original),
                 "--json"]  # fmt: skip
    result = CliRunner().invoke(main, arguments, catch_exceptions=False)
    schemas.check(json.loads(result.stdout), "page")
    return folder / "p.html"


def texts(window: Browser, selector: str) -> list[str]:
    script = "return [...document.querySelectorAll(arguments[0])].map(n => n.textContent)"
    found: list[str] = window.run(script, selector)
    return found


def test_it_opens_without_a_word_on_the_console(window: Browser, html: Path) -> None:
    window.console()
    window.open(html)
    assert window.run("return document.title") == "m.gguf · ggblock"
    assert len(texts(window, "#treemap div")) == 8 and len(texts(window, "#table tbody tr")) == 8
    assert "llama, 2 layers (tiny)" in texts(window, "#facts dd")
    assert len(texts(window, "#layer-bytes rect")) == 6 and len(texts(window, "#layer-bits rect")) == 2
    assert window.console() == []


def test_a_request_would_be_noticed(window: Browser, html: Path, tmp_path: Path) -> None:
    """The console check can fail: a page that asks for a picture from elsewhere is refused, and says so."""
    picture = '<img src="http://127.0.0.1:9/x.png"><main>'
    (tmp_path / "bad.html").write_text(html.read_text("utf-8").replace("<main>", picture))
    window.console()
    window.open(tmp_path / "bad.html")
    assert any("Content Security Policy" in line for line in window.console())


def test_hovering_over_a_byte_lights_field_weights_and_formula(window: Browser, html: Path) -> None:
    window.open(html)
    window.hover('#bytes [data-byte="4"]')
    assert texts(window, "#info-head") == ["Byte 4"]
    info = texts(window, "#info")[0]
    assert "field" in info and "scales" in info and "bits 0-5" in info and "multiple of weights 0-31" in info
    lit = window.run("return [...document.querySelectorAll('#weights .part')].map(n => Number(n.dataset.weight))")
    assert lit == [*range(32), *range(128, 160)]
    assert [text.split(" = ")[0] for text in texts(window, "#formula .lit")] == ["multiple"]
    assert [text.split(" = ")[0] for text in texts(window, "#formula .part")] == ["scale", "weight"]
    window.hover('#bytes [data-byte="16"]')
    lit = window.run("return [...document.querySelectorAll('#weights .part')].map(n => Number(n.dataset.weight))")
    assert lit == [0, 32] and "bits 4-7" in texts(window, "#info")[0]


def test_hovering_over_a_weight_shows_its_bytes_and_its_arithmetic(window: Browser, html: Path) -> None:
    window.open(html)
    window.hover('#weights [data-weight="150"]')
    lit = window.run("return [...document.querySelectorAll('#bytes .lit')].map(n => Number(n.dataset.byte))")
    assert lit == [0, 1, 2, 3, 4, 8, 12, 16 + 64 + 22]
    with ggblock.open(html.with_name("m.gguf")) as file:
        weight = file.tensors[TENSOR].rows(0, 1)[0, 150]
    last = texts(window, "#formula em")[-1]
    assert np.float32(last.rpartition(" = ")[2]) == weight
    assert re.match(r"= \([-\d.e]+ \* \d+\) - [-\d.e]+ = ", last)
    assert window.console() == []


def test_hovering_over_a_byte_shows_a_weight_that_it_feeds(window: Browser, html: Path) -> None:
    window.open(html)
    window.hover('#weights [data-weight="3"]')
    window.hover('#bytes [data-byte="5"]')  # scale of weights 32 to 63, and two bits of that of 160 to 191
    assert texts(window, "#which") == ["32"] and "scales[1] & 63" in " ".join(texts(window, "#formula em"))
    kin = window.run("return [...document.querySelectorAll('#bytes .kin')].map(n => Number(n.dataset.byte))")
    assert kin == list(range(4, 16)) and [t.split(":")[0] for t in texts(window, "#legend .lit")] == ["scales"]
    window.hover('#legend button:nth-child(2)')
    lit = window.run("return [...document.querySelectorAll('#bytes .lit')].map(n => Number(n.dataset.byte))")
    assert lit == [2, 3] and len(texts(window, "#weights .part")) == 256


@pytest.mark.parametrize(
    ("name", "n_cols"), [("q4_k", 512), ("q6_k", 512), ("iq4_nl", 512), ("f16", 512), ("q4_k", 352), ("q2_k", 304)]
)
def test_a_block_of_a_panel_is_explored_like_any_other(name: str, n_cols: int, window: Browser, tmp_path: Path) -> None:
    """Each byte is shown with its place among the 16 rows, its field, the weights that it feeds, and the formula."""
    path = tmp_path / "m.ggb"
    specs = [TensorSpec("w", name, (19, n_cols), True)]
    marks: dict[str, object] = {ggb.VERSION: ggb.WRITE_VERSION, "general.alignment": 64}
    with GgufWriter(path, marks, specs, checksums=True) as writer:  # type: ignore[arg-type]
        writer.write("w", crafted.weights("w", (19, n_cols)))
    row, block = 17, 1
    arguments = ["dump", str(path), "--html", str(tmp_path / "p.html"), "--tensor", "w", "--row", row, "--block", block]
    assert CliRunner().invoke(main, [*map(str, arguments)]).exit_code == 0
    window.console()
    window.open(tmp_path / "p.html")
    with ggblock.open(path) as file:
        tensor = file.tensors["w"]
        size = tensor.type.block_size
        weights = tensor.rows(row, row + 1)[0, block * size : (block + 1) * size]
        layout = tensor.row.type_of(block).layout  # the last block of a ragged row has a layout of its own
        size = len(weights)
    if name != "f16":  # a block of one float lies in one piece
        assert "Panel 1, place 1 of 16 in it" in texts(window, "#place")[0]
    data, n_bytes = path.read_bytes(), window.run("return block.offsets.length")
    for byte in {0, 1, n_bytes // 2, n_bytes - 1}:
        window.hover(f'#bytes [data-byte="{byte}"]')
        info = texts(window, "#info")[0]
        at = re.search(rf"byte{byte}, at (\d+) of the file", info)
        value = re.search(r"0x([0-9a-f]{2}) = ", info)
        assert at and value and data[int(at[1])] == int(value[1], 16)
        field = next(f for f in layout if f.offset <= byte < f.end)
        assert f"field{field.name}: " in info and texts(window, "#legend .lit") == [f"{field.name}: {field.meaning}"]
        part = window.run("return [...document.querySelectorAll('#weights .part')].map(n => Number(n.dataset.weight))")
        fed = window.run("return block.bits[arguments[0]].flatMap(r => ranges(r.weights))", byte)
        assert part == sorted(set(fed)) and part
        assert len(texts(window, "#formula .lit")) >= 1 and int(texts(window, "#which")[0]) in part
    for j in {0, size // 2, size - 1}:
        window.hover(f'#weights [data-weight="{j}"]')
        assert np.float32(texts(window, "#formula em")[-1].rpartition("= ")[2]) == weights[j]
    assert window.console() == []


@pytest.mark.parametrize("width", [360, 700, 1280])
def test_nothing_is_cut_off_at_any_width(width: int, window: Browser, html: Path) -> None:
    """Neither numbers in the grids nor the page itself, on a telephone as on a wide screen."""
    window.resize(width, 900)
    try:
        window.open(html)
        assert window.run("return document.documentElement.scrollWidth") <= width
        for step in window.run("return block.steps.map(s => s.name)"):
            window.run("const s = document.getElementById('cells'); s.value = arguments[0];"
                       "s.dispatchEvent(new Event('change'))", step)  # fmt: skip
            cut = window.run("return [...document.querySelectorAll('#weights span, #bytes span')]"
                             ".filter(n => n.scrollWidth > n.clientWidth).map(n => n.textContent)")  # fmt: skip
            assert cut == [], step
    finally:
        window.resize(None)


def test_every_block_in_the_list_can_be_explored(window: Browser, html: Path) -> None:
    window.open(html)
    names = texts(window, "#block-name option")
    kinds = {re.search(r"\((\w+);", name)[1] for name in names}  # type: ignore[index]
    assert kinds == {"Q4_K", "Q6_K", "Q5_0", "Q8_0", "IQ4_NL"} and any("worst error" in name for name in names)
    for i in range(len(names)):
        window.run("const s = document.getElementById('block-name'); s.value = arguments[0];"
                   "s.dispatchEvent(new Event('change'))", i)  # fmt: skip
        size = window.run("return block.block_size")
        assert len(texts(window, "#weights span")) == size
        window.hover('#bytes [data-byte="0"]')
        window.hover(f'#weights [data-weight="{size - 1}"]')
        shown = float(texts(window, "#formula em")[-1].rpartition(" = ")[2])
        assert shown == window.run("return block.weights[block.block_size - 1]")
    assert window.console() == []


def test_cells_can_show_codes(window: Browser, html: Path) -> None:
    window.open(html)
    window.run("const s = document.getElementById('cells'); s.value = 'code'; s.dispatchEvent(new Event('change'))")
    codes = [int(text) for text in texts(window, "#weights span")]
    assert codes == window.run("return block.steps.find(s => s.name === 'code').values")


def test_treemap_area_tips_and_picking(window: Browser, html: Path) -> None:
    window.open(html)
    area = ("return [...document.querySelectorAll('#treemap div')]"
            ".reduce((s, n) => s + n.offsetWidth * n.offsetHeight, 0)")  # fmt: skip
    box = window.run("const b = document.getElementById('treemap'); return b.clientWidth * b.clientHeight")
    assert window.run(area) == pytest.approx(box, rel=0.03)
    window.hover('#treemap div[data-name="token_embd.weight"]')
    assert window.run("return tip.hidden") is False and "Q6_K" in window.run("return tip.textContent")
    window.click('#treemap div[data-name="token_embd.weight"]')
    assert texts(window, "#table tbody td:first-child") == ["token_embd.weight"]
    window.run("const a = document.getElementById('area'); a.value = '4'; a.dispatchEvent(new Event('change'))")
    assert len(texts(window, "#treemap div")) == 8


def test_heat_maps_show_what_is_under_the_pointer(window: Browser, html: Path) -> None:
    window.open(html)
    assert texts(window, "#map-name option") == ["scale", "rms", "peak", "error"]
    assert window.run("return document.getElementById('map-name').value") == "error"
    window.hover("#map")
    read = re.fullmatch(r"row (\d+), block 0: ([\d.e-]+)", texts(window, "#map-read")[0])
    assert read and 120 <= int(read[1]) <= 135
    with ggblock.open(html.with_name("m.gguf")) as file, reference.open_any(html.with_name("f32.gguf")) as other:
        rows = slice(int(read[1]), int(read[1]) + 1)
        difference = file.tensors[TENSOR].dequantize()[rows] - other.tensors[TENSOR].rows(rows.start, rows.stop)
    assert float(read[2]) == pytest.approx(float(np.sqrt((difference**2).mean())), rel=0.05)
    colours = window.run(
        "const c = document.getElementById('map'), d = c.getContext('2d').getImageData(0, 0, c.width, c.height).data;"
        "return new Set(Array.from({length: d.length / 4}, (_, i) => d.slice(4 * i, 4 * i + 3).join())).size"
    )
    assert colours > 50


def test_sorting_and_filtering(window: Browser, html: Path) -> None:
    window.open(html)
    window.click("#table th:nth-child(4)")
    sizes = [int(text) for text in texts(window, "#table td:nth-child(4)")]
    assert sizes == sorted(sizes)
    window.run("const f = document.getElementById('filter'); f.value = 'ffn'; f.dispatchEvent(new Event('input'))")
    assert len(texts(window, "#table tbody tr")) == 3 and texts(window, "#shown") == ["3 of 8"]


def test_hostile_names_are_text(window: Browser, tmp_path: Path) -> None:
    evil = "</script><img src=x onerror=document.title='hacked'>"
    metadata = {**crafted.METADATA, "general.name": evil, "k" + evil: evil, "raw": "\udcff"}
    path = crafted.write(tmp_path / "m.gguf", metadata, [(evil[:60], "q4_0", (4, 64))])
    with ggblock.open(path) as file:
        (tmp_path / "p.html").write_bytes(page.build(file, page.choose(file)))
    window.console()
    window.open(tmp_path / "p.html")
    assert window.run("return document.title") == "m.gguf · ggblock"
    assert window.run("return document.querySelectorAll('img').length") == 0 and window.console() == []


def test_files_with_little_in_them(window: Browser, tmp_path: Path) -> None:
    for name, tensors in (("none", []), ("floats", [("w", "f32", (7,))]), ("numbers", [("n", "i32", (3, 5))])):
        path = crafted.write(tmp_path / name, {"general.architecture": "x"}, tensors)
        with ggblock.open(path) as file:
            (tmp_path / "p.html").write_bytes(page.build(file, page.choose(file)))
        window.console()
        window.open(tmp_path / "p.html")
        assert window.console() == [] and len(texts(window, "#table tbody tr")) == len(tensors)


def test_real_files_stay_small(window: Browser, gemma3_path: Path, smollm2_path: Path, tmp_path: Path) -> None:
    """Under 5 MB; the list of tensors is what grows, by some 80 bytes each, so a 1 B model's 400 add nothing."""
    for path in (gemma3_path, smollm2_path):
        with ggblock.open(path) as file:
            html = page.build(file, page.choose(file))
            n_tensors = len(file.tensors)
        assert len(html) < 2_000_000
        (tmp_path / "p.html").write_bytes(html)
        window.console()
        window.open(tmp_path / "p.html")
        window.hover('#bytes [data-byte="1"]')
        window.hover('#weights [data-weight="3"]')
        assert window.console() == [] and len(texts(window, "#treemap div")) == n_tensors
