"""`Tokenizer`: text to ids and back, with the ids that llama.cpp gives."""
from __future__ import annotations

import functools
import os
import re
import warnings
from collections.abc import Iterable, Mapping

from .. import errors
from ..format.reader import open_gguf
from .bpe import BYTE_OF_SYMBOL, SPACE_MARK, BytePairEncoder
from .pretokenize import PRE_TOKENIZERS, PreTokenizer
from .special import SpecialTokens
from .spm import ScoreMergeEncoder
from .stream import TokenStream
from .vocabulary import BYTE, CONTROL, NORMAL, UNKNOWN, USER_DEFINED, Vocabulary, read, scalar, source_path, strings
from .wordpiece import WordPieceEncoder

_PREFIX = "tokenizer.ggml."
_BYTE_TOKEN = re.compile(rb"<0x([0-9A-Fa-f]{2})>")
# Joining words puts a space before each; WordPiece text is cleaned of those before marks and inside contractions.
_JOINED_MARKS = re.compile(r" ([?!.,])")
_JOINED_APOSTROPHES = re.compile(r" ' ")
_JOINED_CONTRACTIONS = re.compile(r" ('(?:s|m|re|ve))")


class Tokenizer:
    """The tokenizer of one file. Made by `from_metadata` or `load_tokenizer`; safe to share between threads."""

    def __init__(
        self,
        vocabulary: Vocabulary,
        encoder: BytePairEncoder | ScoreMergeEncoder | WordPieceEncoder,
        *,
        byte_level: bool,
        add_bos: bool,
        add_eos: bool,
        add_space_prefix: bool,
        strip_before: frozenset[int] = frozenset(),
        strip_after: frozenset[int] = frozenset(),
    ) -> None:
        self._vocabulary = vocabulary
        self._encoder = encoder
        self._byte_level = byte_level
        self._add_space_prefix = add_space_prefix
        self._strips = strip_before, strip_after
        roles = vocabulary.roles
        self.bos_id = roles.get("bos")
        self.eos_id = roles.get("eos")
        self.eot_id = roles.get("eot")
        self.unk_id = roles.get("unk")
        self.eog_ids = vocabulary.end_ids
        self.n_vocab = len(vocabulary.pieces)
        self.add_bos = add_bos
        self.add_eos = add_eos
        last = roles.get("sep") if vocabulary.model == "bert" else self.eos_id
        self._first_ids = [self.bos_id] if add_bos and self.bos_id is not None else []
        self._last_ids = [last] if add_eos and last is not None else []

    def __repr__(self) -> str:
        return f"<Tokenizer {self._vocabulary.model}: {self.n_vocab} tokens>"

    @property
    def model(self) -> str:
        """The kind of tokenizer, as the file names it: ``gpt2``, ``llama``, ``bert``, ``gemma4``."""
        return self._vocabulary.model

    @functools.cached_property
    def _special(self) -> SpecialTokens:
        return SpecialTokens(self._vocabulary, *self._strips)

    def tokenize(self, text: str, add_special: bool = True, parse_special: bool = False) -> list[int]:
        """Ids of a text.

        ``add_special``: add the beginning and end tokens that the file asks for.
        ``parse_special``: take the text of control tokens (``<|im_start|>``) for the token; False treats it as text.
        Raises `errors.InvalidText` for text with lone surrogates.
        """
        try:
            text.encode()
        except UnicodeEncodeError as problem:
            raise errors.InvalidText(
                "text with a lone surrogate has no UTF-8 form",
                where=f"character {problem.start}", actual=ascii(text[problem.start]),
            ) from None  # fmt: skip
        ids = list(self._first_ids) if add_special else []
        after_special = True
        for fragment in self._special.partition(text, parse_special):
            if isinstance(fragment, int):
                ids.append(fragment)
            elif isinstance(self._encoder, ScoreMergeEncoder):
                ids += self._encoder.encode(fragment, after_special)
            else:
                ids += self._encoder.encode(fragment)
            after_special = isinstance(fragment, int)
        if add_special:
            ids += self._last_ids
        return ids

    def detokenize(self, ids: Iterable[int], special: bool = False) -> str:
        """The text of ids; bytes that are no UTF-8 become U+FFFD.

        ``special``: show control tokens too. The space that tokenizing put in front is taken away again.
        Raises `errors.TokenizerError` for an id outside the vocabulary.
        """
        text = b"".join(self._shown(token, special) for token in ids).decode("utf-8", "replace")
        if self._vocabulary.model == "bert":
            text = _JOINED_MARKS.sub(r"\1", text)
            text = _JOINED_CONTRACTIONS.sub(r"\1", _JOINED_APOSTROPHES.sub("'", text))
            return text.removeprefix(" ")
        return text.removeprefix(" ") if self._add_space_prefix else text

    def stream(self, special: bool = False) -> TokenStream:
        """An object that turns tokens into text one at a time: ``push(id) -> str``, ``flush() -> str``.

        It continues a text, so no space in front is taken away. ``special``: show control tokens too.
        """
        return TokenStream(lambda token: self._shown(token, special))

    def piece(self, token: int) -> bytes:
        """The bytes that a token stands for; of a control token its name.

        Raises `errors.TokenizerError` for an id outside the vocabulary.
        """
        return self._shown(token, True)

    def token_text(self, token: int) -> str:
        """A token as the vocabulary writes it, for example ``Ġthe`` or ``▁the``; odd bytes as lone surrogates.

        Raises `errors.TokenizerError` for an id outside the vocabulary.
        """
        return self._vocabulary.pieces[self._checked(token)].decode("utf-8", "surrogateescape")

    def is_special(self, token: int) -> bool:
        """Whether a token is a control or unknown token, which detokenizing leaves out.

        Raises `errors.TokenizerError` for an id outside the vocabulary.
        """
        return bool(self._vocabulary.bits[self._checked(token)] & (CONTROL | UNKNOWN))

    def token_id(self, text: str) -> int | None:
        """The id of the token that the vocabulary writes so, or None."""
        return self._vocabulary.ids.get(text.encode("utf-8", "surrogateescape"))

    def _checked(self, token: int) -> int:
        if not 0 <= token < self.n_vocab:
            raise errors.TokenizerError("no such token", expected=f"an id below {self.n_vocab}", actual=token)
        return token

    def _shown(self, token: int, special: bool) -> bytes:
        raw = self._vocabulary.pieces[self._checked(token)]
        bits = int(self._vocabulary.bits[token])
        if bits & (CONTROL | UNKNOWN):
            return raw if special else b""
        if bits & USER_DEFINED:
            return raw
        if bits & NORMAL:
            if not self._byte_level:
                return raw.replace(SPACE_MARK.encode(), b" ")
            text = raw.decode("utf-8", "surrogateescape")
            try:
                return bytes([BYTE_OF_SYMBOL[symbol] for symbol in text])
            except KeyError:
                return raw
        if bits & BYTE:
            found = _BYTE_TOKEN.fullmatch(raw)
            return bytes([int(found[1], 16)]) if found else raw
        return b""


