"""Agreement with the `gguf` package in both directions, on small files shaped like the two catalog models."""
from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest

import ggblock
from ggblock.format import ArrayValue, GgufFile, GgufWriter, TensorSpec, Typed

# The keys of the catalog's two files, kinds and order included, with vocabularies cut short.
SMOLLM2: dict[str, Typed] = {
    "general.architecture": Typed("str", "llama"),
    "general.type": Typed("str", "model"),
    "general.name": Typed("str", "Smollm2 135M 8k Lc100K Mix1 Ep2"),
    "general.languages": Typed("str[]", ["en"]),
    "llama.block_count": Typed("u32", 30),
    "llama.context_length": Typed("u32", 8192),
    "llama.embedding_length": Typed("u32", 576),
    "llama.rope.freq_base": Typed("f32", 100000.0),
    "llama.attention.layer_norm_rms_epsilon": Typed("f32", 1e-5),
    "general.file_type": Typed("u32", 3),
    "tokenizer.ggml.add_space_prefix": Typed("bool", False),
    "tokenizer.ggml.model": Typed("str", "gpt2"),
    "tokenizer.ggml.pre": Typed("str", "smollm"),
    "tokenizer.ggml.tokens": Typed("str[]", ["<|endoftext|>", "<|im_start|>", "Ġ", "Ġt", "ĠĠĠĠ", "é", "x" * 300]),
    "tokenizer.ggml.token_type": Typed("i32[]", [3, 3, 1, 1, 1, 1, 1]),
    "tokenizer.ggml.merges": Typed("str[]", ["Ġ t", "Ġ a", "i n", "h e"]),
    "tokenizer.ggml.bos_token_id": Typed("u32", 1),
    "tokenizer.chat_template": Typed("str", "{% for message in messages %}{{ message['content'] }}\n{% endfor %}"),
    "general.quantization_version": Typed("u32", 2),
}
GEMMA3: dict[str, Typed] = {
    "general.architecture": Typed("str", "gemma3"),
    "general.name": Typed("str", "Gemma 3 270m"),
    "general.tags": Typed("str[]", ["gemma3", "gemma", "google", "text-generation"]),
    "gemma3.attention.head_count": Typed("u32", 4),
    "gemma3.attention.layer_norm_rms_epsilon": Typed("f32", 1e-6),
    "gemma3.attention.sliding_window": Typed("u32", 512),
    "tokenizer.ggml.model": Typed("str", "llama"),
    "tokenizer.ggml.tokens": Typed("str[]", ["<pad>", "<eos>", "<bos>", "<unk>", "\n", "▁▁", "<0x00>", "", "😀"] * 40),
    "tokenizer.ggml.scores": Typed("f32[]", [-1000.0, -1000.0, -1000.0, -1000.0, 0.5, -1.25, 0.0, 3.0, 1e-3] * 40),
    "tokenizer.ggml.token_type": Typed("i32[]", [3, 3, 3, 2, 1, 1, 6, 1, 1] * 40),
    "tokenizer.ggml.add_bos_token": Typed("bool", True),
    "general.quantization_version": Typed("u32", 2),
    "extra.u8": Typed("u8", 200), "extra.i8": Typed("i8", -100), "extra.u16": Typed("u16", 60_000),
    "extra.i16": Typed("i16", -30_000), "extra.u64": Typed("u64", 1 << 63), "extra.i64": Typed("i64", -(1 << 62)),
    "extra.f64": Typed("f64", 0.1),
}
MODELS = {"smollm2": SMOLLM2, "gemma3": GEMMA3}
TENSORS = [
    TensorSpec("token_embd.weight", "q8_0", (12, 64)), TensorSpec("output_norm.weight", "f32", (64,)),
    TensorSpec("blk.0.attn_q.weight", "q4_1", (8, 64)), TensorSpec("blk.0.ffn_down.weight", "q4_k", (3, 256)),
    TensorSpec("blk.0.ffn_up.weight", "f16", (2, 3, 5)), TensorSpec("blk.0.attn_v.weight", "q6_k", (2, 512)),
]


def weights(spec: TensorSpec) -> np.ndarray:
    return np.random.default_rng(len(spec.name)).standard_normal(spec.shape, np.float32)


def plain(value: object) -> Any:
    return value.tolist() if isinstance(value, ArrayValue) else value


