"""Manifests of llama.cpp's gguf-hash: those that the program itself made (``golden/``), and any other of its form."""
from __future__ import annotations

import hashlib
import re
import shutil
import uuid
from pathlib import Path

import pytest

import ggblock
from ggblock import errors
from ggblock.inspect import manifest
from ggblock.inspect.verify import verify
from ggblock.inspect.xxh3 import Xxh3
from ggblock.inspect.xxh64 import Xxh64
from tests.inspect import crafted

GOLDEN = Path(__file__).parent / "golden"
MODELS = Path(__file__).parents[1] / "models" / "golden"
NAMES = ("llama_every_type", "llama_one_bit")
SMALL = [
    ("token_embd.weight", "q8_0", (8, 64)), ("blk.0.attn_norm.weight", "f32", (63,)), ("b.weight", "q4_0", (5, 96)),
]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("algorithm", ["xxh64", "sha1", "sha256", "uuid", "all", "checked"])
def test_what_the_program_itself_wrote(name: str, algorithm: str, tmp_path: Path) -> None:
    """Each of its hashes, of every tensor and of the whole, is the one that is computed here."""
    listed = GOLDEN / f"{name}.{'checked' if algorithm == 'checked' else 'manifest'}"
    if algorithm not in ("all", "checked"):
        lines = [line for line in listed.read_text().splitlines() if line.startswith(algorithm + " ")]
        listed = tmp_path / "manifest"
        listed.write_text("\n".join(lines))
    path = shutil.copy(MODELS / f"{name}.gguf", tmp_path)
    assert verify(path, listed, values=False).faults == ()
    with ggblock.open(path) as file:
        tensor = file.tensors["blk.0.ffn_down.weight"]
        at, n_tensors = tensor.offset_bytes + tensor.n_bytes - 1, len(file.tensors)
    assert len(manifest.strongest(manifest.read(str(listed)).entries)) == (1 if algorithm == "uuid" else n_tensors + 1)
    data = bytearray(Path(path).read_bytes())
    data[at] ^= 1
    Path(path).write_bytes(data)
    where = {fault.where for fault in verify(path, listed, values=False).faults}
    assert where == ({"all tensors"} if algorithm == "uuid" else {"blk.0.ffn_down.weight", "all tensors"})


def gguf_hash(path: Path, algorithms: list[str]) -> str:
    """What ``llama-gguf-hash`` prints, made here from the tensors' bytes."""
    def digest(algorithm: str, data: bytes) -> str:
        if algorithm in ("xxh64", "xxh3"):
            h = Xxh64() if algorithm == "xxh64" else Xxh3()
            h.update(data)
            return h.hexdigest()
        if algorithm == "uuid":
            namespace = uuid.uuid5(uuid.NAMESPACE_URL, "en.wikipedia.org/wiki/Llama.cpp")
            raw = bytearray(hashlib.sha1(namespace.bytes + data).digest()[:16])
            raw[6], raw[8] = raw[6] & 0x0F | 0x50, raw[8] & 0x3F | 0x80
            return str(uuid.UUID(bytes=bytes(raw)))
        return hashlib.new(algorithm, data).hexdigest()

    with ggblock.open(path) as file:
        tensors = [(t.name, t.raw.tobytes()) for t in file.tensors.values()]
    lines = [
        f"{a:<8}  {digest(a, data)}  {path.name}:{name}" for name, data in tensors for a in algorithms if a != "uuid"
    ]
    together = b"".join(data for _, data in tensors)
    return "\n".join(lines + [f"{a:<8}  {digest(a, together)}  {path.name}" for a in algorithms]) + "\n"


@pytest.mark.parametrize("name", NAMES)
def test_the_lines_made_here_are_the_programs(name: str) -> None:
    made = gguf_hash(MODELS / f"{name}.gguf", ["xxh64", "sha1", "sha256", "uuid"])
    assert made == (GOLDEN / f"{name}.manifest").read_text()


def test_newer_programs_have_xxh3(tmp_path: Path) -> None:
    path, listed = crafted.write(tmp_path / "m.gguf", {}, SMALL), tmp_path / "m.manifest"
    listed.write_text(gguf_hash(path, ["xxh64", "xxh3"]))
    assert {e.algorithm for e in manifest.strongest(manifest.read(str(listed)).entries)} == {"xxh3"}
    assert verify(path, listed).faults == ()
    with ggblock.open(path) as file:
        end = file.tensors["b.weight"].offset_bytes + file.tensors["b.weight"].n_bytes
    data = bytearray(path.read_bytes())
    data[end - 1] ^= 1
    path.write_bytes(data)
    assert {fault.where for fault in verify(path, listed).faults} == {"b.weight", "all tensors"}


def test_a_manifest_of_another_file(tmp_path: Path) -> None:
    path = crafted.write(tmp_path / "m.gguf", {}, SMALL[:2])
    lines = gguf_hash(path, ["sha256"]).splitlines()
    (tmp_path / "list").write_text("\n".join([lines[0], lines[1].replace("attn_norm", "gone")]))
    faults = {fault.where: fault.message for fault in verify(path, tmp_path / "list").faults}
    assert "lacks" in faults["blk.0.gone.weight"] and "no hash" in faults["blk.0.attn_norm.weight"]


@pytest.mark.parametrize(
    "text",
    ["", "not a hash", "sha256  12  m.gguf", "0" * 64 + "  m\nxxh64 " + "0" * 16 + " m:t", "manifest  m  sha256",
     "md5  " + "0" * 32 + "  m.gguf"],
)  # fmt: skip
def test_unusable_manifests_are_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "list").write_text(text)
    with pytest.raises(errors.FormatError):
        manifest.read(str(tmp_path / "list"))
    with pytest.raises(errors.CannotRead):
        manifest.read(str(tmp_path / "none"))


def test_the_namespace_is_llama_cpps() -> None:
    assert uuid.uuid5(uuid.NAMESPACE_URL, "en.wikipedia.org/wiki/Llama.cpp") == manifest._NAMESPACE


def test_names_with_colons() -> None:
    assert manifest.split_target("C:\\m.gguf:a.weight", ["a.weight"]) == "a.weight"
    assert manifest.split_target("m.gguf:v:0", ["v:0"]) == "v:0" and manifest.split_target("m.gguf", ["a"]) is None


def test_the_forms_of_a_line_are_told_apart() -> None:
    for path in GOLDEN.iterdir():
        lines = [line for line in path.read_text().splitlines() if line]
        talk = [line for line in lines if not re.match(r"(xxh64|sha1|sha256|uuid) ", line)]
        assert len(talk) == (2 if path.suffix == ".checked" else 0)
        assert all(entry.target.startswith("llama_") and "  " not in entry.target
                   for entry in manifest.read(str(path)).entries)  # fmt: skip
