"""The name of a byte-level tokenizer's pre-tokenizer, by what it does to a text full of corner cases."""
from __future__ import annotations

import hashlib

import tokenizers

from ...tokenizer.pretokenize import PRE_TOKENIZERS, split
from ..tables import packaged

#: Tried in this order where only the pieces tell: the plain name before its many aliases.
_ORDER = ("gpt-2", "llama-bpe", "qwen2", "tekken", "gpt-4o", "smollm", "starcoder", "falcon", "deepseek-llm")


def name_of(tokenizer: tokenizers.Tokenizer) -> tuple[str | None, str]:
    """(name for ``tokenizer.ggml.pre`` or None, how it was found).

    First by the hash of the ids of the check text, as llama.cpp's converter does; a vocabulary that it has never seen
    is told by the pieces into which the check text is cut before merging.
    """
    table = packaged("vocabulary/pre.toml")
    ids = tokenizer.encode(table["check_text"]).ids
    digest = hashlib.sha256(str(ids).encode()).hexdigest()
    if digest in table["names"]:
        return str(table["names"][digest]), "its token ids"
    if tokenizer.pre_tokenizer is None:
        return None, digest
    pieces = [piece for piece, _ in tokenizer.pre_tokenizer.pre_tokenize_str(table["check_text"])]
    letters = _letters()
    for name in sorted(PRE_TOKENIZERS, key=lambda n: (_ORDER.index(n) if n in _ORDER else len(_ORDER))):
        pre = PRE_TOKENIZERS[name]
        if pre.byte_level:
            ours = ["".join(letters[b] for b in piece.encode()) for piece in split(table["check_text"], pre.patterns)]
            if ours == pieces:
                return name, "the pieces into which it cuts a text"
    return None, digest


def _letters() -> list[str]:
    """The printable stand-in of each byte in byte-level vocabularies."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = iter(range(256, 512))
    return [chr(b) if b in printable else chr(next(others)) for b in range(256)]
