"""Architectures: what a checkpoint calls its tensors, what a GGUF file calls them, and what happens to them between.

One file each, named as in ``general.architecture``, with ``metadata(config)``, ``tensors(config)`` and
``generated(config)``; ``ARCHITECTURES`` says which checkpoints are of which.
"""
from __future__ import annotations

import importlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from ... import errors
from ..config import Config

#: ``architectures[0]`` of config.json: file in this package.
ARCHITECTURES = {
    "LlamaForCausalLM": "llama",
    "LLaMAForCausalLM": "llama",
    "MistralForCausalLM": "llama",
    "LlamaModel": "llama",
    "Gemma3ForCausalLM": "gemma3",
    "Gemma3ForConditionalGeneration": "gemma3",
    "SmolLM3ForCausalLM": "smollm3",
}
#: Parts of names that belong to no language model: towers that see or hear, and values that are computed anyway.
IGNORED = re.compile(
    r"vision_|vision\.|visual\.|audio_|audio\.|projector\.|\.rotary_emb\.inv_freq$|\.attention\.(masked_)?bias$"
)


@dataclass(frozen=True)
class Target:
    """What becomes of one tensor of a checkpoint.

    ``name``: in the GGUF file. ``shape``: what config.json says it must be; a None accepts any length.
    ``heads``: the rows of each of so many heads change from two halves to pairs; 0: they stay. ``add``: added to every
    weight. ``max_rows``: rows beyond these (of an embedding wider than the vocabulary) are dropped.
    ``required``: whether the model can do without it.
    """

    name: str
    shape: tuple[int | None, ...]
    heads: int = 0
    add: float = 0.0
    max_rows: int | None = None
    required: bool = True


class Names(Protocol):
    """What a file in this package offers."""

    def metadata(self, config: Config) -> dict[str, Any]:
        """The keys ``ARCHITECTURE.*`` without that prefix."""
        ...

    def tensors(self, config: Config, n_vocab: int | None) -> dict[str, Target]:
        """Every tensor that the model may have, by its name in the checkpoint."""
        ...

    def generated(self, config: Config) -> dict[str, NDArray[np.float32]]:
        """Tensors that the GGUF file holds and the checkpoint does not."""
        ...


def architecture_of(config: Config) -> str:
    """The architecture's name in GGUF; raises `errors.UnknownArchitecture`."""
    if config.architecture not in ARCHITECTURES:
        raise errors.UnknownArchitecture(
            "checkpoints of this architecture cannot be converted", file=config.path, where="architectures",
            expected="one of " + " ".join(ARCHITECTURES), actual=config.architecture or "nothing",
        )
    quantized = config.values.get("quantization_config")
    if quantized:
        method = quantized.get("quant_method") if isinstance(quantized, Mapping) else None
        raise config.fault(
            "quantization_config", "the checkpoint is already quantized; convert the original", actual=method
        )
    return ARCHITECTURES[config.architecture]


def names_of(architecture: str) -> Names:
    """The file of this package for ``architecture``."""
    return cast(Names, importlib.import_module(f"{__name__}.{architecture}"))


def plain_name(name: str) -> str:
    """A checkpoint's tensor name without what wraps the language model, beginning with ``model.`` or ``lm_head.``."""
    name = name.replace("language_model.", "").replace("text_model.", "")
    while name.startswith("model.model."):
        name = name[len("model.") :]
    if name.startswith(("layers.", "embed_tokens.", "norm.")):
        name = "model." + name
    return "lm_head." + name[len("model.lm_head.") :] if name.startswith("model.lm_head.") else name


def layer_tensors(
    n_layers: int, table: Mapping[str, tuple[str, tuple[int, ...], dict[str, Any]]], biases: bool
) -> Iterator[tuple[str, Target]]:
    """One entry a layer of ``table`` (name in the checkpoint: name, shape, further fields), optional biases beside."""
    for i in range(n_layers):
        for name, (target, shape, more) in table.items():
            yield f"model.layers.{i}.{name}.weight", Target(f"blk.{i}.{target}.weight", shape, **more)
            if biases and len(shape) == 2:
                yield (
                    f"model.layers.{i}.{name}.bias",
                    Target(f"blk.{i}.{target}.bias", shape[:1], required=False, heads=more.get("heads", 0)),
                )


def pair_index(n_rows: int, heads: int) -> NDArray[np.int64]:
    """For each row of the GGUF tensor the row of the checkpoint's.

    Checkpoints turn dimension ``j`` of a head with ``j + half``, llama's kernels neighbours: row ``2 j + k`` of a head
    comes from row ``j + k * half``.
    """
    half = n_rows // heads // 2
    index: NDArray[np.int64] = np.arange(n_rows).reshape(heads, 2, half).swapaxes(1, 2).reshape(n_rows)
    return index
