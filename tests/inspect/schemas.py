"""Checks a JSON document against ``spec/json/NAME.schema.json``: the part of JSON Schema that those files use."""
from __future__ import annotations

import json
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parents[2] / "spec" / "json"
_TYPES: dict[str, tuple[type, ...]] = {
    "object": (dict,), "array": (list,), "string": (str,), "integer": (int,), "number": (int, float),
    "boolean": (bool,), "null": (type(None),),
}  # fmt: skip
_KNOWN = {"$schema", "$id", "$defs", "$ref", "title", "description", "type", "properties", "required",
          "additionalProperties", "items", "enum", "const", "anyOf", "minimum"}  # fmt: skip


def check(document: Any, name: str) -> None:
    """Raise AssertionError where ``document`` is not what the schema ``name`` says."""
    schema = json.loads((FOLDER / f"{name}.schema.json").read_text("utf-8"))
    # What JSON cannot hold must not hide in a Python object.
    _check(json.loads(json.dumps(document, allow_nan=False)), schema, schema, "$")


def _check(value: Any, rule: dict[str, Any], root: dict[str, Any], at: str) -> None:
    assert set(rule) <= _KNOWN, f"{at}: the schema uses {set(rule) - _KNOWN}, which this checker does not know"
    if "$ref" in rule:
        _check(value, root["$defs"][rule["$ref"].removeprefix("#/$defs/")], root, at)
        return
    if "anyOf" in rule:
        faults = []
        for each in rule["anyOf"]:
            try:
                _check(value, each, root, at)
                return
            except AssertionError as fault:
                faults.append(str(fault))
        raise AssertionError(f"{at}: {' / '.join(faults)}")
    if "const" in rule:
        assert value == rule["const"], f"{at}: {value!r} is not {rule['const']!r}"
    if "enum" in rule:
        assert value in rule["enum"], f"{at}: {value!r} is not one of {rule['enum']}"
    if "type" in rule:
        wanted = [rule["type"]] if isinstance(rule["type"], str) else rule["type"]
        fits = any(isinstance(value, _TYPES[t]) and (t == "boolean") >= isinstance(value, bool) for t in wanted)
        assert fits, f"{at}: {value!r} is no {wanted}"
    if "minimum" in rule and isinstance(value, (int, float)):
        assert value >= rule["minimum"], f"{at}: {value} is below {rule['minimum']}"
    if isinstance(value, dict):
        properties, extra = rule.get("properties", {}), rule.get("additionalProperties", True)
        for name in rule.get("required", ()):
            assert name in value, f"{at}: {name} is missing"
        for name, item in value.items():
            if name in properties:
                _check(item, properties[name], root, f"{at}.{name}")
            elif isinstance(extra, dict):
                _check(item, extra, root, f"{at}.{name}")
            else:
                assert extra, f"{at}: {name} is not in the schema"
    if isinstance(value, list) and "items" in rule:
        for i, item in enumerate(value):
            _check(item, rule["items"], root, f"{at}[{i}]")
