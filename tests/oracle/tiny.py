"""Tiny random models: what each one holds, and how its file is written. Needs ``gguf`` and numpy.

A specification lists shapes, tensor types and metadata; :func:`write` turns it into a GGUF file with the keys and
tensor names that llama.cpp's converter uses. Weights are random but scaled so that attention is not uniform and
logits spread over several units. Types that ``gguf`` cannot encode get random blocks: every code, scale and
codebook index occurs, and only the block's float scales are set, so that the weights have the wanted spread.
"""
from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from gguf import GGMLQuantizationType as Q
from gguf.quants import dequantize, quantize

# Byte offsets of the half-precision scale and minimum of a block, for the types that get random blocks.
SCALES: dict[str, tuple[int, ...]] = {
    "Q2_K": (80, 82), "Q3_K": (108,), "Q4_K": (0, 2), "Q5_K": (0, 2), "Q6_K": (208,), "IQ4_NL": (0,), "IQ4_XS": (0,),
    "IQ2_XXS": (0,), "IQ2_XS": (0,), "IQ2_S": (0,), "IQ3_XXS": (0,), "IQ3_S": (0,), "IQ1_S": (0,),
    "TQ1_0": (52,), "TQ2_0": (64,),
}


@dataclass(frozen=True)
class Spec:
    """One tiny model. ``types``: part of a tensor's name ("attn_q", "1.ffn_up" for layer 1 only) -> type."""

    name: str
    arch: str
    layers: int
    hidden: int
    heads: int
    kv_heads: int
    ffn: int
    vocab: int = 101
    head_dim: int | None = None
    context: int = 128
    tied: bool = False
    bias: bool = False
    types: dict[str, str] = field(default_factory=dict)
    default_type: str = "F32"
    rope: dict[str, Any] = field(default_factory=dict)
    rope_base: float = 10000.0
    attention: dict[str, int] = field(default_factory=dict)
    window: int = 0
    text: str | None = None
    seed: int = 0
    eps: float = 1e-5

    @property
    def dim(self) -> int:
        return self.head_dim or self.hidden // self.heads

    def type_of(self, name: str) -> str:
        parts = name.split(".")
        if name.startswith("blk."):
            return self.types.get(f"{parts[1]}.{parts[2]}", self.types.get(parts[2], self.default_type))
        return self.types.get(parts[0], self.default_type)


