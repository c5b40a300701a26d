"""``ggblock dump --reference``: a checkpoint is compared under the names and in the row order of the GGUF file."""
from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

import ggblock
from ggblock.cli.main import main
from ggblock.convert import convert
from tests.convert import checkpoints as ck
from tests.convert.test_golden import GOLDEN
from tests.inspect import schemas

ROOT = Path(__file__).resolve().parents[2]


def dump(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["dump", *map(str, arguments)], catch_exceptions=False)


def errors_of(path: Path, tensor: str, *reference: object) -> dict[str, object]:
    document = json.loads(dump(path, "--tensor", tensor, "--reference", *reference, "--json").stdout)
    schemas.check(document, "tensor")
    found = document["error"]
    assert isinstance(found, dict)
    return found


@pytest.fixture(scope="module", params=["gemma3", "llama3", "torch"])
def checkpoint(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that transformers or torch wrote, with ``f32.gguf`` and ``q8_0.gguf`` made from it."""
    folder = tmp_path_factory.mktemp("reference") / request.param
    shutil.copytree(GOLDEN / request.param, folder)
    (folder / "tokenizer.json").write_text(json.dumps(ck.tokenizer_json()))
    for kind in ("f32", "q8_0"):
        convert(folder, folder / f"{kind}.gguf", kind)
    return folder


def test_every_tensor_of_a_conversion_finds_its_original(checkpoint: Path) -> None:
    """Also rows of queries and keys that llama's files store in pairs, norms that count from one, and made tensors."""
    with ggblock.open(checkpoint / "f32.gguf") as file:
        names = list(file.tensors)
    assert {"blk.0.attn_q.weight", "blk.1.attn_k.weight", "blk.0.attn_norm.weight", "token_embd.weight"} < set(names)
    for name in names:
        assert errors_of(checkpoint / "f32.gguf", name, checkpoint)["nmse"] == 0, name


def test_the_error_is_that_of_the_quantization(checkpoint: Path) -> None:
    name = "blk.0.attn_q.weight"
    with ggblock.open(checkpoint / "f32.gguf") as exact, ggblock.open(checkpoint / "q8_0.gguf") as rough:
        a, b = (f.tensors[name].dequantize().astype(np.float64) for f in (exact, rough))
    found = errors_of(checkpoint / "q8_0.gguf", name, checkpoint)
    assert found["nmse"] == pytest.approx(np.square(a - b).sum() / np.square(a).sum(), rel=1e-6)
    assert 1e-6 < float(str(found["nmse"])) < 1e-4


def test_a_page_needs_no_tensor_to_show_errors(checkpoint: Path, tmp_path: Path) -> None:
    result = dump(checkpoint / "q8_0.gguf", "--html", tmp_path / "p.html", "--reference", checkpoint)
    assert result.exit_code == 0 and '"error":{"nmse":' in (tmp_path / "p.html").read_text()


def test_one_file_of_the_checkpoint_is_enough(checkpoint: Path) -> None:
    """The folder's config.json says which checkpoint it is of; without one, names must be the same."""
    weights = sorted([*checkpoint.glob("*.safetensors"), *checkpoint.glob("*.bin")])
    results = [
        dump(checkpoint / "f32.gguf", "--tensor", "blk.0.attn_q.weight", "--reference", each) for each in weights
    ]
    assert [result.exit_code for result in results].count(0) == 1
    for result in results:
        if result.exit_code:
            assert result.stderr.count("\n") == 1 and "self_attn.q_proj.weight" in result.stderr


def test_a_name_that_is_given_is_taken_as_it_is_stored(checkpoint: Path) -> None:
    name = "blk.0.attn_q.weight"
    given = [checkpoint, "--reference-tensor", "model.layers.0.self_attn.q_proj.weight"]
    if checkpoint.name == "gemma3":
        given[-1] = "language_model.model.layers.0.self_attn.q_proj.weight"
        with ggblock.convert.open_source(checkpoint) as source:
            given[-1] = next(each for each in source.tensors if each.endswith("layers.0.self_attn.q_proj.weight"))
    nmse = float(str(errors_of(checkpoint / "f32.gguf", name, *given)["nmse"]))
    assert nmse == 0 if checkpoint.name == "gemma3" else nmse > 0.5, "llama's rows are in another order"
    result = dump(checkpoint / "f32.gguf", "--tensor", name, "--reference", checkpoint, "--reference-tensor", "no")
    assert result.exit_code == 1 and "no such tensor" in result.stderr


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({}, "the folder holds no weights"),
        ({"config.json": "{}", "model.safetensors": None}, "cannot be converted"),
        ({"model.safetensors": None}, "needs config.json"),
    ],
)
def test_folders_that_are_no_checkpoint_are_one_line(files: dict[str, str | None], words: str, tmp_path: Path) -> None:
    from tests.inspect import crafted
    from tests.inspect.test_report import safetensors

    path = crafted.write(tmp_path / "m.gguf")
    (tmp_path / "ref").mkdir()
    for name, text in files.items():
        if text is None:
            safetensors(tmp_path / "ref" / name, {"x": ("F32", np.zeros((2, 3), "<f4"))})
        else:
            (tmp_path / "ref" / name).write_text(text)
    result = dump(path, "--tensor", "blk.0.attn_q.weight", "--reference", tmp_path / "ref")
    assert result.exit_code == 1 and words in result.stderr and result.stderr.count("\n") == 1, result.stderr


def test_no_compiler_is_imported(checkpoint: Path) -> None:
    program = (
        "import sys\nfrom ggblock.cli.main import main\ntry:\n    main(sys.argv[1:])\nexcept SystemExit:\n    pass\n"
        "print(' '.join({'numba', 'llvmlite', 'torch'} & set(sys.modules)), file=sys.stderr, end='')"
    )
    arguments = ["dump", checkpoint / "q8_0.gguf", "--tensor", "blk.0.ffn_up.weight", "--reference", checkpoint]
    run = subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, text=True, cwd=ROOT)
    assert run.returncode == 0 and run.stderr == "" and "against the reference" in run.stdout
