"""``smollm3``: SmolLM 3. Tensors and keys are those of ``llama``; the name stands for the rotary layers."""
from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..config import Config
from . import Target, llama

STEP = 4  # every fourth layer turns nothing: no key in a GGUF file could say otherwise


def _assume(config: Config) -> None:
    config.assume(rope_theta=2e6, max_position_embeddings=32768, num_key_value_heads=4)
    config.values.setdefault("tie_word_embeddings", True)


def metadata(config: Config) -> dict[str, Any]:
    _assume(config)
    n_layers = config.integer("num_hidden_layers", high=4096)
    step = config.integer("no_rope_layer_interval", default=STEP)
    wanted = [int((i + 1) % STEP != 0) for i in range(n_layers)]
    given = config.values.get("no_rope_layers")
    if given is None:
        given = [int((i + 1) % step != 0) for i in range(n_layers)]
    if given != wanted:
        raise config.fault(
            "no_rope_layers", "a GGUF file only describes a SmolLM3 whose every fourth layer has no rotary positions",
            wanted, given,
        )
    if config.values.get("use_sliding_window"):
        raise config.fault("use_sliding_window", "a GGUF file cannot describe a SmolLM3 with sliding windows", False)
    values = llama.metadata(config)
    if config.values.get("head_dim") is None:
        del values["attention.key_length"], values["attention.value_length"]  # other converters tell what is told
    return values


def tensors(config: Config, n_vocab: int | None) -> dict[str, Target]:
    _assume(config)
    return llama.tensors(config, n_vocab)


def generated(config: Config) -> dict[str, NDArray[np.float32]]:
    return llama.generated(config)