SPECS = (
    Spec("llama_f32", "llama", layers=2, hidden=32, heads=4, kv_heads=2, ffn=40, vocab=61),
    Spec("llama_wide_head_f16", "llama", layers=2, hidden=32, heads=4, kv_heads=1, head_dim=16, ffn=64, tied=True,
         default_type="F16", seed=1),
    Spec("llama_llama3", "llama", layers=2, hidden=32, heads=2, kv_heads=1, ffn=64, head_dim=32, default_type="Q4_1",
         types={"token_embd": "Q5_0", "attn_q": "Q5_0", "output": "Q5_1"}, rope_base=500.0, seed=3,
         rope={"llama3": {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                          "original_max_position_embeddings": 64}}),
    Spec("llama_yarn", "llama", layers=2, hidden=32, heads=2, kv_heads=2, ffn=64, head_dim=32, default_type="Q8_0",
         seed=4, tied=True, rope={"scaling.type": "yarn", "scaling.factor": 4.0, "scaling.original_context_length": 32,
                          "scaling.yarn_beta_fast": 4.0, "scaling.yarn_beta_slow": 0.25}),
    Spec("llama_bias", "llama", layers=2, hidden=32, heads=4, kv_heads=2, ffn=40, vocab=61, default_type="F16",
         bias=True, seed=5),
    Spec("llama_k_quants", "llama", layers=1, hidden=256, heads=2, kv_heads=1, head_dim=32, ffn=64, tied=True, seed=6,
         vocab=75, default_type="Q4_K",
         types={"token_embd": "Q6_K", "attn_v": "Q6_K", "attn_output": "Q5_0", "ffn_down": "Q4_1"}),
    Spec("llama_every_type", "llama", layers=2, hidden=256, heads=1, kv_heads=1, head_dim=64, ffn=64, vocab=43, seed=7,
         types={
             "token_embd": "Q5_1", "output": "Q4_0",
             "0.attn_q": "Q2_K", "0.attn_k": "Q3_K", "0.attn_v": "Q5_K", "0.attn_output": "IQ4_NL",
             "0.ffn_gate": "IQ4_XS", "0.ffn_up": "TQ2_0", "0.ffn_down": "MXFP4",
             "1.attn_q": "IQ2_XXS", "1.attn_k": "IQ2_XS", "1.attn_v": "IQ2_S", "1.attn_output": "BF16",
             "1.ffn_gate": "IQ3_XXS", "1.ffn_up": "IQ3_S", "1.ffn_down": "NVFP4",
         }),
    Spec("llama_one_bit", "llama", layers=1, hidden=256, heads=2, kv_heads=1, head_dim=32, ffn=32, vocab=37, seed=8,
         types={
             "token_embd": "TQ1_0", "output": "Q6_K", "attn_q": "IQ1_S", "attn_k": "TQ1_0", "attn_v": "IQ1_M",
             "attn_output": "Q8_0", "ffn_gate": "TQ1_0", "ffn_up": "IQ1_S", "ffn_down": "Q4_0",
         }),
    Spec("llama_text", "llama", layers=2, hidden=32, heads=2, kv_heads=1, ffn=64, default_type="Q8_0", tied=True,
         seed=9, text="gpt2", vocab=0, context=256, rope={"scaling.type": "linear", "scaling.factor": 4.0}),
    Spec("gemma3_linear_f16", "gemma3", layers=3, hidden=32, heads=2, kv_heads=2, ffn=40, head_dim=32,
         default_type="F16", tied=True, window=16, rope_base=50000.0, seed=11, eps=1e-6,
         rope={"scaling.type": "linear", "scaling.factor": 8.0, "freq_base_swa": 20000.0},
         attention={"sliding_window_pattern": 2}),
    Spec("gemma3_text", "gemma3", layers=7, hidden=32, heads=2, kv_heads=1, ffn=32, default_type="Q8_0", tied=True,
         window=8, rope_base=1000000.0, text="llama", vocab=0, context=256, seed=12, eps=1e-6),
)


def by_name(name: str) -> Spec:
    return next(spec for spec in SPECS if spec.name == name)


def byte_alphabet() -> list[str]:
    """The printable stand-ins of GPT-2's byte-level vocabulary, indexed by byte."""
    kept = [*range(33, 127), *range(161, 173), *range(174, 256)]
    moved = iter(range(256, 512))
    return [chr(b) if b in kept else chr(next(moved)) for b in range(256)]


def vocabulary(kind: str) -> dict[str, Any]:
    """A small but complete vocabulary: every byte, some merges, special tokens, a chat template."""
    merges = ["Ġ t", "h e", "i n", "Ġt he", "e r", "Ġ a", "o n", "r e", "Ġ s", "a t", "e n", "o r", "Ġ o", "Ġ w", "i s"]
    if kind == "gpt2":
        specials = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
        tokens = specials + byte_alphabet() + [m.replace(" ", "") for m in merges]
        types = [3] * len(specials) + [1] * (len(tokens) - len(specials))
        return {
            "model": "gpt2", "pre": "gpt-2", "tokens": tokens, "token_type": types, "merges": merges,
            "bos_token_id": 1, "eos_token_id": 2, "add_bos_token": False,
            "chat_template": "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n"
                             "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}",
        }
    words = [m.replace(" ", "").replace("Ġ", "▁") for m in merges]
    words += ["▁", *"abcdefghijklmnopqrstuvwxyz", ".", ",", "\n"]
    specials = ["<pad>", "<eos>", "<bos>", "<unk>", "<start_of_turn>", "<end_of_turn>"]
    tokens = specials + [f"<0x{b:02X}>" for b in range(256)] + words
    types = [3, 3, 3, 2, 3, 3] + [6] * 256 + [1] * len(words)
    return {
        "model": "llama", "pre": "default", "tokens": tokens, "token_type": types,
        "scores": [0.0] * (len(specials) + 256) + [-float(i) for i in range(len(words))],
        "bos_token_id": 2, "eos_token_id": 1, "unknown_token_id": 3, "padding_token_id": 0,
        "add_bos_token": True, "add_eos_token": False, "add_space_prefix": False,
        "chat_template": "{{ bos_token }}{% for m in messages %}<start_of_turn>{{ m['role'] }}\n{{ m['content'] }}"
                         "<end_of_turn>\n{% endfor %}{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}",
    }


