"""Recipes: from a tensor's name, shape and place to its block type. The choices are data (``recipes.toml``)."""
from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .. import blocks, errors
from ..blocks import tails
from ..kernels.quantizers import MODULES
from .tables import from_file, packaged

_RULE_KEYS = {"tensors", "layers", "kv_group", "experts", "importance", "type"}
_ATTENTION_V = ("attn_v", "attn_qkv", "attn_kv_b")

#: ``layers`` of a rule: whether layer ``i`` of ``n`` is among them.
_LAYERS = {
    "first 2": lambda i, n: i < 2,
    "first 4": lambda i, n: i < 4,
    "first eighth": lambda i, n: i < n // 8,
    "first 16th": lambda i, n: i < n // 16,
    "more": lambda i, n: i < n // 8 or i >= 7 * n // 8 or (i - n // 8) % 3 == 2,
}


@dataclass(frozen=True)
class Rule:
    """One rule of a recipe; the fields are described in ``recipes.toml``."""

    tensors: tuple[str, ...]
    type: str
    layers: str | None = None
    kv_group: int = 0
    experts: int | None = None
    importance: bool | None = None


@dataclass(frozen=True)
class Recipe:
    """A base ``type``, the number for ``general.file_type``, and rules; the first that fits counts.

    ``overrides``: (pattern, type) pairs that come before every rule. ``pure``: no rules at all.
    """

    name: str
    type: str
    file_type: int
    rules: tuple[Rule, ...] = ()
    overrides: tuple[tuple[str, str], ...] = ()
    pure: bool = False


@dataclass(frozen=True)
class Model:
    """What rules ask of a model: layers, query heads and key-value heads a layer, experts."""

    n_layers: int
    n_heads: int
    n_kv_heads: int
    n_experts: int = 0

    @property
    def kv_group(self) -> int:
        """Query heads that share a key-value head."""
        return self.n_heads // self.n_kv_heads if self.n_kv_heads else 0

    @property
    def is_70b(self) -> bool:
        """Whether the model has the shape of Llama 2 70B and its successors."""
        return self.n_layers == 80 and self.n_heads != self.n_kv_heads


@dataclass(frozen=True)
class Choice:
    """What a recipe decided: ``type``, and ``wanted``, the type it would have been had the row fitted."""

    type: blocks.BlockType
    wanted: blocks.BlockType


def recipe_names() -> tuple[str, ...]:
    """Names of the recipes that come with the package."""
    return tuple(packaged("recipes.toml")["recipe"])


def recipe(
    name: str | None, *, file: str | None = None, overrides: Iterable[str] = (), pure: bool = False
) -> Recipe:
    """A recipe by name, or from a person's TOML file, with overrides ``"regex=type"``.

    A file has ``type`` (and what else a recipe has) at its top, or ``base`` = the name of a recipe whose rules follow
    its own. Raises `errors.SettingError` for unknown names, keys, types or a bad pattern.
    """
    if file is not None:
        table = from_file(file)
        base = table.pop("base", None) or name
        below = _lookup(str(base)) if base is not None else {"name": "own"}
        found = _parse("own", {**below, **{k: v for k, v in table.items() if k != "rules"}}, file)
        own = _rules(table.get("rules", []), file)
        found = Recipe(found.name, found.type, found.file_type, own + found.rules)
    else:
        if name is None:
            raise errors.SettingError("a type or a recipe is needed", where="--type")
        found = _parse(name, _lookup(name), None)
    pairs = tuple(_override(text) for text in overrides)
    return Recipe(found.name, found.type, found.file_type, found.rules, pairs, pure)


def _lookup(name: str) -> Mapping[str, Any]:
    table = packaged("recipes.toml")["recipe"]
    if name.lower() not in table:
        raise errors.SettingError(
            f"unknown type or recipe {name!r}", where="--type", expected="one of " + " ".join(table)
        )
    return {"name": name.lower(), **table[name.lower()]}


