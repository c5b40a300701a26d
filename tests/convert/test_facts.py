"""Names, sizes and special tokens against gguf-py, which llama.cpp's converter uses; names of pre-tokenizers."""
from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gguf
import pytest
from gguf.metadata import Metadata
from gguf.utility import size_label as their_size_label

from ggblock.convert.config import Config
from ggblock.convert.general import parts_of, size_label, title
from ggblock.convert.names import ARCHITECTURES, names_of
from ggblock.convert.sources import open_source
from ggblock.convert.vocabulary import special

from . import checkpoints as ck

MODEL_NAMES = (
    "Mistral-7B-Instruct-v0.2 mistralai/Mixtral-8x7B-v0.1 Meta-Llama-3-8B SmolLM2-135M-Instruct gemma-3-270m-it "
    "HuggingFaceTB/smollm2-135M-8k-lc100K-mix1-ep2 bloom-7b1-petals Qwen1.5-MoE-A2.7B-Chat Phi-3-mini-4k-instruct "
    "plain x a-b-c TinyLlama-1.1B-Chat-v1.0 1-2-3 v1 Big-XL-7b ./foo/bar a_b-1_3b-q4_k_m-fp16 some_model-chat-lora"
).split()


@pytest.mark.parametrize("name", [*MODEL_NAMES, "A name in words"])
@pytest.mark.parametrize("n_weights", [0, 135_000_000, 7_200_000_000, 1000])
def test_names_are_taken_apart_as_gguf_py_does(name: str, n_weights: int) -> None:
    keys = ("name", "organization", "basename", "finetune", "version", "size_label")
    theirs = dict(zip(keys, Metadata.get_model_id_components(name, n_weights), strict=True))
    assert parts_of(name, n_weights) == {key: value for key, value in theirs.items() if value is not None}
    assert title(name) == Metadata.id_to_title(name)


@pytest.mark.parametrize("n", [1, 999, 1000, 12345, 999_999, 1_000_001, 134_515_008, 1_070_000_000, 5_500_000_000_000])
def test_size_labels(n: int) -> None:
    assert size_label(n) == their_size_label(n, 0, 0, 0)


@pytest.mark.parametrize("architecture", ["llama", "gemma3", "smollm3"])
def test_tensor_names_are_those_of_gguf_py(architecture: str) -> None:
    config = ck.gemma_config() if architecture == "gemma3" else ck.llama_config()
    kind = next(k for k, name in gguf.MODEL_ARCH_NAMES.items() if name == architecture)
    theirs = gguf.get_tensor_name_map(kind, 2)
    targets = names_of(architecture).tensors(Config(config, "config.json"), 262)
    assert len(targets) > 20
    for name, target in targets.items():
        assert theirs.get_name(name, try_suffixes=(".weight", ".bias")) == target.name


def test_every_architecture_has_a_file() -> None:
    for name in set(ARCHITECTURES.values()):
        assert names_of(name).tensors and names_of(name).metadata and names_of(name).generated


def processor(single: list[str], pair: list[str]) -> dict[str, Any]:
    def pieces(parts: list[str]) -> list[dict[str, Any]]:
        return [
            {"Sequence" if part in "AB" else "SpecialToken": {"id": part, "type_id": 0}} for part in parts
        ]

    return {"type": "TemplateProcessing", "single": pieces(single), "pair": pieces(pair), "special_tokens": {}}


CASES: dict[str, tuple[dict[str, Any], dict[str, Any], dict[str, Any] | None]] = {
    "plain": ({"bos_token": "<s>", "eos_token": "</s>"}, {}, None),
    "objects": ({"bos_token": {"content": "<s>"}, "pad_token": {"content": "<pad>"}, "add_eos_token": False}, {}, None),
    "config": ({}, {"bos_token_id": 3, "eos_token_id": 2, "pad_token_id": 1}, None),
    "list of eos": ({"bos_token": "<s>"}, {"eos_token_id": [1, 2]}, None),
    "bos first": ({"bos_token": "<s>", "eos_token": "</s>"}, {}, processor(["<s>", "A"], ["<s>", "A", "B"])),
    "bos and eos": (
        {"bos_token": "<s>", "eos_token": "</s>"}, {},
        processor(["<s>", "A", "</s>"], ["<s>", "A", "</s>", "B", "</s>"]),
    ),
    "other end": (
        {"bos_token": "<s>", "eos_token": "</s>"}, {}, processor(["<s>", "A", "<|a|>"], ["<s>", "A", "B", "<|a|>"])
    ),
    "cls and sep": (
        {"cls_token": "<|a|>", "sep_token": "<|b|>"}, {},
        processor(["<|a|>", "A", "<|b|>"], ["<|a|>", "A", "<|b|>", "B", "<|b|>"]),
    ),
    "separator": ({"bos_token": "<s>", "eos_token": "</s>"}, {}, processor(["A"], ["A", "</s>", "B"])),
    "templates": (
        {"chat_template": [{"name": "default", "template": "x"}, {"name": "tool use", "template": "y"}]}, {}, None,
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_special_tokens_are_those_of_gguf_py(tmp_path: Path, case: str) -> None:
    settings, changes, post = CASES[case]
    config = {k: v for k, v in ck.llama_config().items() if not k.endswith("token_id")} | changes
    folder = tmp_path / "m"
    ck.make(folder, config)
    tokenizer = {**ck.tokenizer_json(), "post_processor": post}
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    theirs = gguf.SpecialVocab(folder, n_vocab=262)
    with open_source(folder) as source:
        ours = special.find(source, config, 262, tokenizer)
    assert {k: v for k, v in ours.ids.items() if k in special.ID_KEYS} == {
        k: v for k, v in theirs.special_token_ids.items() if k in special.ID_KEYS
    }
    assert {k: v for k, v in ours.add.items() if k in special.ADD_KEYS} == {
        k: v for k, v in theirs.add_special_token.items() if k in special.ADD_KEYS
    }
    assert ours.template == theirs.chat_template
    if case == "templates":
        keys = ours.keys()
        assert keys["tokenizer.chat_template"] == "x" and keys["tokenizer.chat_template.tool_use"] == "y"