def shapes(spec: Spec) -> dict[str, tuple[int, ...]]:
    """Tensor name -> shape (rows first), in file order."""
    n_vocab = spec.vocab or len(vocabulary(spec.text or "gpt2")["tokens"])
    q, kv = spec.heads * spec.dim, spec.kv_heads * spec.dim
    out: dict[str, tuple[int, ...]] = {
        "token_embd.weight": (n_vocab, spec.hidden), "output_norm.weight": (spec.hidden,)}
    if not spec.tied:
        out["output.weight"] = (n_vocab, spec.hidden)
    if "llama3" in spec.rope:
        out["rope_freqs.weight"] = (spec.dim // 2,)
    for i in range(spec.layers):
        layer: dict[str, tuple[int, ...]] = {
            "attn_norm": (spec.hidden,), "attn_q": (q, spec.hidden), "attn_k": (kv, spec.hidden),
            "attn_v": (kv, spec.hidden), "attn_output": (spec.hidden, q), "ffn_norm": (spec.hidden,),
            "ffn_gate": (spec.ffn, spec.hidden), "ffn_up": (spec.ffn, spec.hidden), "ffn_down": (spec.hidden, spec.ffn),
        }
        if spec.arch == "gemma3":
            layer |= {"attn_q_norm": (spec.dim,), "attn_k_norm": (spec.dim,),
                      "post_attention_norm": (spec.hidden,), "post_ffw_norm": (spec.hidden,)}
        out |= {f"blk.{i}.{part}.weight": shape for part, shape in layer.items()}
        if spec.bias:
            out |= {f"blk.{i}.{part}.bias": shape[:1] for part, shape in layer.items() if len(shape) == 2}
    return out


def rope_factors(spec: Spec) -> np.ndarray:
    """float32 (head_dim / 2,): the divisors that "llama3" scaling puts on the inverse frequencies."""
    p = spec.rope["llama3"]
    wave = 2 * np.pi * spec.rope_base ** (np.arange(0, spec.dim, 2) / spec.dim)
    old = p["original_max_position_embeddings"]
    smooth = (old / wave - p["low_freq_factor"]) / (p["high_freq_factor"] - p["low_freq_factor"])
    between = 1.0 / ((1.0 - smooth) / p["factor"] + smooth)
    factors = np.where(wave < old / p["high_freq_factor"], 1.0,
                       np.where(wave > old / p["low_freq_factor"], p["factor"], between))
    return factors.astype(np.float32)


def random_blocks(type_: str, shape: tuple[int, int], std: float, rng: np.random.Generator) -> np.ndarray:
    """uint8 (rows, row_bytes) of random blocks whose decoded weights have mean near 0 and the given spread."""
    qtype = Q[type_]
    block, n_bytes = gguf.GGML_QUANT_SIZES[qtype]
    raw = rng.integers(0, 256, size=(shape[0] * shape[1] // block, n_bytes), dtype=np.uint8)

    def decode(*scales: float) -> np.ndarray:
        for offset, value in zip(SCALES[type_], scales, strict=True):
            raw[:, offset:offset + 2] = np.frombuffer(np.float16(value).tobytes(), np.uint8)
        return dequantize(raw.reshape(shape[0], -1), qtype)

    if type_ == "MXFP4":  # one power of two a block, 127 means 2**-1 (the codes are doubled)
        raw[:, 0] = rng.integers(124, 127, size=len(raw))
        raw[:, 0] += np.uint8(np.round(np.log2(std / dequantize(raw.reshape(shape[0], -1), qtype).std())) % 256)
    elif type_ == "NVFP4":  # four unsigned E4M3 scales a block
        raw[:, :4] = rng.integers(56, 72, size=(len(raw), 4))
        shift = np.round(8 * np.log2(std / dequantize(raw.reshape(shape[0], -1), qtype).std()))
        raw[:, :4] = np.clip(raw[:, :4].astype(int) + int(shift), 1, 126)
    elif type_ == "IQ1_M":  # the half is spread over the top four bits of four little-endian words
        half = int(np.frombuffer(np.float16(std / 6).tobytes(), np.uint16)[0])
        for k in range(4):
            raw[:, 48 + 2 * k + 1] = (raw[:, 48 + 2 * k + 1] & 0x0F) | (((half >> (4 * k)) & 15) << 4)
    elif len(SCALES[type_]) == 2:
        scale, minimum = decode(1.0, 0.0), decode(0.0, -1.0)
        ratio = scale.mean() / minimum.mean()
        d = std / (scale - ratio * minimum).std()
        decode(d, d * ratio)
    else:
        decode(std / decode(1.0).std())
    return raw.reshape(shape[0], -1)


def _weights(spec: Spec, name: str, shape: tuple[int, ...], rng: np.random.Generator) -> tuple[np.ndarray, Q]:
    if name == "rope_freqs.weight":
        return rope_factors(spec), Q.F32
    if len(shape) == 1:
        around = 0.0 if name.endswith("bias") else 1.3 if "_q_norm" in name or "_k_norm" in name else 1.0
        return (around + 0.2 * rng.standard_normal(shape)).astype(np.float32), Q.F32
    part = name.split(".")[-2]
    gain = {"attn_q": 1.3, "attn_k": 1.3, "output": 2.0, "token_embd": 2.0}.get(part, 1.0)
    std = gain / np.sqrt(shape[1])
    type_ = spec.type_of(name)
    if type_ in SCALES or type_ in ("MXFP4", "NVFP4", "IQ1_M"):
        return random_blocks(type_, (shape[0], shape[1]), std, rng), Q[type_]
    values = (std * rng.standard_normal(shape)).astype(np.float32)
    return quantize(values, Q[type_]), Q[type_]


def write(spec: Spec, path: Path) -> None:
    """Write the model of ``spec`` as a GGUF v3 file; the same bytes every time."""
    rng = np.random.default_rng([20261122, spec.seed])
    w = gguf.GGUFWriter(str(path), spec.arch)
    w.add_type("model")
    w.add_name(f"tiny random {spec.name}")
    w.add_context_length(spec.context)
    w.add_embedding_length(spec.hidden)
    w.add_block_count(spec.layers)
    w.add_feed_forward_length(spec.ffn)
    w.add_head_count(spec.heads)
    w.add_head_count_kv(spec.kv_heads)
    w.add_rope_freq_base(spec.rope_base)
    w.add_layer_norm_rms_eps(spec.eps)
    all_shapes = shapes(spec)
    w.add_vocab_size(all_shapes["token_embd.weight"][0])
    if spec.arch == "llama":
        w.add_rope_dimension_count(spec.dim)
    else:
        w.add_sliding_window(spec.window)
    if spec.head_dim is not None or spec.arch == "gemma3":
        w.add_key_length(spec.dim)
        w.add_value_length(spec.dim)
    extra = {f"rope.{k}": v for k, v in spec.rope.items()} | {f"attention.{k}": v for k, v in spec.attention.items()}
    for key, value in extra.items():
        full = f"{spec.arch}.{key}"
        if isinstance(value, str):
            w.add_string(full, value)
        elif isinstance(value, int):
            w.add_uint32(full, value)
        elif isinstance(value, float):
            w.add_float32(full, value)
    w.add_quantization_version(2)
    _add_vocabulary(w, spec)
    for name, shape in all_shapes.items():
        data, qtype = _weights(spec, name, shape, rng)
        w.add_tensor(name, data, raw_dtype=qtype)
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()


def _add_vocabulary(w: gguf.GGUFWriter, spec: Spec) -> None:
    if spec.text is None:
        w.add_tokenizer_model("no_vocab")
        return
    vocab = vocabulary(spec.text)
    for key, value in vocab.items():
        full = f"tokenizer.{key}" if key == "chat_template" else f"tokenizer.ggml.{key}"
        if isinstance(value, bool):
            w.add_bool(full, value)
        elif isinstance(value, int):
            w.add_uint32(full, value)
        elif isinstance(value, str):
            w.add_string(full, value)
        else:
            w.add_array(full, value)
