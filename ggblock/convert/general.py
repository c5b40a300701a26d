"""``general.*`` metadata: what a model is called, who made it, under which licence, as far as its files tell.

Sources in order: the head of the model card (README.md), generation_config.json (sampling), ``_name_or_path`` in
config.json, the folder's name. How a name such as ``SmolLM2-135M-Instruct`` is taken apart follows GGUF's naming
convention.
"""
from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any

import yaml

from ..format.metadata import Typed
from .sources import Source

#: Key after ``general.``: names in the head of a model card, first match wins.
_CARD = {
    "name": ("name", "model_name"), "author": ("author", "model_author", "model_creator"),
    "version": ("version", "model_version"), "organization": ("organization", "model_organization"),
    "finetune": ("finetune", "model_finetune"), "basename": ("basename", "model_basename", "model_type"),
    "description": ("description", "model_description"), "size_label": ("size_label", "model_size_label"),
    "license": ("license",), "license.name": ("license_name",), "license.link": ("license_link",),
    "source.url": ("url", "model_url"), "source.doi": ("doi", "model_doi"), "source.uuid": ("uuid", "model_uuid"),
    "source.repo_url": ("repo_url", "model_repo_url"),
}  # fmt: skip
_ORDER = (
    "name", "author", "version", "organization", "finetune", "basename", "description", "size_label", "license",
    "license.name", "license.link", "source.url", "source.doi", "source.uuid", "source.repo_url",
)  # fmt: skip
_SAMPLING = {
    "top_k": ("top_k", "i32"), "top_p": ("top_p", "f32"), "min_p": ("min_p", "f32"),
    "xtc_probability": ("xtc_probability", "f32"), "xtc_threshold": ("xtc_threshold", "f32"),
    "temp": ("temperature", "f32"), "penalty_last_n": ("penalty_last_n", "i32"),
    "penalty_repeat": ("penalty_repeat", "f32"), "mirostat": ("mirostat", "i32"),
    "mirostat_tau": ("mirostat_tau", "f32"), "mirostat_eta": ("mirostat_eta", "f32"),
}  # fmt: skip
MAX_CARD_BYTES = 1 << 24


def general(source: Source, n_weights: int) -> dict[str, Any]:
    """The keys ``general.*`` of a checkpoint with ``n_weights`` weights, but for architecture and file type."""
    card = _card(source)
    values: dict[str, Any] = {}
    for key, names in _CARD.items():
        found = next((card[name] for name in names if card.get(name) is not None), None)
        if found is not None:
            values[key] = ",".join(map(str, found)) if isinstance(found, list) else str(found)
    config = source.config or {}
    folder, told = os.path.basename(os.path.abspath(source.folder)), config.get("_name_or_path")
    if not isinstance(told, str) or told.count("/") > 1:
        told = ""  # a path on somebody's computer is no name
    for name in (told, folder):
        if name:
            for key, part in parts_of(name, n_weights).items():
                values.setdefault(key, title(part) if key in ("name", "organization") else part)
    values.setdefault("name", folder or "model")
    values.setdefault("size_label", size_label(n_weights))
    keys: dict[str, Any] = {"general.type": "model", **_sampling(source)}
    keys.update({f"general.{key}": values[key] for key in _ORDER if key in values})
    keys.update(_relatives(card, "base_model", ("base_model", "base_models", "base_model_sources"), n_weights))
    keys.update(_relatives(card, "dataset", ("datasets", "dataset", "dataset_sources"), n_weights))
    for key, fields in (("tags", ("tags", "pipeline_tag")), ("languages", ("languages", "language"))):
        items = [str(item) for field in fields for item in _listed(card.get(field))]
        if items:
            keys[f"general.{key}"] = Typed("str[]", items)
    return keys


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value] if isinstance(value, str) else []


def _card(source: Source) -> dict[str, Any]:
    path = source.file("README.md")
    if path is None:
        return {}
    try:
        with open(path, encoding="utf-8") as stream:
            lines = stream.read(MAX_CARD_BYTES).splitlines()
        if not lines or lines[0] != "---":
            return {}
        end = lines.index("---", 1) if "---" in lines[1:] else len(lines)
        # A bare "no" is YAML's false, and in these lists always Norwegian; some cards indent with tabs.
        head = "\n".join(lines[1:end]) + "\n"
        loaded = yaml.safe_load(head.replace("- no\n", '- "no"\n').replace("\t", "  "))
    except (OSError, UnicodeDecodeError, yaml.YAMLError, RecursionError):
        return {}  # a card is prose for people; a broken one must not stop a conversion
    return loaded if isinstance(loaded, dict) else {}


def _sampling(source: Source) -> dict[str, Any]:
    settings = source.json("generation_config.json", required=False)
    values: dict[str, Any] = {}
    if isinstance(settings.get("sequence"), str):
        values["general.sampling.sequence"] = settings["sequence"]
    for key, (name, kind) in _SAMPLING.items():
        value = settings.get(name)
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            values[f"general.sampling.{key}"] = Typed(kind, int(value) if kind == "i32" else float(value))
    return values


