"""``config.json`` with the checks that every architecture needs, and rotary settings in one shape."""
from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from .. import errors


class Config:
    """The settings of a checkpoint. A ``text_config`` (of models that also see) counts as the settings themselves."""

    def __init__(self, values: Mapping[str, Any], path: str) -> None:
        text = values.get("text_config")
        self.values = {**values, **text} if isinstance(text, Mapping) else dict(values)
        self.path = path
        names = values.get("architectures") or self.values.get("architectures")
        self.architecture = names[0] if isinstance(names, list) and names and isinstance(names[0], str) else ""

    def fault(self, key: str, message: str, expected: object = None, actual: object = None) -> errors.BadCheckpoint:
        return errors.BadCheckpoint(message, file=self.path, where=key, expected=expected, actual=actual)

    def assume(self, **settings: Any) -> None:
        """What transformers assumes where config.json says nothing; llama.cpp's converter asks transformers."""
        for key, value in settings.items():
            if self.values.get(key) is None:
                self.values[key] = value

    def integer(self, *keys: str, default: Any = ..., low: int = 1, high: int = 1 << 31) -> Any:
        """The first of ``keys`` that is there, an integer in ``low .. high``; null counts as missing.

        Raises `errors.BadCheckpoint` where it is missing without a ``default`` or of another kind.
        """
        for key in keys:
            value = self.values.get(key)
            if value is None:
                continue
            if isinstance(value, float) and value.is_integer():
                value = int(value)
            if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
                raise self.fault(key, "a bad setting", f"an integer from {low} to {high}", value)
            return value
        if default is ...:
            raise self.fault(keys[0], "the setting is missing")
        return default

    def number(self, *keys: str, default: Any = ...) -> Any:
        """Like `integer`, a finite number as float."""
        for key in keys:
            value = self.values.get(key)
            if value is not None:
                return number(value, lambda key=key: self.fault(key, "a bad setting", "a finite number"))
        if default is ...:
            raise self.fault(keys[0], "the setting is missing")
        return default

    def rope(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Rotary settings of layers that see everything, and of those with a sliding window (may be empty).

        The older keys (``rope_theta``, ``rope_scaling``, ``rope_local_base_freq``) and ``rope_parameters`` are read.
        ``rope_type`` is always under that name.
        """
        given = self.values.get("rope_parameters", self.values.get("rope_scaling")) or {}
        if not isinstance(given, Mapping):
            raise self.fault("rope_parameters", "a bad setting", "an object", given)
        if "full_attention" in given or "sliding_attention" in given:
            both = (dict(given.get("full_attention") or {}), dict(given.get("sliding_attention") or {}))
        else:
            both = (dict(given), {})
            theta = self.number("global_rope_theta", "rope_theta", "rotary_emb_base", default=None)
            local = self.number("local_rope_theta", "rope_local_base_freq", "swa_rope_theta", default=None)
            if theta is not None:
                both[0].setdefault("rope_theta", theta)
            if local is not None:
                both[1]["rope_theta"] = local
        for each in both:
            if "rope_type" not in each and "type" in each:
                each["rope_type"] = each["type"]
            for key in each:
                if key not in ("rope_type", "type") and not isinstance(each[key], (list, bool)):
                    each[key] = number(each[key], lambda key=key: self.fault(key, "a bad setting", "a finite number"))
        return both


def number(value: Any, fault: Any) -> float:
    """``value`` as a finite float, or the exception that ``fault`` makes."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise fault()
    return float(value)
