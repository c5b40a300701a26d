"""The weights that a checkpoint gives to a tensor of a GGUF file, before anything is quantized.

What becomes of names, rows and values is what the conversion does (`names`): a tool that compares a quantized
tensor with its original sees exactly the numbers that were quantized. Nothing here needs a compiler.
"""
from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from .. import blocks, errors
from .config import Config
from .names import architecture_of, names_of, plain_name
from .plan import Step, _mapped
from .sources import Source, SourceTensor

F32 = NDArray[np.float32]


class Original:
    """One tensor as a conversion would see it: ``shape``, and `rows` as float32."""

    def __init__(self, step: Step) -> None:
        self._step = step
        self.shape = step.shape

    def rows(self, i0: int, i1: int) -> F32:
        """Rows ``i0`` to ``i1`` (exclusive): float32 (i1 - i0, n_cols)."""
        return rows(self._step, i0, i1)


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


def rows(step: Step, i0: int, i1: int, decode: Callable[[SourceTensor, int, int], F32] | None = None) -> F32:
    """Rows ``i0`` to ``i1`` of the result before encoding: float32 (i1 - i0, n_cols).

    ``decode``: a faster way to the rows of a source tensor than its own ``rows``.
    """
    source = step.source
    if source is None:
        assert step.values is not None
        return step.values.reshape(step.n_rows, step.n_cols)[i0:i1]
    read = decode or (lambda tensor, a, b: tensor.rows(a, b))
    if step.index is None:
        values = read(source, i0, i1)
    elif len(step.shape) == 1:
        values = source.rows(0, 1)[:, step.index]
    else:
        # A head's rows lie together, so that the rows asked for are in a narrow range of the source.
        index = step.index[i0:i1]
        low, high = int(index.min()), int(index.max()) + 1
        values = read(source, low, high)[index - low]
    if step.add:
        # In the checkpoint's own precision, as other converters do it: float16 plus one is rounded to float16.
        kind = np.float16 if source.type.name == "f16" else np.float32
        values = (values.astype(kind) + kind(step.add)).astype(np.float32)
    return values
