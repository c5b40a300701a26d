"""`ggblock.load`: from a path or a catalog name to a `Model`."""
from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any

from ggblock import errors
from ggblock.runtime.model import Model


def load(
    source: str | os.PathLike[str],
    *,
    threads: int | None = None,
    context: int | None = None,
    offload: Any = None,
    kv: str | None = None,
    activations: str | None = None,
    reference: bool = False,
    require_vocabulary: bool = False,
    notify: Callable[[str], None] | None = None,
) -> Model:
    """Load a model so that it can run::

        with ggblock.load("model.gguf") as model:
            print(model.generate("Once upon a time", max_tokens=64).run().text)

    Args:
        source: a path or a catalog name; a catalog model is fetched once.
        threads: threads that compute; None takes what suits this CPU. Results do not depend on it.
        context: tokens that prompt and answer may have together; None takes what the model was
            trained for, at most 8,192.
        offload: what an NVIDIA GPU computes (it needs the extra ``ggblock[cuda]``): a number N for the last N layers,
            "all" for all layers and the output matrix, "auto" for as many as fit its memory, or a regular expression
            over names of tensors; None for nothing. Layers keep their KV cache where they run.
        kv: element type of the KV cache: "q12" (12 bits, of which a token reads 8 where the others do not matter),
            "f16", "q8_0" (8 bits: about half the memory of f16) or "f32"; None takes "q12" with fast activations on
            x86, else "f16" ("f32" for reference).
        activations: how activations are held in matrix products: "fast" (int8 in prefill, two terms of int8 in decode),
            "fine" (two terms in both) or "exact" (float32, no integer shortcuts); None takes "fast".
        reference: the same as ``activations="exact", kv="f32"``: slow, and what the others are measured by.
        require_vocabulary: fail before anything is compiled when the file has no usable tokenizer. Otherwise such a
            file loads, and continues token ids only.
        notify: gets a line when something takes long (kernels compiled on the first start) or is done another way
            than asked; without it, warnings tell the second kind.

    Raises:
        UnknownModel: neither a path nor a catalog name. Other `CatalogError`: the model could not be fetched.
        FormatError, UnknownType: the file is damaged or not a GGUF file.
        UnknownArchitecture, MissingTensor, ShapeMismatch: the file holds no model that ggblock runs.
        MetadataError: a key of the architecture is missing.
        SettingError, DeviceError: a bad setting, or no such accelerator.
    """
    start = time.perf_counter()
    from ggblock import catalog
    from ggblock.format import open_gguf

    for name, value in (("threads", threads), ("context", context)):
        if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
            raise errors.SettingError("outside its range", where=name, expected="1 or larger", actual=value)
    file = open_gguf(catalog.resolve(source, notify=notify))
    try:
        if require_vocabulary:
            from ggblock import tokenizer

            built = tokenizer.from_metadata(file.metadata)
        from ggblock import models

        engine = models.build(
            file, threads=threads, context=context, kv_type=kv, reference=reference, activations=activations,
            offload=offload, notify=notify,
        )  # fmt: skip
    except BaseException:
        file.close()
        raise
    model = Model(file, engine, load_s=time.perf_counter() - start, notify=notify)
    if require_vocabulary:
        model.tokenizer = built
    return model
