"""Special tokens, whether they are added, merges and chat templates, from the files beside a tokenizer."""
from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from typing import Any

from ... import errors
from ...format.metadata import Typed
from ..sources import Source

#: Kind of special token: its key in a GGUF file.
ID_KEYS = {
    "bos": "tokenizer.ggml.bos_token_id", "eos": "tokenizer.ggml.eos_token_id",
    "unk": "tokenizer.ggml.unknown_token_id",
    "sep": "tokenizer.ggml.seperator_token_id", "pad": "tokenizer.ggml.padding_token_id",
    "mask": "tokenizer.ggml.mask_token_id", "eot": "tokenizer.ggml.eot_token_id", "eom": "tokenizer.ggml.eom_token_id",
}  # fmt: skip
ADD_KEYS = {kind: f"tokenizer.ggml.add_{kind}_token" for kind in ("bos", "eos", "sep")}
_KINDS = ("bos", "eos", "unk", "sep", "pad", "cls", "mask")
#: Bytes of a chat template; real ones have at most some 100,000.
MAX_TEMPLATE_BYTES = 1 << 24


@dataclass
class Special:
    """What is found: ``ids`` and ``add`` by kind (bos, eos, ...), the chat template or templates, notes."""

    ids: dict[str, int] = field(default_factory=dict)
    add: dict[str, bool] = field(default_factory=dict)
    template: str | list[dict[str, Any]] | None = None
    notes: list[str] = field(default_factory=list)

    def keys(self) -> dict[str, Any]:
        """As GGUF metadata, in their usual order."""
        values: dict[str, Any] = {ID_KEYS[k]: Typed("u32", n) for k, n in self.ids.items() if k in ID_KEYS}
        values.update({ADD_KEYS[k]: flag for k, flag in self.add.items() if k in ADD_KEYS})
        values.update(_templates(self.template))
        return values


def find(source: Source, config: dict[str, Any], n_vocab: int, tokenizer: dict[str, Any] | None) -> Special:
    """Special tokens of the checkpoint: tokenizer_config.json first, then config.json (``config``).

    ``tokenizer``: the object in tokenizer.json, None where there is none. An id that is no token (``n_vocab``) is left
    out with a note.
    """
    found = Special()
    settings = source.json("tokenizer_config.json", required=False)
    kinds = list(_KINDS)
    if tokenizer is not None:
        _from_processors(found, tokenizer, settings, kinds)
    if settings:
        found.template = _find_template(source, settings)
        listed = (tokenizer or {}).get("added_tokens") or []
        added = {token.get("content"): token.get("id") for token in reversed(listed)}
        for kind in kinds:
            flag = settings.get(f"add_{kind}_token")
            if isinstance(flag, bool):
                found.add[kind] = flag
            _keep(found, kind, added.get(_content(settings.get(f"{kind}_token"))), n_vocab)
    text = config.get("text_config")
    for kind in kinds:
        token_id = config.get(f"{kind}_token_id")
        if token_id is None and isinstance(text, dict):
            token_id = text.get(f"{kind}_token_id")
        _keep(found, kind, token_id, n_vocab)
    return found


def _content(token: Any) -> str | None:
    value = token.get("content") if isinstance(token, dict) else token
    return value if isinstance(value, str) else None


def _keep(found: Special, kind: str, token_id: Any, n_vocab: int) -> None:
    if not isinstance(token_id, int) or isinstance(token_id, bool) or kind in found.ids:
        return
    if 0 <= token_id < n_vocab:
        found.ids[kind] = token_id
    else:
        found.notes.append(f"the {kind} token's id {token_id} is no token of the vocabulary; it is left out")