def _parse(name: str, table: Mapping[str, Any], file: str | None) -> Recipe:
    unknown = set(table) - {"name", "type", "file_type", "rules"}
    if unknown or "type" not in table or not isinstance(table.get("file_type", 1), int):
        raise errors.SettingError(
            "a recipe has a type, a file_type and rules", file=file, where=name, actual=" ".join(sorted(unknown))
        )
    return Recipe(
        table.get("name", name), _encodable(table["type"], file, name), table.get("file_type", 1),
        _rules(table.get("rules", []), file),
    )


def _rules(rules: Any, file: str | None) -> tuple[Rule, ...]:
    classes = set(packaged("recipes.toml")["classes"])
    found = []
    for i, rule in enumerate(rules if isinstance(rules, list) else [None], 1):
        where = f"rule {i}"
        if not isinstance(rule, dict) or set(rule) - _RULE_KEYS or "tensors" not in rule or "type" not in rule:
            raise errors.SettingError("a rule is a table with tensors, type and known conditions", file=file,
                                      where=where, expected=" ".join(sorted(_RULE_KEYS)))
        tensors = tuple(rule["tensors"]) if isinstance(rule["tensors"], list) else (str(rule["tensors"]),)
        if set(tensors) - classes:
            raise errors.SettingError("a rule names an unknown class of tensors", file=file, where=where,
                                      expected=" ".join(sorted(classes)), actual=" ".join(map(str, tensors)))
        if rule.get("layers") is not None and rule["layers"] not in _LAYERS:
            raise errors.SettingError("a rule names unknown layers", file=file, where=where,
                                      expected=", ".join(_LAYERS), actual=rule["layers"])
        found.append(Rule(
            tensors, _encodable(rule["type"], file, where), rule.get("layers"), int(rule.get("kv_group", 0)),
            rule.get("experts"), rule.get("importance"),
        ))  # fmt: skip
    return tuple(found)


def _encodable(name: Any, file: str | None, where: str) -> str:
    try:
        block = blocks.by_name(str(name))
    except errors.UnknownType as fault:
        raise errors.SettingError(fault.message, file=file, where=where) from None
    if block.name not in MODULES and (block.unpack is not None or block.encode is None):
        raise errors.SettingError(f"{block.label} can be read but not written", file=file, where=where)
    return block.name


def _override(text: str) -> tuple[str, str]:
    pattern, sign, name = text.rpartition("=")
    if not sign or not pattern:
        raise errors.SettingError("not of the form REGEX=TYPE", where="--tensor-type", actual=text)
    return compiled(pattern, "--tensor-type").pattern, _encodable(name, None, "--tensor-type")


def compiled(pattern: str, where: str) -> re.Pattern[str]:
    """``pattern`` as a regular expression; raises `errors.SettingError`."""
    try:
        return re.compile(pattern)
    except (re.error, RecursionError, OverflowError) as fault:
        raise errors.SettingError(f"not a regular expression: {fault}", where=where, actual=pattern) from None


def class_of(name: str) -> str:
    """The class of a tensor (see ``recipes.toml``), '' for those of none."""
    for kind, pieces in packaged("recipes.toml")["classes"].items():
        if any(name == piece[1:] if piece[0] == "=" else piece in name for piece in pieces):
            return str(kind)
    return ""


def is_plain(name: str, shape: Sequence[int]) -> bool:
    """Whether a tensor keeps its numbers whatever the recipe (see ``recipes.toml``)."""
    dims = list(shape)
    while len(dims) > 1 and dims[0] == 1:
        del dims[0]
    listed = packaged("recipes.toml")["plain"]["names"]
    return len(dims) < 2 or not name.endswith("weight") or any(piece in name for piece in listed)


