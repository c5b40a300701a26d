"""Weights of a checkpoint, left where they are in their mapped file."""
from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ... import blocks, errors
from ...format.mapped import Mapped
from ...format.reader import Tensor


class SourceTensor(Protocol):
    """What a conversion needs of a tensor, whatever file it is in.

    ``shape``: rows first. ``type``: a block type, of one weight a block where the checkpoint is not quantized.
    A tensor of more than two dimensions is seen as rows of its last one; one of a single dimension is one row.
    """

    @property
    def name(self) -> str: ...
    @property
    def path(self) -> str: ...
    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def type(self) -> blocks.BlockType: ...
    @property
    def end_bytes(self) -> int: ...

    def rows(self, i0: int, i1: int) -> NDArray[np.float32]:
        """Rows ``i0`` to ``i1`` (exclusive): float32 (i1 - i0, n_cols)."""
        ...

    def raw_rows(self, i0: int, i1: int) -> NDArray[np.uint8]:
        """The same rows as they are stored, little-endian: uint8 (i1 - i0, row_bytes)."""
        ...

    def release(self) -> None:
        """Let the system drop the tensor's pages from this process."""
        ...


def n_rows(tensor: SourceTensor) -> int:
    """Rows of ``tensor`` as the protocol sees them."""
    return math.prod(tensor.shape[:-1])


def n_weights(tensor: SourceTensor) -> int:
    """All weights of ``tensor``."""
    return math.prod(tensor.shape)


@dataclass(frozen=True)
class PlainTensor:
    """A tensor of plain numbers in a mapped file, C order, little-endian.

    ``offset_bytes``: of its first number in the file. ``strides``: None, or elements between neighbours along each
    dimension (torch stores views), relative to ``offset_bytes``.
    """

    name: str
    shape: tuple[int, ...]
    type: blocks.BlockType
    mapped: Mapped
    offset_bytes: int
    strides: tuple[int, ...] | None = None

    @property
    def path(self) -> str:
        return self.mapped.path

    @property
    def end_bytes(self) -> int:
        """Where the last number ends in the file."""
        if self.strides is None:
            return self.offset_bytes + n_weights(self) * self.type.block_bytes
        reach = sum((n - 1) * s for n, s in zip(self.shape, self.strides, strict=True)) + 1
        return self.offset_bytes + reach * self.type.block_bytes

    @property
    def _row_bytes(self) -> int:
        return (self.shape[-1] if self.shape else 1) * self.type.block_bytes

    def raw_rows(self, i0: int, i1: int) -> NDArray[np.uint8]:
        width = self.type.block_bytes
        if self.strides is None:
            n_bytes = (i1 - i0) * self._row_bytes
            if n_bytes == 0:
                return np.empty((i1 - i0, self._row_bytes), np.uint8)
            start = self.offset_bytes + i0 * self._row_bytes
            return np.frombuffer(self.mapped.data, np.uint8, n_bytes, start).reshape(i1 - i0, -1)
        reach = sum((n - 1) * s for n, s in zip(self.shape, self.strides, strict=True)) + 1
        flat = np.frombuffer(self.mapped.data, np.uint8, reach * width, self.offset_bytes).reshape(reach, width)
        shape = (*self.shape, width)
        view = np.lib.stride_tricks.as_strided(flat, shape, (*(s * width for s in self.strides), 1), writeable=False)
        if len(self.shape) > 2:  # a copy: rows of several dimensions need not be a regular view
            view = np.ascontiguousarray(view)
        table = view.reshape(-1, *shape[-2:]) if len(self.shape) != 1 else view[None]
        return np.ascontiguousarray(table[i0:i1]).reshape(i1 - i0, -1)

    def rows(self, i0: int, i1: int) -> NDArray[np.float32]:
        raw = self.raw_rows(i0, i1)
        return self.type.decode(raw.reshape(-1, self.type.block_bytes)).reshape(i1 - i0, -1)

    def release(self) -> None:
        if self.strides is None:
            self.mapped.release(self.offset_bytes, n_weights(self) * self.type.block_bytes)


class GgufTensor:
    """A tensor of an open GGUF or GGB file."""

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor
        self.name, self.path, self.shape, self.type = tensor.name, tensor.path, tensor.shape, tensor.type
        self.end_bytes = tensor.offset_bytes + tensor.n_bytes

    def rows(self, i0: int, i1: int) -> NDArray[np.float32]:
        return self.tensor.rows(i0, i1)

    def raw_rows(self, i0: int, i1: int) -> NDArray[np.uint8]:
        return self.tensor.raw_rows(i0, i1)

    def release(self) -> None:
        self.tensor.release()


#: Number types of checkpoints by the names that safetensors gives them. Others (fp8, complex, bool) have no weights
#: that could be converted without knowing their scales.
DTYPES = {
    "F64": "f64", "F32": "f32", "F16": "f16", "BF16": "bf16", "I64": "i64", "I32": "i32", "I16": "i16", "I8": "i8",
}


def plain_type(dtype: str, *, file: str, where: str) -> blocks.BlockType:
    """The block type of a checkpoint's number type; raises `errors.BadCheckpoint` for one that is not known."""
    if dtype not in DTYPES:
        raise errors.BadCheckpoint(
            "numbers of this type cannot be converted", file=file, where=where, expected="one of " + " ".join(DTYPES),
            actual=dtype,
        )
    return blocks.by_name(DTYPES[dtype])
