"""Rounding the activations of a torch model, to know what error integer arithmetic may cause."""
from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
from transformers.models.llama.modeling_llama import eager_attention_forward


def nmse(found: np.ndarray, exact: np.ndarray) -> float:
    """sum (found - exact)^2 / sum (exact - mean of its row)^2: a constant added to all logits of a row counts as error,
    but a large common offset does not hide one."""
    exact = np.asarray(exact, np.float64)
    spread = exact - exact.mean(axis=-1, keepdims=True)
    return float(np.square(np.asarray(found, np.float64) - exact).sum() / np.square(spread).sum())


def to_int8(x: torch.Tensor, group: int) -> torch.Tensor:
    """The values of ``x`` after rounding to int8 with a scale per ``group`` neighbours of the last axis."""
    width = x.shape[-1]
    padded = torch.nn.functional.pad(x, (0, -width % group)).unflatten(-1, (-1, group))
    scale = padded.abs().amax(-1, keepdim=True) / 127
    rounded = torch.round(padded / torch.where(scale == 0, torch.ones_like(scale), scale)) * scale
    return rounded.flatten(-2)[..., :width]


def _half_kv(module: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, *args: Any, **kw: Any) -> Any:
    return eager_attention_forward(module, query, key.half().float(), value.half().float(), *args, **kw)


AttentionInterface.register("half_kv", _half_kv)
AttentionMaskInterface.register("half_kv", ALL_MASK_ATTENTION_FUNCTIONS["eager"])


@contextmanager
def coarse(model: torch.nn.Module, group: int = 256) -> Iterator[None]:
    """Inside: inputs of all linear layers rounded to int8 per ``group``, keys and values rounded to half precision."""
    def hook(_: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        return (to_int8(inputs[0], group), *inputs[1:])

    handles: list[Any] = [m.register_forward_pre_hook(hook) for m in model.modules() if isinstance(m, torch.nn.Linear)]
    before: str = model.config._attn_implementation
    model.config._attn_implementation = "half_kv"
    try:
        yield
    finally:
        model.config._attn_implementation = before
        for handle in handles:
            handle.remove()
