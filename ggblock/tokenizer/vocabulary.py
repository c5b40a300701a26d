"""The vocabulary that a GGUF file describes: its pieces, what kind each is, and the tokens with a role.

The keys and their meaning are those of the GGUF specification; the defaults for what a file leaves out, and the tokens
that are recognized by their text, follow llama.cpp.
"""
from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from .. import errors
from ..format.metadata import ArrayValue, StringArray

Value = TypeVar("Value", str, int, bool)

# What a token is, as bits: recognizing a token by its text adds CONTROL to what the file says.
UNKNOWN, UNUSED, NORMAL, CONTROL, USER_DEFINED, BYTE = 1, 2, 4, 8, 16, 32
# `tokenizer.ggml.token_type`: 0 undefined, then as named here.
_BITS_OF_TYPE = np.array([0, NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE], np.uint8)

_PREFIX = "tokenizer.ggml."
_ROLES = {
    "bos": "bos_token_id",
    "eos": "eos_token_id",
    "eot": "eot_token_id",
    "eom": "eom_token_id",
    "unk": "unknown_token_id",
    "sep": "seperator_token_id",  # spelled so in the specification
    "fim_pre": "fim_pre_token_id",
    "fim_suf": "fim_suf_token_id",
    "fim_mid": "fim_mid_token_id",
    "fim_pad": "fim_pad_token_id",
    "fim_rep": "fim_rep_token_id",
    "fim_sep": "fim_sep_token_id",
}
_OLD_ROLES = {"fim_pre": "prefix_token_id", "fim_suf": "suffix_token_id", "fim_mid": "middle_token_id"}
_DEFAULT_ROLES = {
    "llama": {"bos": 1, "eos": 2, "unk": 0},
    "bert": {"bos": 101, "unk": 100, "sep": 102},
    "gpt2": {"bos": 11, "eos": 11},
    "gemma4": {},
}

# Texts that give a token its role when the file names none; the first one present wins.
_ROLE_TEXTS = {
    "eot": (
        "<|eot_id|>", "<|im_end|>", "<|end|>", "<end_of_turn>", "<|endoftext|>", "<|end_of_text|>", "<EOT>", "_<EOT>",
        "[EOT]", "<｜end▁of▁sentence｜>", "<end_of_utterance>",
    ),
    "eom": ("<|eom_id|>",),
    "fim_pre": (
        "<|fim_prefix|>", "<fim-prefix>", "<fim_prefix>", "<｜fim▁begin｜>", "<PRE>", "▁<PRE>", "<|code_prefix|>",
        "<|prefix|>",
    ),
    "fim_suf": (
        "<|fim_suffix|>", "<fim-suffix>", "<fim_suffix>", "<｜fim▁hole｜>", "<SUF>", "▁<SUF>", "<|code_suffix|>",
        "<|suffix|>",
    ),
    "fim_mid": (
        "<|fim_middle|>", "<fim-middle>", "<fim_middle>", "<｜fim▁end｜>", "<MID>", "▁<MID>", "<|code_middle|>",
        "<|middle|>",
    ),
    "fim_pad": ("<|fim_pad|>", "<fim-pad>", "<fim_pad>", "<PAD>", "[PAD]"),
    "fim_rep": ("<|fim_repo|>", "<|repo_name|>", "<fim-repo>", "<REPO>", "<reponame>"),
    "fim_sep": ("<|file_sep|>",),
}  # fmt: skip
# Tokens that end an answer wherever they appear.
_END_TEXTS = (
    "<|eot_id|>", "<|im_end|>", "<|end|>", "<|return|>", "<|call|>", "<|flush|>", "<|calls|>", "<end_of_turn>",
    "<|endoftext|>", "</s>", "<|eom_id|>", "<EOT>", "_<EOT>", "[EOT]", "[EOS]", "<|end_of_text|>",
    "<end_of_utterance>", "<eos>", "<turn|>", "<|tool_response>", "<｜end▁of▁sentence｜>", "[e~[",
)  # fmt: skip
# Tokens of gpt-oss that structure an answer and are part of its text.
_STRUCTURE_TEXTS = ("<|channel|>", "<|message|>", "<|start|>", "<|constrain|>")