def _pre_tokenizer(metadata: Mapping[str, object], model: str) -> PreTokenizer:
    if model == "gemma4":
        return PRE_TOKENIZERS["gemma4"]
    name = scalar(metadata, _PREFIX + "pre", str)
    if name in PRE_TOKENIZERS:
        return PRE_TOKENIZERS[name]
    problem = "names no pre-tokenizer" if name is None else f"asks for the pre-tokenizer {name!r}, which is not known"
    warnings.warn(
        f"{source_path(metadata) or 'the vocabulary'} {problem}: 'default' is used, "
        "and text may be cut otherwise than the model learned",
        stacklevel=4,
    )
    return PRE_TOKENIZERS["default"]


def from_metadata(metadata: Mapping[str, object]) -> Tokenizer:
    """The tokenizer that a GGUF file's metadata describe; everything needed is read now, so the file may be closed.

    Warns (`warnings.warn`) when the file names no pre-tokenizer or one that is not known, and uses the default.
    Raises `errors.MissingVocabulary` when there is no vocabulary, `errors.TokenizerError` for a kind of tokenizer
    that is not supported or arrays that do not fit together, `errors.WrongKeyKind` for a key of the wrong kind.
    """
    vocabulary = read(metadata)

    def flag(name: str, default: bool) -> bool:
        value = scalar(metadata, _PREFIX + name, bool)
        return default if value is None else value

    if vocabulary.model == "bert":
        lowercase = flag("normalizer.lowercase", True)
        return Tokenizer(
            vocabulary,
            WordPieceEncoder(vocabulary, lowercase, flag("normalizer.strip_accents", lowercase)),
            byte_level=False,
            add_bos=True,
            add_eos=True,
            add_space_prefix=False,
        )
    if vocabulary.model == "llama":
        add_space_prefix = flag("add_space_prefix", True)
        encoder: BytePairEncoder | ScoreMergeEncoder = ScoreMergeEncoder(vocabulary, add_space_prefix)
        pre_tokenizer = PreTokenizer((), add_bos=True, byte_level=False)
    else:
        merges = strings(metadata, _PREFIX + "merges")
        if merges is None:
            raise errors.MissingVocabulary(
                "byte pair encoding needs its merges", file=source_path(metadata), where=_PREFIX + "merges"
            )
        add_space_prefix = False
        pre_tokenizer = _pre_tokenizer(metadata, vocabulary.model)
        encoder = BytePairEncoder(vocabulary, merges, pre_tokenizer)
    add_bos = flag("add_bos_token", pre_tokenizer.add_bos) or vocabulary.model == "gemma4"
    strip_before, strip_after = _strips(metadata, vocabulary)
    return Tokenizer(
        vocabulary,
        encoder,
        byte_level=pre_tokenizer.byte_level,
        add_bos=add_bos,
        add_eos=flag("add_eos_token", False),
        add_space_prefix=add_space_prefix,
        strip_before=strip_before,
        strip_after=strip_after,
    )


def _strips(metadata: Mapping[str, object], vocabulary: Vocabulary) -> tuple[frozenset[int], frozenset[int]]:
    """Tokens that swallow white space before and after them: no key says so, model names do."""
    name = (scalar(metadata, "general.name", str) or "").lower()
    pre = scalar(metadata, _PREFIX + "pre", str) or ""
    if any(family in pre for family in ("jina-v2-de", "jina-v2-es", "jina-v2-code")):
        mask = vocabulary.ids.get(b"<mask>")
        return frozenset() if mask is None else frozenset([mask]), frozenset()
    if "phi-3" in name or "phi3" in name:
        swallowing = set(vocabulary.ids_with(CONTROL | USER_DEFINED | UNKNOWN))
        swallowing.update(vocabulary.ids[raw] for raw in (b"</s>",) if raw in vocabulary.ids)
        swallowing.difference_update(
            vocabulary.ids[raw] for raw in (b"<unk>", b"<s>", b"<|endoftext|>") if raw in vocabulary.ids
        )
        return frozenset(), frozenset(swallowing)
    return frozenset(), frozenset()


def load_tokenizer(path: str | os.PathLike[str]) -> Tokenizer:
    """The tokenizer of a GGUF file, also of one that holds only a vocabulary. Imports no numba.

    Raises what `ggblock.open` and `from_metadata` raise.
    """
    with open_gguf(path) as file:
        return from_metadata(file.metadata)