def _relatives(card: Mapping[str, Any], key: str, fields: tuple[str, ...], n_weights: int) -> dict[str, Any]:
    """``general.base_model.*`` or ``general.dataset.*``."""
    found = next((card[field] for field in fields if field in card), None)
    if found is None:
        return {}
    entries = _listed(found)
    values: dict[str, Any] = {f"general.{key}.count": Typed("u32", len(entries))}
    for i, entry in enumerate(entries):
        facts = {str(k): str(v) for k, v in entry.items()} if isinstance(entry, dict) else _facts(str(entry), n_weights)
        for field in ("name", "author", "version", "organization", "description", "url", "doi", "uuid", "repo_url"):
            if field in facts:
                values[f"general.{key}.{i}.{field}"] = facts[field]
    return values


def _facts(entry: str, n_weights: int) -> dict[str, str]:
    facts: dict[str, str] = {}
    name: str | None = entry
    if entry.startswith(("http://", "https://", "ssh://")):
        facts["repo_url"] = entry
        match = re.fullmatch(r"https?://huggingface\.co/([^/]+/[^/]+)", entry)
        name = match[1] if match else None
    if name is not None:
        parts = parts_of(name, n_weights)
        facts.update({k: title(parts[k]) for k in ("name", "organization") if k in parts})
        facts.update({k: parts[k] for k in ("version",) if k in parts})
        if "organization" in parts and "repo_url" not in facts:
            facts["repo_url"] = f"https://huggingface.co/{name}"
    return facts


def title(text: str) -> str:
    """Words with capitals, except versions and words that have some already: ``my-model v1`` to ``My Model v1``."""
    words = text.strip().replace("-", " ").split()
    return " ".join(w.title() if w.islower() and not re.match(r"(v\d+(?:\.\d+)*|\d.*)$", w) else w for w in words)


def size_label(n_weights: int) -> str:
    """``135M``: the number of weights with at least two digits."""
    for limit, letter in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (0, "K")):  # noqa: B007
        if n_weights > limit:
            break
    scaled = n_weights / (limit or 1e3)
    digits = max(2 - len(str(round(scaled)).lstrip("0")), 0)
    return f"{scaled:.{digits}f}{letter}"


_SIZE = re.compile(r"(([A]|\d+[x])?\d+([._]\d+)?[KMBT][\d]?|small|mini|medium|large|x?xl)", re.IGNORECASE)
_VERSION = re.compile(r"(v|iter)?\d+([.]\d+)*", re.IGNORECASE)
_TYPE = re.compile(r"i?q\d(_\w)*|b?fp?(16|32)", re.IGNORECASE)
_TUNE = re.compile(r"chat|instruct|vision|lora", re.IGNORECASE)


def parts_of(model_id: str, n_weights: int) -> dict[str, str]:
    """``ORG/Name-1.1-7B-Instruct`` as name, organization, basename, version, size_label, finetune; absent: not told.

    A size far from ``n_weights`` is rather a context length, and counts to the fine-tuning's name.
    """
    if " " in model_id:
        return {"name": model_id}
    organization, _, name = model_id.partition("/") if "/" in model_id else ("", "", model_id)
    facts = {"name": name}
    if organization and not organization.startswith("."):
        facts["organization"] = organization
    parts = [part for part in name.split("-") if part]
    kinds: list[set[str]] = [set() for _ in parts]
    for i, part in enumerate(parts):
        if _VERSION.fullmatch(part):
            kinds[i].add("version")
        elif _TYPE.fullmatch(part):
            kinds[i].add("type")
            parts[i] = part.upper()
        elif i > 0 and _SIZE.fullmatch(part):
            parts[i], told = _size_part(part, n_weights)
            kinds[i].add(told)
        elif i > 0 and _TUNE.fullmatch(part):
            kinds[i].add("finetune")
    sizes = [part for part, kind in zip(parts, kinds, strict=True) if "size_label" in kind]
    if any(c.isdecimal() for part in sizes for c in part):
        for part, kind in zip(parts, kinds, strict=True):
            if part.isalpha():
                kind.discard("size_label")
    at_start = True
    for part, kind in zip(parts, kinds, strict=True):
        if at_start and ((not kind and part[0].isalpha()) or "version" in kind):
            kind.add("basename")
        else:
            at_start = False
            if not kind:
                kind.add("finetune")
    for kind in reversed(kinds):  # a version at the end of the name's base is the model's version
        if "basename" not in kind or len(kind) == 1:
            break
        kind.remove("basename")

    def joined(which: str, but: str = "") -> str:
        chosen = [part for part, kind in zip(parts, kinds, strict=True) if which in kind and but not in kind]
        return "-".join(dict.fromkeys(chosen) if which == "size_label" else chosen)

    found = {
        "size_label": joined("size_label"), "finetune": joined("finetune"), "version": joined("version", "basename"),
    }  # fmt: skip
    if any(found.values()):
        found["basename"] = joined("basename")
    facts.update({key: value for key, value in found.items() if value})
    return facts


def _size_part(part: str, n_weights: int) -> tuple[str, str]:
    part = part.replace("_", ".")
    if part[-1].isdecimal():  # 7b1 means 7.1b
        part = part[:-2] + "." + part[-1] + part[-2]
    if len(part) > 1 and part[-2].isdecimal() and part[-1] in "kmbt":
        part = part[:-1] + part[-1].upper()
    kind = "size_label"
    try:
        size = float(part[:-1]) * 1000.0 ** " KMBT".find(part[-1])
    except ValueError:
        return part, kind
    if n_weights and abs(size - n_weights) > 7 * n_weights // 8:
        kind, part = "finetune", part[:-1] + part[-1].lower()
    return part, kind