@dataclass
class Vocabulary:
    """What a file says about its tokens.

    ``pieces``: the text of every token in bytes as stored. ``ids``: the id of a piece.
    ``bits``: uint8 (n_vocab,), what each token is. ``scores``: one float a token, empty when the file has none.
    ``roles``: id of ``bos``, ``eos``, ``unk``, ``sep``, ...; a role without a token is left out.
    ``end_ids``: every id that ends generation.
    """

    model: str
    pieces: list[bytes]
    ids: dict[bytes, int]
    bits: NDArray[np.uint8]
    scores: list[float]
    roles: dict[str, int]
    end_ids: frozenset[int]

    def ids_with(self, bits: int) -> list[int]:
        """Ids of the tokens that have any of these bits, ascending."""
        found: list[int] = np.flatnonzero(self.bits & bits).tolist()
        return found


def source_path(metadata: Mapping[str, object]) -> str | None:
    """The file that metadata come from, for messages; None for a plain mapping."""
    paths = getattr(metadata, "paths", None)
    return paths[0] if paths else None


def scalar(metadata: Mapping[str, object], key: str, kind: type[Value]) -> Value | None:
    """``metadata[key]``, or None when it is missing.

    Raises `errors.WrongKeyKind` when it is not a ``kind`` (str, int or bool).
    """
    value = metadata.get(key)
    if value is None:
        return None
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise errors.WrongKeyKind(
            "this key must be a single value",
            file=source_path(metadata), where=key, expected=kind.__name__, actual=_kind_name(value),
        )  # fmt: skip
    return value


def _kind_name(value: object) -> str:
    return value.kind if isinstance(value, ArrayValue) else type(value).__name__


def strings(metadata: Mapping[str, object], key: str) -> list[bytes] | None:
    """An array of strings in bytes, or None when the key is missing.

    Raises `errors.WrongKeyKind` when it is something else.
    """
    value = metadata.get(key)
    if value is None:
        return None
    if isinstance(value, StringArray):
        return value.raw_list()
    if isinstance(value, (list, tuple)) and all(isinstance(item, str) for item in value):
        return [item.encode("utf-8", "surrogateescape") for item in value]
    raise errors.WrongKeyKind(
        "this key must be an array of strings",
        file=source_path(metadata), where=key, expected="str[]", actual=_kind_name(value),
    )  # fmt: skip


def _numbers(metadata: Mapping[str, object], key: str, kinds: str, n_vocab: int) -> NDArray[np.generic] | None:
    """An array with a number for each token, or None when the key is missing. ``kinds``: NumPy kinds allowed."""
    value = metadata.get(key)
    if value is None:
        return None
    if isinstance(value, ArrayValue) and value.element_type not in ("str", "array", "bool"):
        array = value.numpy()
    elif isinstance(value, (list, tuple, np.ndarray)):
        array = np.asarray(value)
    else:
        array = np.asarray("")
    if array.ndim != 1 or array.dtype.kind not in kinds:
        raise errors.WrongKeyKind(
            "this key must be an array of numbers",
            file=source_path(metadata), where=key, actual=_kind_name(value),
        )  # fmt: skip
    if len(array) < n_vocab:
        raise errors.TokenizerError(
            "fewer entries than tokens",
            file=source_path(metadata), where=key, expected=n_vocab, actual=len(array),
        )  # fmt: skip
    return array[:n_vocab]


