"""How the next token is chosen: every setting with its range.

The defaults are those that users of llama.cpp know: temperature 0.8, top-k 40, top-p 0.95, min-p 0.05, penalties off.
"""
from __future__ import annotations

import math
import numbers
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from types import MappingProxyType
from typing import Any, TypedDict

from ggblock import errors


class SamplingOptions(TypedDict, total=False):
    """The same settings as keyword arguments of ``generate`` and ``chat``; see `Sampling`."""

    temperature: float
    top_k: int
    top_p: float
    min_p: float
    typical: float
    repeat_penalty: float
    repeat_last_n: int
    frequency_penalty: float
    presence_penalty: float
    logit_bias: Mapping[int, float]
    seed: int | None


@dataclass(frozen=True)
class Sampling:
    """Settings of one generation, checked when made.

    The stages run in this order, which is llama.cpp's default one:
    logit bias → penalties → top-k → typical → top-p → min-p → temperature → draw.
    So top-k, typical, top-p and min-p look at the probabilities *before* the temperature bends them. Each of them
    keeps at least one token. Temperature 0 takes the most likely token after bias and penalties (of equals the
    lowest id).

    Raises:
        SettingError: a value outside the range given below; the text names the setting.
    """

    temperature: float = 0.8
    """0 (greedy) or larger."""
    top_k: int = 40
    """Keep this many of the most likely tokens; 0 keeps all."""
    top_p: float = 0.95
    """Keep the smallest set of most likely tokens whose probabilities sum to this; 0..1, 1 keeps all."""
    min_p: float = 0.05
    """Keep tokens at least this many times as likely as the most likely one; 0..1, 0 keeps all."""
    typical: float = 1.0
    """Keep the smallest set of tokens, the closest to the expected surprise first, whose probabilities sum to this;
    0..1, 1 keeps all (Meister et al. 2022, arXiv:2202.00666)."""
    repeat_penalty: float = 1.0
    """Divides positive and multiplies other logits of tokens in the window; above 0, 1 changes nothing
    (Keskar et al. 2019, arXiv:1909.05858)."""
    repeat_last_n: int = 64
    """Window of the three penalties in tokens, prompt included; 0 turns them off, -1 is the whole context."""
    frequency_penalty: float = 0.0
    """Subtracted from a token's logit once for each time it occurs in the window."""
    presence_penalty: float = 0.0
    """Subtracted from a token's logit once if it occurs in the window."""
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    """Token id → what to add to its logit; ``-inf`` bans the token."""
    seed: int | None = None
    """0..2**64-1; None draws one from the system (the result tells which)."""

    def __post_init__(self) -> None:
        _real(self, "temperature", low=0.0)
        _whole(self, "top_k", low=0)
        _real(self, "top_p", low=0.0, high=1.0)
        _real(self, "min_p", low=0.0, high=1.0)
        _real(self, "typical", low=0.0, high=1.0)
        _real(self, "repeat_penalty", low=0.0)
        if self.repeat_penalty == 0.0:
            raise errors.SettingError("outside its range", where="repeat_penalty", expected="above 0", actual=0)
        _whole(self, "repeat_last_n", low=-1)
        _real(self, "frequency_penalty")
        _real(self, "presence_penalty")
        if self.seed is not None:
            _whole(self, "seed", low=0, high=2**64 - 1)
        object.__setattr__(self, "logit_bias", MappingProxyType(_checked_bias(self.logit_bias)))

    @classmethod
    def from_options(cls, options: Mapping[str, Any]) -> Sampling:
        """`Sampling` from keyword arguments; an unknown name raises `SettingError`."""
        known = [f.name for f in fields(cls)]
        for name in options:
            if name not in known:
                raise errors.SettingError("unknown setting", where=name, expected="one of " + ", ".join(known))
        return cls(**options)

    @property
    def is_greedy(self) -> bool:
        """Whether no chance is involved."""
        return self.temperature == 0.0

    @property
    def has_penalties(self) -> bool:
        """Whether any of the three penalties can change a logit."""
        return self.repeat_last_n != 0 and (
            self.repeat_penalty != 1.0 or self.frequency_penalty != 0.0 or self.presence_penalty != 0.0
        )


def _range_text(low: float, high: float) -> str:
    if high == math.inf:
        return "a finite number" if low == -math.inf else f"{low:g} or larger"
    return f"{low:g} to {high:g}"


def _real(settings: Sampling, name: str, low: float = -math.inf, high: float = math.inf) -> None:
    value = getattr(settings, name)
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise errors.SettingError("not a number", where=name, expected=_range_text(low, high), actual=repr(value))
    if not math.isfinite(value) or not low <= float(value) <= high:
        raise errors.SettingError("outside its range", where=name, expected=_range_text(low, high), actual=value)


def _whole(settings: Sampling, name: str, low: int, high: float = math.inf) -> None:
    value = getattr(settings, name)
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise errors.SettingError("not a whole number", where=name, expected=_range_text(low, high), actual=repr(value))
    if not low <= int(value) <= high:
        raise errors.SettingError("outside its range", where=name, expected=_range_text(low, high), actual=value)


def _checked_bias(bias: Mapping[int, float]) -> dict[int, float]:
    if not isinstance(bias, Mapping):
        raise errors.SettingError("not a mapping of token id to bias", where="logit_bias", actual=type(bias).__name__)
    checked: dict[int, float] = {}
    for token, value in bias.items():
        if isinstance(token, bool) or not isinstance(token, numbers.Integral) or token < 0:
            raise errors.SettingError("not a token id", where="logit_bias", expected="0 or larger", actual=repr(token))
        is_number = isinstance(value, numbers.Real) and not isinstance(value, bool)
        if not is_number or math.isnan(value) or value == math.inf:
            raise errors.SettingError(
                f"bias of token {token}", where="logit_bias", expected="a number or -inf", actual=repr(value)
            )
        checked[int(token)] = float(value)
    return checked
