"""Vocabularies in ``tokenizer.json``: BPE over bytes (GPT-2's kind), and over text with byte fallback (Llama 2's)."""
from __future__ import annotations

import re
from typing import Any

import tokenizers

from ... import errors
from ...format.metadata import Typed
from ..sources import Source
from . import pre_name
from .sentencepiece import BYTE, CONTROL, NORMAL, UNUSED, USER_DEFINED

_BYTE = re.compile(r"<0x[0-9A-Fa-f]{2}>")


def looks_special(token: str) -> bool:
    """Whether an added token is a control token although its file does not say so (known habits of some makers)."""
    return (
        token in ("<pad>", "<mask>", "<2mass>", "[@BOS@]")
        or (token.startswith("<|") and token.endswith("|>"))
        or (token.startswith("<\uff5c") and token.endswith("\uff5c>"))
        or (token.startswith("<unused") and token.endswith(">"))
    )


def has_byte_fallback(tokenizer: dict[str, Any]) -> bool:
    """Whether tokenizer.json describes BPE over text with byte tokens, not over bytes."""
    model = tokenizer.get("model")
    return isinstance(model, dict) and model.get("type") == "BPE" and bool(model.get("byte_fallback"))


def _load(source: Source) -> tokenizers.Tokenizer:
    path = source.file("tokenizer.json")
    assert path is not None
    try:
        found = tokenizers.Tokenizer.from_file(path)
    except Exception as fault:  # the library raises plain Exception
        raise errors.BadCheckpoint(f"no usable tokenizer: {str(fault)[:200]}", file=path) from None
    settings = source.json("tokenizer_config.json", required=False).get("added_tokens_decoder")
    known = found.get_vocab(with_added_tokens=True)
    for token in (settings.values() if isinstance(settings, dict) else ()):
        text = token.get("content") if isinstance(token, dict) else None
        if isinstance(text, str) and text not in known:
            added = tokenizers.AddedToken(
                text, special=bool(token.get("special")), normalized=bool(token.get("normalized"))
            )
            (found.add_special_tokens if token.get("special") else found.add_tokens)([added])
    return found


def _by_id(source: Source, found: tokenizers.Tokenizer, n_vocab: int) -> dict[int, str]:
    by_id: dict[int, str] = {i: text for text, i in found.get_vocab(with_added_tokens=True).items()}
    if by_id and max(by_id) >= n_vocab:
        raise errors.BadCheckpoint(
            "the tokenizer has ids beyond the vocabulary", file=source.file("tokenizer.json"), where="vocab_size",
            expected=f"below {n_vocab}", actual=max(by_id),
        )
    return by_id


def byte_level(
    source: Source, tokenizer: dict[str, Any], n_vocab: int, pre: str | None
) -> tuple[dict[str, Any], dict[str, Any], list[str]]:
    """Keys before the special tokens, the merges, and notes, of a byte-level vocabulary.

    Raises `errors.TokenizerError` when the pre-tokenizer is not recognized and ``pre`` does not name it.
    """
    found = _load(source)
    notes = []
    if pre is None:
        pre, how = pre_name.name_of(found)
        if pre is None:
            raise errors.TokenizerError(
                "the pre-tokenizer is not one of those that have a name; give the nearest with --pre",
                file=source.file("tokenizer.json"), where="tokenizer.ggml.pre", actual=f"check text hash {how}",
            )
        if how != "its token ids":
            notes.append(f"the pre-tokenizer is called {pre}, told by {how}")
    by_id = _by_id(source, found, n_vocab)
    added = found.get_added_tokens_decoder()
    tokens, types = [], []
    for i in range(n_vocab):
        text = by_id.get(i)
        if text is None:
            text, kind = f"[PAD{i}]", UNUSED
        elif i not in added:
            kind = NORMAL
        else:
            # Control and user-defined tokens are looked for in the text as it was before any normalization.
            if not added[i].normalized:
                text = found.decode(found.encode(text, add_special_tokens=False).ids, skip_special_tokens=False)
            kind = CONTROL if added[i].special or looks_special(text) else USER_DEFINED
            if kind == USER_DEFINED:
                text = text.replace("\u2581", " ")
        tokens.append(text)
        types.append(kind)
    keys = {
        "tokenizer.ggml.model": "gpt2", "tokenizer.ggml.pre": pre, "tokenizer.ggml.tokens": Typed("str[]", tokens),
        "tokenizer.ggml.token_type": Typed("i32[]", types),
    }  # fmt: skip
    pairs = merges(tokenizer)
    return keys, ({"tokenizer.ggml.merges": Typed("str[]", pairs)} if pairs else {}), notes


def merges(tokenizer: dict[str, Any]) -> list[str]:
    """The merges as ``"left right"``; a space inside a part becomes U+0120, as byte-level vocabularies write it."""
    found = tokenizer.get("model", {}).get("merges") or []
    return [pair if isinstance(pair, str) else " ".join(part.replace(" ", "\u0120") for part in pair) for pair in found]


def byte_fallback(
    source: Source, tokenizer: dict[str, Any], n_vocab: int
) -> tuple[dict[str, Any], dict[str, Any], list[str]]:
    """Keys and notes of a vocabulary with byte fallback that has no tokenizer.model.

    Such a vocabulary runs by scores, and tokenizer.json has none: a token's score is minus the rank of the merge that
    makes it, which gives the same order of merges.
    """
    found = _load(source)
    by_id = _by_id(source, found, n_vocab)
    added = found.get_added_tokens_decoder()
    rank: dict[str, int] = {}
    for i, pair in enumerate(tokenizer["model"].get("merges") or []):
        left, right = pair.split(" ", 1) if isinstance(pair, str) else pair
        rank.setdefault(left + right, i)
    tokens, scores, types = [], [], []
    for i in range(n_vocab):
        text, score, kind = by_id.get(i, f"[PAD{i}]"), -1000.0, NORMAL
        if i not in by_id:
            score, kind = -10000.0, UNUSED
        elif i in added:
            kind = CONTROL if added[i].special or looks_special(text) else USER_DEFINED
            text = text if kind == CONTROL else text.replace("\u2581", " ")
        elif _BYTE.fullmatch(text):
            score, kind = 0.0, BYTE
        else:
            # Single characters are never the result of a merge; what is kept whole anyway needs no rank.
            score = -float(rank[text] + 1) if text in rank else -float(len(rank) + 1 + i)
        tokens.append(text)
        scores.append(score)
        types.append(kind)
    unknown = tokenizer["model"].get("unk_token")
    if isinstance(unknown, str) and unknown in tokens:
        types[tokens.index(unknown)] = 2
    return {
        "tokenizer.ggml.model": "llama", "tokenizer.ggml.pre": "default",
        "tokenizer.ggml.tokens": Typed("str[]", tokens), "tokenizer.ggml.scores": Typed("f32[]", scores),
        "tokenizer.ggml.token_type": Typed("i32[]", types),
    }, {}, ["there is no tokenizer.model; scores were made from the order of the merges"]  # fmt: skip