def write_theirs(path: Path, values: dict[str, Typed], big: bool = False) -> None:
    kinds = {
        "u8": "UINT8", "i8": "INT8", "u16": "UINT16", "i16": "INT16", "u32": "UINT32", "i32": "INT32", "f32": "FLOAT32",
        "bool": "BOOL", "str": "STRING", "u64": "UINT64", "i64": "INT64", "f64": "FLOAT64",
    }
    endian = gguf.GGUFEndian.BIG if big else gguf.GGUFEndian.LITTLE
    writer = gguf.GGUFWriter(path, str(values["general.architecture"].value), endianess=endian)
    for key, typed in values.items():
        if key == "general.architecture":
            continue  # the writer has added it
        if typed.kind.endswith("[]"):
            kind = gguf.GGUFValueType[kinds[typed.kind[:-2]]]
            writer.add_key_value(key, typed.value, gguf.GGUFValueType.ARRAY, kind)
        else:
            writer.add_key_value(key, typed.value, gguf.GGUFValueType[kinds[typed.kind]])
    for spec in TENSORS:
        kind = gguf.GGMLQuantizationType[str(spec.type).upper()]
        data = weights(spec)
        if big:
            if str(spec.type) in ("f32", "f16"):
                writer.add_tensor(spec.name, data.astype({"f32": np.float32, "f16": np.float16}[str(spec.type)]))
        elif kind in (gguf.GGMLQuantizationType.F32, gguf.GGMLQuantizationType.F16):
            writer.add_tensor(spec.name, data.astype(np.float32 if kind.name == "F32" else np.float16))
        else:
            raw = ggblock.blocks.quantize(data, str(spec.type))
            writer.add_tensor(spec.name, raw, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def write_ours(path: Path, values: dict[str, Typed]) -> None:
    with GgufWriter(path, values, TENSORS) as writer:
        for spec in TENSORS:
            writer.write(spec.name, weights(spec))


def check_same(ours: GgufFile, theirs: gguf.GGUFReader) -> None:
    fields = {key: field for key, field in theirs.fields.items() if not key.startswith("GGUF.")}
    assert list(ours.metadata) == list(fields)
    for key, field in fields.items():
        assert plain(ours.metadata[key]) == field.contents(), key
        ids = [kind.name.lower() for kind in field.types]
        assert ours.metadata.kind(key).endswith("[]") == (ids[0] == "array"), key
    assert list(ours.tensors) == [tensor.name for tensor in theirs.tensors]
    for tensor in theirs.tensors:
        mine = ours.tensors[tensor.name]
        assert (mine.ne, mine.type.label) == (tuple(tensor.shape.tolist()), tensor.tensor_type.name)
        assert (mine.offset_bytes, mine.n_bytes, mine.n_weights) == (
            tensor.data_offset, tensor.n_bytes, tensor.n_elements
        )
        if ours.byte_order == "little":
            assert mine.raw.tobytes() == tensor.data.tobytes()
        else:
            assert (mine.dequantize() == tensor.data.astype(np.float32)).all()


@pytest.mark.parametrize("model", MODELS)
def test_their_reader_loads_what_we_write(tmp_path: Path, model: str):
    path = tmp_path / "m.gguf"
    write_ours(path, MODELS[model])
    with ggblock.open(path) as file:
        check_same(file, gguf.GGUFReader(path))
        assert {key: file.metadata.kind(key) for key in file.metadata} == {k: t.kind for k, t in MODELS[model].items()}


@pytest.mark.parametrize("model", MODELS)
def test_we_read_what_their_writer_writes(tmp_path: Path, model: str):
    path = tmp_path / "m.gguf"
    write_theirs(path, MODELS[model])
    with ggblock.open(path) as file:
        check_same(file, gguf.GGUFReader(path))


@pytest.mark.parametrize("model", MODELS)
def test_both_writers_write_the_same_bytes(tmp_path: Path, model: str):
    write_ours(tmp_path / "ours.gguf", MODELS[model])
    write_theirs(tmp_path / "theirs.gguf", MODELS[model])
    assert (tmp_path / "ours.gguf").read_bytes() == (tmp_path / "theirs.gguf").read_bytes()


@pytest.mark.parametrize("model", MODELS)
def test_big_endian_files_of_their_writer(tmp_path: Path, model: str):
    path = tmp_path / "m.gguf"
    write_theirs(path, MODELS[model], big=True)
    with ggblock.open(path) as file:
        assert file.byte_order == "big"
        check_same(file, gguf.GGUFReader(path))
        spec = TENSORS[1]
        assert (file.tensors[spec.name].dequantize() == weights(spec)).all()


def test_their_shards_read_as_one(tmp_path: Path):
    writer = gguf.GGUFWriter(tmp_path / "m.gguf", "llama", split_max_tensors=2)
    writer.add_uint32("llama.block_count", 3)
    data = {f"w{i}": np.full((2, 4), i, np.float32) for i in range(5)}
    for name, array in data.items():
        writer.add_tensor(name, array)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    parts = sorted(tmp_path.iterdir())
    assert len(parts) == 3
    for part in parts:
        with ggblock.open(part) as file:
            assert dict(file.metadata) == {"general.architecture": "llama", "llama.block_count": 3}
            assert {name: t.dequantize().tolist() for name, t in file.tensors.items()} == {
                name: array.tolist() for name, array in data.items()
            }