def _from_processors(found: Special, tokenizer: dict[str, Any], settings: dict[str, Any], kinds: list[str]) -> None:
    """What tokenizer.json adds around a text. ``settings`` and ``kinds`` are completed by what it tells."""
    for first, second in (("bos_token", "cls_token"), ("eos_token", "sep_token")):
        if settings and not settings.get(first) and settings.get(second):
            settings[first] = settings[second]
    top = tokenizer.get("post_processor")
    if not isinstance(top, dict):
        return
    for processor in top.get("processors") or [top]:
        if processor.get("type") == "RobertaProcessing":
            found.add.update(bos=True, eos=True, sep=True)
        elif processor.get("type") == "TemplateProcessing":
            _from_template(found, processor, settings, kinds)


def _special_id(piece: Any) -> str | None:
    inner = piece.get("SpecialToken") if isinstance(piece, dict) else None
    return inner.get("id") if isinstance(inner, dict) else None


def _from_template(found: Special, processor: dict[str, Any], settings: dict[str, Any], kinds: list[str]) -> None:
    bos, eos, cls, sep = (_content(settings.get(f"{kind}_token")) for kind in ("bos", "eos", "cls", "sep"))
    single, pair = processor.get("single") or [], processor.get("pair") or []
    first = last = None
    if len(single) > 1:
        first, last = _special_id(single[0]), _special_id(single[-1])
        if first:
            found.add["bos"] = not settings or first in (bos, cls)
        if last:
            if settings and last != eos:
                # The text ends with another token than the one that ends an answer: that one gets a name of its own.
                spare = next((kind for kind in ("eot", "eom") if kind not in kinds), None)
                if spare is not None:
                    kinds.append(spare)
                    settings[f"{spare}_token"] = settings.get("eos_token")
                settings["eos_token"] = eos = last
            found.add["eos"] = not settings or last == eos
    if pair:
        start = 1 if first and _special_id(pair[0]) == first else 0
        stop = len(pair) - 1 if last and _special_id(pair[-1]) == last else len(pair)
        between = [_special_id(piece) for piece in pair[start:stop][1:-1]]
        if between:
            known = [token for token in between[:2] if token is not None and token in (sep, eos)]
            adds = bool(known) and (not last or len(between) == 2)
            found.add["sep"] = adds
            if adds and not sep and settings:
                settings["sep_token"] = eos


def _find_template(source: Source, settings: dict[str, Any]) -> str | list[dict[str, Any]] | None:
    template: Any = None
    beside = source.file("chat_template.jinja")
    if beside is not None:
        template = _read(beside)
        folder = os.path.join(source.folder, "additional_chat_templates")
        more = sorted(n for n in os.listdir(folder) if n.endswith(".jinja")) if os.path.isdir(folder) else []
        if more:
            template = [{"name": "default", "template": template}]
            template += [{"name": n[: -len(".jinja")], "template": _read(os.path.join(folder, n))} for n in more]
    elif source.file("chat_template.json") is not None:
        template = source.json("chat_template.json").get("chat_template")
    chosen = settings.get("chat_template", template)
    return chosen if isinstance(chosen, (str, list)) else None


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8") as stream:
            text = stream.read(MAX_TEMPLATE_BYTES + 1)
    except (OSError, UnicodeDecodeError) as fault:
        raise errors.CannotRead(f"cannot be read: {fault}", file=path) from None
    if len(text) > MAX_TEMPLATE_BYTES:
        raise errors.BadCheckpoint("too large", file=path, expected=f"at most {MAX_TEMPLATE_BYTES} characters")
    return text


def _templates(template: str | list[dict[str, Any]] | None) -> dict[str, Any]:
    if template is None or isinstance(template, str):
        return {} if template is None else {"tokenizer.chat_template": template}
    values: dict[str, Any] = {}
    default, names = None, []
    for choice in template:
        name, text = choice.get("name"), choice.get("template")
        if not isinstance(name, str) or not isinstance(text, str) or not name:
            continue
        name = re.sub(r"[^0-9A-Za-z]", "_", name)
        if name == "default":
            default = text
        else:
            names.append(name)
            values[f"tokenizer.chat_template.{name}"] = text
    if names:
        values["tokenizer.chat_templates"] = sorted(set(names))
    if default is not None:
        values["tokenizer.chat_template"] = default
    return values
