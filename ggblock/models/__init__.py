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

ARCHITECTURES = ("llama", "gemma3", "smollm3")

#: Types of the KV cache; ``kernels.rope`` describes how each lies in memory.
KV_TYPES = ("q12", "f16", "q8_0", "f32")

#: How activations are held in matrix products: ``kernels.matmul``'s modes of the layers, for one token and for many,
#: and of the logits. "1" is int8, "2" two terms of int8 (about 15 bits), "1+" more bits for the columns that need them
#: most, "f" float32. Weights that are floats take floats, in "fast" F16 and BF16 of many tokens about 14 bits
#: (``kernels.float_words``). Decoding is bound by reading weights, so two terms cost it nothing; where it would be
#: bound by computing, with block types of less than 3.5 bits a weight, and on AVX2 with most, it has "1+" too
#: (``kernels.families.mode_of_one``). Logits take two terms for many tokens too: a prompt needs those of its last token
#: only. Mean KL of SmolLM2's prefill with
#: one term everywhere 0.0033, with two for the logits 0.0024, with "1+" 0.0010, with two everywhere 0.0000005 (at 1.4
#: times the time); of its decode as Q3_K_M 0.0000004 with two terms, 0.00005 with "1+" for Q3_K, as Q2_K 0.001.
ACTIVATIONS = {
    "fast": (("2", "1+"), ("2", "2")),
    "fine": (("2", "2"), ("2", "2")),
    "exact": (("f", "f"), ("f", "f")),
}


def build(
    file: GgufFile,
    *,
    threads: int | None = None,
    context: int | None = None,
    kv_type: str | None = None,
    reference: bool = False,
    activations: str | None = None,
    offload: Any = None,
    notify: Notify | None = None,
) -> CompiledModel:
    """A model that runs, from an open file. Imports the engine; compiles kernels that are not in the cache yet.

    ``threads``: None takes one for each processor that this process may use. ``context``: tokens the KV cache holds;
    None takes the trained length, at most 8,192. ``activations``: a name of ``ACTIVATIONS``, None for "fast".
    ``kv_type``: one of ``KV_TYPES``, None for "q12" with fast activations on x86, else "f16". ``reference``: where
    those two are None, "exact" and "f32".
    ``notify`` gets one line before anything slow. Raises ``UnknownArchitecture``, ``MissingTensor``,
    ``ShapeMismatch``, ``MissingKey``, ``WrongKeyKind``, ``SettingError``, ``DeviceError``.
    """
    from .compiled import compile_model

    return compile_model(
        file, threads=threads, context=context, kv_type=kv_type, reference=reference, activations=activations,
        offload=offload, notify=notify,
    )  # fmt: skip


def kernels_of(
    file: GgufFile, *, kv_type: str | None = None, reference: bool = False, activations: str | None = None
) -> list[str]:
    """Names of all kernels that a model built from ``file`` with these settings runs (``engine.store.kernels``).

    Weights are not read and nothing is compiled. Raises what ``build`` raises for the file and the settings.
    """
    from .compiled import kernels_of as find

    return find(file, kv_type=kv_type, reference=reference, activations=activations)
