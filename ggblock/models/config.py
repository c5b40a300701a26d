"""What the metadata say of a model, checked against its tensors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from .. import errors
from ..format import GgufFile
from ..format.reader import Tensor


class Source:
    """Keys and tensors of a file with the checks that every architecture needs."""

    def __init__(self, file: GgufFile, architecture: str) -> None:
        self.file, self.architecture = file, architecture

    def _get(self, key: str, kinds: tuple[type, ...], what: str, default: Any) -> Any:
        full = key.replace("*", self.architecture)
        if full not in self.file.metadata:
            if default is ...:
                raise errors.MissingKey("the model needs this metadata key", file=self.file.path, where=full)
            return default
        value = self.file.metadata[full]
        if isinstance(value, bool) or not isinstance(value, kinds):
            raise errors.WrongKeyKind(
                "metadata of the wrong kind",
                file=self.file.path,
                where=full,
                expected=what,
                actual=type(value).__name__,
            )
        return value

    def integer(self, key: str, default: Any = ..., low: int = 1, high: int = 1 << 24) -> Any:
        """An integer in ``low .. high``; ``*`` in ``key`` stands for the architecture."""
        value = self._get(key, (int,), "an integer", default)
        if value is not None and value is not default and not low <= value <= high:
            raise errors.ShapeMismatch(
                "metadata out of range",
                file=self.file.path,
                where=key.replace("*", self.architecture),
                expected=f"{low} to {high}",
                actual=value,
            )
        return value

    def number(self, key: str, default: Any = ...) -> Any:
        value = self._get(key, (float, int), "a number", default)
        if isinstance(value, (float, int)) and not abs(value) < 1e30:
            raise errors.ShapeMismatch(
                "metadata out of range",
                file=self.file.path,
                where=key.replace("*", self.architecture),
                expected="a finite number",
                actual=value,
            )
        return value

    def text(self, key: str, default: Any = ...) -> Any:
        return self._get(key, (str,), "a string", default)

    def has(self, name: str) -> bool:
        return name in self.file.tensors

    def tensor(self, name: str, *shape: int) -> Tensor:
        """Tensor ``name``; ``shape`` is rows first. Raises ``MissingTensor`` or ``ShapeMismatch``."""
        if name not in self.file.tensors:
            raise errors.MissingTensor(
                f"architecture {self.architecture} needs this tensor", file=self.file.path, where=name
            )
        found = self.file.tensors[name]
        if tuple(found.shape) != shape:
            raise errors.ShapeMismatch(
                "the tensor contradicts the metadata",
                file=self.file.path,
                where=name,
                expected=" x ".join(map(str, shape)),
                actual=" x ".join(map(str, found.shape)),
            )
        return found


@dataclass(frozen=True)
class Config:
    """Sizes of a decoder-only transformer; lengths in elements, ``n_rot`` dimensions of a head that are rotated."""

    architecture: str
    n_layers: int
    n_embd: int
    n_ff: int
    n_heads: int
    n_kv_heads: int
    head: int
    n_rot: int
    n_vocab: int
    n_ctx_train: int
    eps: float


def read_config(source: Source) -> Config:
    """The sizes that all architectures here share."""
    n_embd, n_heads = source.integer("*.embedding_length"), source.integer("*.attention.head_count")
    n_kv_heads = source.integer("*.attention.head_count_kv", n_heads)
    head = source.integer("*.attention.key_length", None)
    where = f"{source.architecture}.attention"
    if head is None:
        if n_embd % n_heads:
            raise errors.ShapeMismatch(
                "embedding_length is no multiple of head_count",
                file=source.file.path,
                where=f"{where}.head_count",
                actual=f"{n_embd} / {n_heads}",
            )
        head = n_embd // n_heads
    if source.integer("*.attention.value_length", head) != head:
        raise errors.ShapeMismatch(
            "keys and values of different length cannot be run",
            file=source.file.path,
            where=f"{where}.value_length",
            expected=head,
        )
    if n_heads % n_kv_heads:
        raise errors.ShapeMismatch(
            "head_count is no multiple of head_count_kv",
            file=source.file.path,
            where=f"{where}.head_count_kv",
            actual=f"{n_heads} / {n_kv_heads}",
        )
    n_rot = source.integer("*.rope.dimension_count", head)
    if n_rot % 2 or n_rot > head:
        raise errors.ShapeMismatch(
            "rotated dimensions must be even and no more than a head has",
            file=source.file.path,
            where=f"{source.architecture}.rope.dimension_count",
            expected=f"at most {head}",
            actual=n_rot,
        )
    if "token_embd.weight" not in source.file.tensors:
        source.tensor("token_embd.weight")
    n_vocab = source.file.tensors["token_embd.weight"].shape[0]
    source.tensor("token_embd.weight", n_vocab, n_embd)
    return Config(
        source.architecture,
        source.integer("*.block_count", high=4096),
        n_embd,
        source.integer("*.feed_forward_length"),
        n_heads,
        n_kv_heads,
        head,
        n_rot,
        n_vocab,
        source.integer("*.context_length"),
        source.number("*.attention.layer_norm_rms_epsilon"),
    )
