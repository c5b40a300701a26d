"""Read an importance matrix in llama.cpp's GGUF layout: for each tensor the mean square of every input column.

Tensor ``NAME.in_sum2`` holds sums of squares, float32 (n_matrices, n_cols), ``NAME.counts`` how many were added,
float32 (n_matrices, 1).
"""
from __future__ import annotations

import os

import numpy as np
from numpy.typing import NDArray

from .. import errors
from ..format.reader import open_gguf


def read_importance(path: str | os.PathLike[str]) -> dict[str, NDArray[np.float32]]:
    """Weights of the squared errors, float32 (n_cols,), finite and not negative, by tensor name.

    Tensors with several matrices (experts) get the mean of those that were used. Raises what `open_gguf` raises,
    `errors.MissingTensor`, `errors.ShapeMismatch`, `errors.NonFiniteWeight`.
    """
    found: dict[str, NDArray[np.float32]] = {}
    with open_gguf(path) as file:
        for name, tensor in file.tensors.items():
            if not name.endswith(".in_sum2"):
                continue
            plain = name[: -len(".in_sum2")]
            counts = file.tensors.get(plain + ".counts")
            if counts is None:
                raise errors.MissingTensor("an importance matrix needs the counts of its sums", file=file.path,
                                           where=plain + ".counts")
            sums = tensor.dequantize().reshape(-1, tensor.n_cols).astype(np.float64)
            n = counts.dequantize().reshape(-1).astype(np.float64)
            if len(n) != len(sums):
                raise errors.ShapeMismatch("sums and counts do not match", file=file.path, where=name,
                                           expected=len(sums), actual=len(n))
            used = n > 0
            if not np.isfinite(sums).all() or (sums < 0).any() or not np.isfinite(n).all():
                raise errors.NonFiniteWeight("sums of squares are finite and not negative", file=file.path, where=name)
            if used.any():
                found[plain] = (sums[used] / n[used, None]).mean(axis=0).astype(np.float32)
    if not found:
        raise errors.MissingTensor("the file holds no importance matrix", file=os.fsdecode(path), where="*.in_sum2")
    return found
