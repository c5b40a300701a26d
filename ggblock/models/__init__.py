"""Architectures: one file each, named as in ``general.architecture``, from metadata to a plan.

``build(file, ...)`` picks the file's architecture from ``ARCHITECTURES``. Adding one is one file with a function
``layers(model)`` and one line in that table.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..engine.store import Notify
    from ..format import GgufFile
    from .compiled import CompiledModel

ARCHITECTURES = ("llama", "gemma3")


def build(
    file: GgufFile,
    *,
    threads: int | None = None,
    context: int | None = None,
    kv_type: str = "f16",
    reference: bool = False,
    offload: Any = None,
    notify: Notify | None = None,
) -> CompiledModel:
    """A model that runs, from an open file. Imports the engine; compiles kernels that are not in the cache yet.

    ``threads``: None takes one for each processor that this process may use. ``context``: tokens the KV cache holds;
    None takes the trained length, at most 8,192. ``kv_type``: "f16" or "f32". ``reference``: float32 activations.
    ``notify`` gets one line before anything slow. Raises ``UnknownArchitecture``, ``MissingTensor``,
    ``ShapeMismatch``, ``MissingKey``, ``WrongKeyKind``, ``SettingError``, ``DeviceError``.
    """
    from .compiled import compile_model

    return compile_model(
        file, threads=threads, context=context, kv_type=kv_type, reference=reference, offload=offload, notify=notify
    )
