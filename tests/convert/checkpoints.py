"""Small Hugging Face checkpoints with random weights, and writers of their file formats that need no library."""
from __future__ import annotations

import json
import pickle
import struct
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Arrays = dict[str, NDArray[Any]]


def byte_letters() -> list[str]:
    """The printable stand-in of each byte in byte-level vocabularies."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = iter(range(256, 512))
    return [chr(b) if b in printable else chr(next(others)) for b in range(256)]


def llama_config(**changes: Any) -> dict[str, Any]:
    return {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 64, "intermediate_size": 96,
        "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 128,
        "rope_theta": 10000.0, "rms_norm_eps": 1e-5, "vocab_size": 262, "tie_word_embeddings": True,
        "bos_token_id": 256, "eos_token_id": 257, **changes,
    }  # fmt: skip


def gemma_config(**changes: Any) -> dict[str, Any]:
    return {
        "architectures": ["Gemma3ForCausalLM"], "model_type": "gemma3_text", "hidden_size": 64, "intermediate_size": 96,
        "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 32,
        "max_position_embeddings": 128, "sliding_window": 16, "rms_norm_eps": 1e-6, "vocab_size": 262,
        "rope_theta": 1000000.0, "rope_local_base_freq": 10000.0, **changes,
    }  # fmt: skip


def weights(config: dict[str, Any], seed: int = 0) -> Arrays:
    """Random float32 weights under the names that transformers gives them."""
    rng = np.random.default_rng(seed)
    n, ff, heads = config["hidden_size"], config["intermediate_size"], config["num_attention_heads"]
    head = config.get("head_dim") or n // heads
    kv = config["num_key_value_heads"]
    gemma = config["architectures"][0].startswith("Gemma")

    def w(*shape: int) -> NDArray[np.float32]:
        return (rng.standard_normal(shape) * 0.05).astype(np.float32)

    out: Arrays = {"model.embed_tokens.weight": w(config["vocab_size"], n), "model.norm.weight": w(n)}
    for i in range(config["num_hidden_layers"]):
        layer = {
            "input_layernorm": (n,), "post_attention_layernorm": (n,), "self_attn.q_proj": (heads * head, n),
            "self_attn.k_proj": (kv * head, n), "self_attn.v_proj": (kv * head, n),
            "self_attn.o_proj": (n, heads * head), "mlp.gate_proj": (ff, n), "mlp.up_proj": (ff, n),
            "mlp.down_proj": (n, ff),
        }  # fmt: skip
        if gemma:
            layer |= {"self_attn.q_norm": (head,), "self_attn.k_norm": (head,)}
            layer |= {"pre_feedforward_layernorm": (n,), "post_feedforward_layernorm": (n,)}
        out.update({f"model.layers.{i}.{name}.weight": w(*shape) for name, shape in layer.items()})
    if not config.get("tie_word_embeddings", True):
        out["lm_head.weight"] = w(config["vocab_size"], n)
    return out


def tokenizer_json() -> dict[str, Any]:
    """A byte-level vocabulary: 256 bytes, five special tokens, one merge; cut as GPT-2 does."""
    vocab = {letter: i for i, letter in enumerate(byte_letters())}
    vocab["he"] = 261
    vocab.update({text: 256 + i for i, text in enumerate(("<s>", "</s>", "<|a|>", "<|b|>", "<pad>"))})
    special = [
        {"id": 256 + i, "content": text, "special": True, "normalized": False, "single_word": False, "lstrip": False,
         "rstrip": False}
        for i, text in enumerate(("<s>", "</s>", "<|a|>", "<|b|>", "<pad>"))
    ]  # fmt: skip
    return {
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": special, "normalizer": None,
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True},
        "post_processor": None, "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True,
                                            "use_regex": True},
        "model": {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
                  "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False, "ignore_merges": False,
                  "vocab": vocab, "merges": [["h", "e"]]},
    }  # fmt: skip


def sentencepiece_model(n: int = 262) -> bytes:
    """A tokenizer.model with ``n`` pieces: <unk>, <s>, </s>, the bytes, then words."""
    out = b""
    for i in range(n):
        text, kind = (("<unk>", 2), ("<s>", 3), ("</s>", 3))[i] if i < 3 else (f"<0x{i - 3:02X}>", 6)
        if i >= 259:
            text, kind = f"\u2581w{i}", 1
        raw = text.encode()
        piece = b"\x0a" + bytes([len(raw)]) + raw + b"\x15" + struct.pack("<f", -float(i)) + b"\x18" + bytes([kind])
        out += b"\x0a" + bytes([len(piece)]) + piece
    return out + b"\x12\x05\x18\x01\x98\x02\x01"  # a trainer_spec (unigrams, byte fallback), which is skipped


def make(folder: Path, config: dict[str, Any], *, sentencepiece: bool = False, seed: int = 0) -> Arrays:
    """A folder with config, tokenizer and model.safetensors (float32); returns the weights."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    if sentencepiece:
        (folder / "tokenizer.model").write_bytes(sentencepiece_model())
    else:
        (folder / "tokenizer.json").write_text(json.dumps(tokenizer_json()))
        settings = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": {"content": "<pad>"}, "add_bos_token": True,
                    "chat_template": "{{ messages }}"}  # fmt: skip
        (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    arrays = weights(config, seed)
    write_safetensors(folder / "model.safetensors", arrays)
    return arrays


NAMES = {"float64": "F64", "float32": "F32", "float16": "F16", "uint16": "BF16", "int32": "I32"}


def write_safetensors(path: Path, arrays: Arrays) -> None:
    """uint16 arrays are taken as bfloat16."""
    head: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    at = 0
    for name, array in arrays.items():
        end = at + array.nbytes
        head[name] = {"dtype": NAMES[array.dtype.name], "shape": list(array.shape), "data_offsets": [at, end]}
        at = end
    raw = json.dumps(head).encode()
    raw += b" " * (-len(raw) % 8)
    path.write_bytes(struct.pack("<Q", len(raw)) + raw + b"".join(a.tobytes() for a in arrays.values()))


class _Global:
    """Pickled as the bare name ``module.name``, as classes and functions are."""

    def __init__(self, module: str, name: str) -> None:
        self.module, self.name = module, name


class _Call:
    def __init__(self, called: _Global, arguments: tuple[Any, ...]) -> None:
        self.called, self.arguments = called, arguments


class _Persistent:
    def __init__(self, value: tuple[Any, ...]) -> None:
        self.value = value


class _Pickler(pickle._Pickler):  # the Python one: names can be written that cannot be imported
    def save(self, obj: Any, save_persistent_id: bool = True) -> None:
        if isinstance(obj, _Global):
            self.write(b"c" + f"{obj.module}\n{obj.name}\n".encode())
        elif isinstance(obj, _Call):
            self.save(obj.called)
            self.save(obj.arguments)
            self.write(b"R")
        elif isinstance(obj, _Persistent):
            self.save(obj.value)
            self.write(b"Q")
        else:
            super().save(obj)


STORAGES = {
    "float32": "FloatStorage", "float16": "HalfStorage", "uint16": "BFloat16Storage", "float64": "DoubleStorage"
}  # fmt: skip


def torch_pickle(value: Any) -> bytes:
    import io

    stream = io.BytesIO()
    _Pickler(stream, 2).dump(value)
    return stream.getvalue()


def torch_value(arrays: Arrays) -> tuple[Any, dict[str, bytes]]:
    """The pickled object of a state dict, and its storages. Arrays that are views keep their strides."""
    value: OrderedDict[str, Any] = OrderedDict()
    entries = {}
    for i, (name, array) in enumerate(arrays.items()):
        base = array if array.base is None else array.base
        assert isinstance(base, np.ndarray)
        storage = _Persistent(
            ("storage", _Global("torch", STORAGES[array.dtype.name]), str(i), "cpu", base.size)
        )
        offset = (array.__array_interface__["data"][0] - base.__array_interface__["data"][0]) // array.itemsize
        strides = tuple(s // array.itemsize for s in array.strides)
        hooks = _Call(_Global("collections", "OrderedDict"), ())
        value[name] = _Call(
            _Global("torch._utils", "_rebuild_tensor_v2"), (storage, offset, array.shape, strides, False, hooks)
        )
        entries[f"archive/data/{i}"] = base.tobytes()
    return value, entries


def write_torch(path: Path, arrays: Arrays, wrap: str | None = None) -> None:
    value, entries = torch_value(arrays)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("archive/data.pkl", torch_pickle({wrap: value, "epoch": 3} if wrap else dict(value)))
        archive.writestr("archive/byteorder", b"little")
        for name, raw in entries.items():
            archive.writestr(name, raw)
        archive.writestr("archive/version", b"3\n")
