"""The weights that a checkpoint gives to a tensor of a GGUF file, before anything is quantized.

What becomes of names, rows and values is what the conversion does (`names`): a tool that compares a quantized
tensor with its original sees exactly the numbers that were quantized. Nothing here needs a compiler.
"""
from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import blocks, errors
from ..blocks.base import U8
from .config import Config
from .names import architecture_of, names_of, plain_name
from .plan import Step, _mapped
from .sources import Source, SourceTensor

F32 = NDArray[np.float32]
#: Number types that the encoder reads as they are stored.
PLAIN = ("f32", "f16", "bf16")


class Original:
    """One tensor as a conversion would see it: ``shape``, and `rows` as float32."""

    def __init__(self, step: Step) -> None:
        self._step = step
        self.shape = step.shape

    def rows(self, i0: int, i1: int) -> F32:
        """Rows ``i0`` to ``i1`` (exclusive): float32 (i1 - i0, n_cols)."""
        raw, kind = numbers(self._step, i0, i1)
        block = blocks.by_name(kind)
        return block.decode(np.ascontiguousarray(raw).reshape(-1, block.block_bytes)).reshape(len(raw), -1)


def original(source: Source, name: str, shape: tuple[int, ...]) -> Original:
    """The original of the tensor ``name``, which has ``shape`` in a GGUF file (rows first).

    Raises `errors.UnknownArchitecture`, `errors.BadCheckpoint`, `errors.MissingTensor` when the checkpoint has
    no tensor that becomes ``name``, and `errors.ShapeMismatch`.
    """
    step = _step(source, name, shape)
    if step.shape != shape:
        raise errors.ShapeMismatch("the reference has another shape", file=source.path, where=name, expected=shape,
                                   actual=step.shape)  # fmt: skip
    return Original(step)


def stored(source: Source, name: str, shape: tuple[int, ...]) -> SourceTensor:
    """The tensor that the checkpoint itself calls ``name``, as it is stored; raises as `original` does."""
    if name not in source.tensors:
        raise errors.MissingTensor("the reference has no such tensor", file=source.path, where=name)
    found = source.tensors[name]
    if found.shape != shape:
        raise errors.ShapeMismatch("the reference has another shape", file=found.path, where=name, expected=shape,
                                   actual=found.shape)  # fmt: skip
    return found


def _step(source: Source, name: str, shape: tuple[int, ...]) -> Step:
    plain = blocks.by_name("f32")
    config = Config(source.config or {}, f"{source.folder}/config.json")
    names = names_of(architecture_of(config))
    made = names.generated(config).get(name)
    if made is not None:
        return Step(name, made.shape, plain, plain, values=made)
    # As many rows of the embedding as the file has: the vocabulary need not be read for that.
    targets = names.tensors(config, shape[0] if shape else None)
    for stored, tensor in source.tensors.items():
        target = targets.get(plain_name(stored))
        if target is not None and target.name == name:
            return _mapped(tensor, target, plain)
    wanted = [stored for stored, target in targets.items() if target.name == name]
    raise errors.MissingTensor("the checkpoint has no tensor that becomes this one", file=source.path, where=name,
                               expected=wanted[0] if wanted else None)  # fmt: skip


def numbers(step: Step, i0: int, i1: int) -> tuple[U8, str]:
    """Rows ``i0`` to ``i1`` of the result before encoding: uint8 (i1 - i0, row bytes), and the type of their numbers,
    one of `PLAIN`; or "blocks", where they are to be copied as they are."""
    source = step.source
    if source is None:
        assert step.values is not None
        return _bytes_of(step.values.reshape(step.n_rows, step.n_cols)[i0:i1]), "f32"
    kind = source.type.name
    if step.copies:
        return source.raw_rows(i0, i1), kind if kind in PLAIN else "blocks"
    if kind in PLAIN and not step.add:
        return _turned(step, i0, i1, source.raw_rows, source.type.block_bytes), kind
    rows = _turned(step, i0, i1, source.rows, 1)
    if step.add:
        # In the checkpoint's own precision, as other converters do it: float16 plus one is rounded to float16.
        number = np.float16 if kind == "f16" else np.float32
        rows = (rows.astype(number) + number(step.add)).astype(np.float32)
    return _bytes_of(rows), "f32"


def _turned(step: Step, i0: int, i1: int, read: Callable[[int, int], NDArray[Any]], width: int) -> NDArray[Any]:
    """Rows ``i0`` to ``i1`` in the order of ``step.index``; ``width``: elements of a number in what ``read`` gives."""
    if step.index is None:
        return read(i0, i1)
    if len(step.shape) == 1:
        return read(0, 1).reshape(-1, width)[step.index].reshape(1, -1)
    # A head's rows lie together, so that the rows asked for are in a narrow range of the source.
    index = step.index[i0:i1]
    low, high = int(index.min()), int(index.max()) + 1
    return read(low, high)[index - low]


def _bytes_of(rows: F32) -> U8:
    plain = np.ascontiguousarray(rows, "<f4")
    return plain.view(np.uint8).reshape(len(plain), -1)
