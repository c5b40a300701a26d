"""Where metadata and tensors of one file contradict each other."""
from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from ..format.metadata import ArrayValue
from ..format.reader import GgufFile

_BLOCK = re.compile(r"blk\.(\d+)\.")


@dataclass(frozen=True)
class Contradiction:
    """``where``: the metadata key. ``message``: what disagrees. ``expected``: by the tensors. ``actual``: stated."""

    where: str
    message: str
    expected: object
    actual: object


def integer(file: GgufFile, key: str) -> int | None:
    """An integer metadata value, or None when it is missing or something else."""
    value = file.metadata.get(key)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def length(file: GgufFile, key: str) -> int | None:
    """The length of an array in the metadata, or None when it is missing or something else."""
    value = file.metadata.get(key)
    return len(value) if isinstance(value, ArrayValue) else None


def architecture(file: GgufFile) -> str:
    """``general.architecture``, or the empty text."""
    value = file.metadata.get("general.architecture")
    return value if isinstance(value, str) else ""


def contradictions(file: GgufFile) -> Iterator[Contradiction]:
    """Every contradiction between metadata and tensors that can be told without knowing the architecture."""
    arch = architecture(file)
    for rule in _RULES:
        yield from rule(file, arch)


def _layers(file: GgufFile, arch: str) -> Iterator[Contradiction]:
    stated = integer(file, f"{arch}.block_count")
    numbers = {int(m[1]) for name in file.tensors if (m := _BLOCK.match(name))}
    if stated is None or not numbers:
        return
    # Some architectures keep extra layers for predicting several tokens ahead beyond block_count.
    extra = integer(file, f"{arch}.nextn_predict_layers") or 0
    if not stated <= max(numbers) + 1 <= stated + extra:
        yield Contradiction(f"{arch}.block_count", "layers in the tensors' names", max(numbers) + 1, stated)


def _width(file: GgufFile, arch: str) -> Iterator[Contradiction]:
    stated, table = integer(file, f"{arch}.embedding_length"), file.tensors.get("token_embd.weight")
    if stated is not None and table is not None and table.n_cols != stated:
        yield Contradiction(f"{arch}.embedding_length", "columns of token_embd.weight", table.n_cols, stated)


def _feed_forward(file: GgufFile, arch: str) -> Iterator[Contradiction]:
    stated, up = integer(file, f"{arch}.feed_forward_length"), file.tensors.get("blk.0.ffn_up.weight")
    # A gate fused into the same tensor doubles its rows.
    if stated is not None and up is not None and len(up.shape) == 2 and up.n_rows not in (stated, 2 * stated):
        yield Contradiction(f"{arch}.feed_forward_length", "rows of blk.0.ffn_up.weight", up.n_rows, stated)


def _heads(file: GgufFile, arch: str) -> Iterator[Contradiction]:
    width = integer(file, f"{arch}.embedding_length")
    heads, query = integer(file, f"{arch}.attention.head_count"), file.tensors.get("blk.0.attn_q.weight")
    if not heads or not width or query is None or arch.startswith("deepseek"):
        return
    each = integer(file, f"{arch}.attention.key_length") or width // heads
    # Gated attention keeps a gate of the same size in the tensor.
    if query.n_rows not in (heads * each, 2 * heads * each):
        yield Contradiction(f"{arch}.attention.head_count", "rows of blk.0.attn_q.weight", query.n_rows, heads * each)


def _vocabulary(file: GgufFile, arch: str) -> Iterator[Contradiction]:
    n_tokens = length(file, "tokenizer.ggml.tokens")
    if n_tokens is None:
        return
    table = file.tensors.get("token_embd.weight")
    if table is not None and table.n_rows < n_tokens:
        yield Contradiction("tokenizer.ggml.tokens", "rows of token_embd.weight", table.n_rows, n_tokens)
    for key in ("tokenizer.ggml.scores", "tokenizer.ggml.token_type"):
        n = length(file, key)
        if n is not None and n != n_tokens:
            yield Contradiction(key, "as many elements as tokens", n_tokens, n)
    stated = integer(file, f"{arch}.vocab_size")
    if stated is not None and stated < n_tokens:
        yield Contradiction(f"{arch}.vocab_size", "at least as many as tokens", n_tokens, stated)
    for key in file.metadata:
        if key.startswith("tokenizer.ggml.") and key.endswith("_token_id"):
            token = integer(file, key)
            if token is not None and token >= n_tokens and token != 0xFFFFFFFF:
                yield Contradiction(key, "a token of the vocabulary", f"below {n_tokens}", token)


def _tensor_count(file: GgufFile, arch: str) -> Iterator[Contradiction]:
    stated = integer(file, "split.tensors.count")
    if stated is not None and integer(file, "split.count") in (None, 0, 1) and stated != len(file.tensors):
        yield Contradiction("split.tensors.count", "tensors in the file", len(file.tensors), stated)


_RULES: tuple[Callable[[GgufFile, str], Iterator[Contradiction]], ...] = (
    _layers, _width, _feed_forward, _heads, _vocabulary, _tensor_count,
)
