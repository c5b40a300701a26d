"""Small files for the tests of this room, made with the project's writer from fixed random numbers."""
from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np

from ggblock import blocks
from ggblock.format import GgufWriter, TensorSpec

METADATA = {
    "general.architecture": "llama", "general.name": "tiny", "general.file_type": 15,
    "general.quantization_version": 2, "llama.block_count": 2, "llama.context_length": 128,
    "llama.embedding_length": 256, "llama.feed_forward_length": 512, "llama.attention.head_count": 4,
    "tokenizer.ggml.model": "gpt2", "tokenizer.ggml.tokens": [f"t{i}" for i in range(64)],
    "tokenizer.ggml.token_type": [1] * 64, "tokenizer.ggml.bos_token_id": 1,
}
TENSORS = [
    ("token_embd.weight", "q6_k", (64, 256)), ("blk.0.attn_norm.weight", "f32", (256,)),
    ("blk.0.attn_q.weight", "q4_k", (256, 256)), ("blk.0.ffn_up.weight", "q5_0", (512, 256)),
    ("blk.0.ffn_down.weight", "q8_0", (256, 512)), ("blk.1.attn_q.weight", "q4_k", (256, 256)),
    ("blk.1.ffn_up.weight", "iq4_nl", (512, 256)), ("output_norm.weight", "f32", (256,)),
]


def weights(name: str, shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    """float32 of that shape, the same for the same name and seed."""
    rng = np.random.default_rng([seed, *name.encode()])
    return (rng.standard_normal(shape) * 0.05).astype(np.float32)


@lru_cache(maxsize=256)
def encoded(name: str, kind: str, shape: tuple[int, ...]) -> np.ndarray:
    """`weights` as the block type stores them; kept, because a search takes longer than the test around it."""
    if blocks.by_name(kind).encode is None:
        return np.zeros(shape, "<i4")
    array = weights(name, shape)
    return array if blocks.by_name(kind).unpack is None else blocks.quantize(array, kind)


def write(
    path: Path, metadata: dict[str, object] | None = None, tensors: list | None = None, **options: object
) -> Path:
    """A file of `METADATA` and `TENSORS`, or of others; ``options`` go to the writer."""
    chosen = TENSORS if tensors is None else tensors
    specs = [TensorSpec(name, kind, shape) for name, kind, shape in chosen]
    with GgufWriter(path, METADATA if metadata is None else metadata, specs, **options) as writer:  # type: ignore[arg-type]
        for name, kind, shape in chosen:
            writer.write(name, encoded(name, kind, shape))
    return path