def choose(
    found: Recipe, tensors: Mapping[str, Sequence[int]], model: Model, importance: bool, ragged: bool = False
) -> dict[str, Choice]:
    """The block type of every tensor in ``tensors`` (name: shape, rows first) that is not plain.

    ``importance``: whether an importance matrix is used. ``ragged``: whether rows may end in a partial super-block,
    as in GGB files; then a type fits where its sub-blocks do. Raises `errors.SettingError` for an override that fits
    none.
    """
    positions, count = _positions(tensors)
    tied = "output.weight" not in tensors
    patterns = [(re.compile(pattern), kind) for pattern, kind in found.overrides]
    used: set[str] = set()
    choices: dict[str, Choice] = {}
    base = blocks.by_name(found.type)
    for name, shape in tensors.items():
        if is_plain(name, shape):
            continue
        hit = next(((pattern, kind) for pattern, kind in patterns if pattern.search(name)), None)
        if hit is not None:
            used.add(hit[0].pattern)
            wanted = blocks.by_name(hit[1])
        elif base.unpack is None or found.pure:
            wanted = base
        else:
            kind = class_of(name)
            n = max(1, count.get("attn_v", 0)) if kind in _ATTENTION_V else model.n_layers
            wanted = _ruled(found, kind, tied, shape[-1], positions.get(name, 0), n, model, importance,
                            ragged)
        choices[name] = Choice(fitting(wanted, shape[-1], ragged), wanted)
    for pattern, _ in found.overrides:
        if pattern not in used and not any(re.search(pattern, name) for name in choices):
            raise errors.SettingError("the pattern fits no tensor that can be quantized", where="--tensor-type",
                                      actual=pattern)
    return choices


def _positions(tensors: Mapping[str, Sequence[int]]) -> tuple[dict[str, int], dict[str, int]]:
    """Each tensor's place among those of its class, in the order of layers, and how many there are of each."""
    def layer(name: str) -> tuple[int, str]:
        match = re.match(r"blk\.(\d+)\.", name)
        return (int(match[1]) if match else 1 << 30, name)

    positions: dict[str, int] = {}
    count: dict[str, int] = {}
    for name in sorted(tensors, key=layer):
        if is_plain(name, tensors[name]):
            continue
        kind = class_of(name)
        kind = "attn_v" if kind in _ATTENTION_V else kind
        positions[name] = count.get(kind, 0)
        count[kind] = positions[name] + 1
    return positions, count


def _ruled(
    found: Recipe, kind: str, tied: bool, n_cols: int, i: int, n: int, model: Model, importance: bool, ragged: bool
) -> blocks.BlockType:
    base = blocks.by_name(found.type)
    head = packaged("recipes.toml")["head"]
    if kind == "output" or (kind == "token_embd" and tied):
        if n_cols % _unit(base, ragged):
            return blocks.by_name(head["when_it_does_not_fit"])
        return base if base.name in head["unless"] else blocks.by_name(head["type"])
    fits = (rule.type for rule in found.rules if kind in rule.tensors and _fits(rule, i, n, model, importance))
    chosen = next(fits, base.name)
    if kind in _ATTENTION_V and model.is_70b and chosen in ("q3_k", "q4_k"):
        chosen = "q5_k"  # eight query heads lean on each of these few rows
    if model.n_experts == 8 and (kind in _ATTENTION_V or kind == "attn_k"):
        chosen = "q8_0"  # next to nothing beside eight experts
    return blocks.by_name(chosen)


def _fits(rule: Rule, i: int, n: int, model: Model, importance: bool) -> bool:
    return (
        (rule.layers is None or _LAYERS[rule.layers](i, n))
        and model.kv_group >= rule.kv_group
        and (rule.experts is None or (model.n_experts == 8) == (rule.experts == 8))
        and (rule.importance is None or rule.importance == importance)
    )


def _unit(block: blocks.BlockType, ragged: bool) -> int:
    """What the columns of a type must be a multiple of."""
    return tails.step(block) if ragged else block.block_size


def fitting(wanted: blocks.BlockType, n_cols: int, ragged: bool = False) -> blocks.BlockType:
    """``wanted``, or what it becomes where ``n_cols`` is no whole number of its blocks (``ragged``: sub-blocks)."""
    if n_cols % _unit(wanted, ragged) == 0:
        return wanted
    other = packaged("recipes.toml")["fallback"].get(wanted.name)
    if other is not None and n_cols % _unit(blocks.by_name(other), ragged) == 0:
        return blocks.by_name(other)
    return blocks.by_name("f16")