def _roles(metadata: Mapping[str, object], model: str, n_vocab: int) -> dict[str, int]:
    roles = {name: token for name, token in _DEFAULT_ROLES[model].items() if token < n_vocab}
    for table in (_ROLES, _OLD_ROLES):
        for name, key in table.items():
            token = scalar(metadata, _PREFIX + key, int)
            # An id outside the vocabulary is ignored, as files exist that give -1 for "none".
            if token is not None and 0 <= token < n_vocab:
                roles[name] = token
    return roles


def _present(ids: dict[bytes, int], texts: Iterable[str]) -> list[int]:
    return [ids[raw] for raw in (text.encode() for text in texts) if raw in ids]


def _recognize(ids: dict[bytes, int], bits: NDArray[np.uint8], roles: dict[str, int]) -> frozenset[int]:
    """Give roles to tokens by their text; returns the ids that end generation. Changes ``bits`` and ``roles``."""
    for role, texts in _ROLE_TEXTS.items():
        if role not in roles:
            for token in _present(ids, texts)[:1]:
                roles[role] = token
                bits[token] |= CONTROL
    ends = set(_present(ids, _END_TEXTS))
    for token in ends:
        bits[token] |= CONTROL
    for token in _present(ids, _STRUCTURE_TEXTS):
        bits[token] = USER_DEFINED
    ends.update(roles[role] for role in ("fim_pad", "fim_rep", "fim_sep", "eos", "eot", "eom") if role in roles)

    def ending(*texts: str) -> bool:
        return any(token in ends for token in _present(ids, texts))

    # gpt-oss and solar-open end a message, not the answer, with <|end|>.
    if (ending("<|return|>") or ending("<|flush|>")) and ending("<|call|>", "<|calls|>"):
        for token in _present(ids, ["<|end|>"]):
            ends.discard(token)
            bits[token] = USER_DEFINED
    # gemma 4 has </s> as ordinary text.
    if ending("<|tool_response>"):
        for token in _present(ids, ["</s>"]):
            ends.discard(token)
            bits[token] = NORMAL
    return frozenset(ends)


def read(metadata: Mapping[str, object]) -> Vocabulary:
    """The vocabulary in a file's metadata.

    Raises `errors.MissingVocabulary` when there is none, `errors.TokenizerError` for a kind of tokenizer that is not
    supported or for arrays that do not fit together, `errors.WrongKeyKind` for a key of the wrong kind.
    """
    path = source_path(metadata)
    model = scalar(metadata, _PREFIX + "model", str)
    if model is None or model in ("no_vocab", "none"):
        raise errors.MissingVocabulary("the file holds no tokenizer", file=path, where=_PREFIX + "model")
    if model not in _DEFAULT_ROLES:
        raise errors.TokenizerError(
            "a kind of tokenizer that ggblock does not know",
            file=path, where=_PREFIX + "model", expected="one of " + ", ".join(sorted(_DEFAULT_ROLES)), actual=model,
        )  # fmt: skip
    pieces = strings(metadata, _PREFIX + "tokens")
    if not pieces:
        raise errors.MissingVocabulary("the tokenizer has no tokens", file=path, where=_PREFIX + "tokens")
    ids = dict(zip(pieces, range(len(pieces)), strict=True))
    if b"" in ids:
        pieces = [piece or b"[EMPTY_%d]" % index for index, piece in enumerate(pieces)]
        ids = dict(zip(pieces, range(len(pieces)), strict=True))

    types = _numbers(metadata, _PREFIX + "token_type", "iu", len(pieces))
    if types is None:
        bits = np.full(len(pieces), NORMAL, np.uint8)
    else:
        known = types.astype(np.int64)
        bits = _BITS_OF_TYPE[np.where((known < 0) | (known >= len(_BITS_OF_TYPE)), 0, known)]
    scores = _numbers(metadata, _PREFIX + "scores", "iuf", len(pieces)) if model == "llama" else None
    roles = _roles(metadata, model, len(pieces))
    end_ids = _recognize(ids, bits, roles)
    return Vocabulary(model, pieces, ids, bits, [] if scores is None else scores.tolist(), roles, end_ids)
