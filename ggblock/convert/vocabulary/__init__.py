"""A checkpoint's tokenizer as GGUF metadata: tokens, types, scores, merges, special tokens, chat template."""
from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ... import errors
from ...format.metadata import Typed
from ..config import Config
from ..sources import Source
from . import byte_pairs, special
from .sentencepiece import BYTE, CONTROL, NORMAL, UNKNOWN, UNUSED, USER_DEFINED, read

__all__ = ["Vocabulary", "convert_vocabulary"]


@dataclass(frozen=True)
class Vocabulary:
    """``keys``: GGUF metadata in their usual order. ``n_tokens``. ``notes``: what a person should know."""

    keys: dict[str, Any]
    n_tokens: int
    notes: tuple[str, ...]


def convert_vocabulary(source: Source, config: Config, architecture: str, pre: str | None = None) -> Vocabulary:
    """The vocabulary of the folder that ``source`` is in.

    ``pre``: name of the pre-tokenizer where it is not recognized. Raises `errors.MissingVocabulary`,
    `errors.TokenizerError`, `errors.BadCheckpoint`.
    """
    tokenizer = source.json("tokenizer.json") if source.file("tokenizer.json") else None
    model_path = source.file("tokenizer.model")
    keys: dict[str, Any] = {}
    merges: dict[str, Any] = {}
    notes: list[str] = []
    settings = source.json("tokenizer_config.json", required=False)
    prefix = settings.get("add_prefix_space")
    if architecture == "llama" and isinstance(prefix, bool):
        keys["tokenizer.ggml.add_space_prefix"] = prefix
    if model_path is not None:
        n_vocab = config.integer("vocab_size", default=None) or len(read(model_path))
        found = _pieces(source, settings, model_path, n_vocab)
    elif tokenizer is None:
        raise errors.MissingVocabulary(
            "the checkpoint holds no vocabulary", file=source.folder, expected="tokenizer.json or tokenizer.model"
        )
    else:
        model = tokenizer.get("model")
        vocab = model.get("vocab") if isinstance(model, dict) else None
        if not isinstance(model, dict) or model.get("type") != "BPE" or not isinstance(vocab, dict):
            raise errors.TokenizerError(
                "only BPE vocabularies can be converted", file=source.file("tokenizer.json"), where="model.type",
                expected="BPE", actual=model.get("type") if isinstance(model, dict) else "nothing",
            )
        n_vocab = config.integer("vocab_size", default=None) or len(vocab)
        if byte_pairs.has_byte_fallback(tokenizer):
            found, merges, notes = byte_pairs.byte_fallback(source, tokenizer, n_vocab)
        else:
            found, merges, notes = byte_pairs.byte_level(source, tokenizer, n_vocab, pre)
    specials = special.find(source, dict(config.values), n_vocab, tokenizer)
    keys.update({**found, **merges, **specials.keys()})
    if architecture == "gemma3" and found["tokenizer.ggml.model"] == "llama":
        keys["tokenizer.ggml.add_space_prefix"] = False
    if architecture == "llama" and n_vocab == 49152:
        # Granite's code models and SmolLM: their settings ask for nothing, and nothing is added.
        keys["tokenizer.ggml.add_bos_token"] = False
    if architecture == "llama" and n_vocab == 32016:
        for kind, token_id in (("prefix", 32007), ("suffix", 32008), ("middle", 32009), ("eot", 32010)):
            keys[f"tokenizer.ggml.{kind}_token_id"] = Typed("u32", token_id)  # Code Llama's infilling
    return Vocabulary(keys, n_vocab, (*notes, *specials.notes))


def _pieces(source: Source, settings: dict[str, Any], path: str, n_vocab: int) -> dict[str, Any]:
    tokens = [f"[PAD{i}]".encode() for i in range(n_vocab)]
    scores, types = [-10000.0] * n_vocab, [UNUSED] * n_vocab
    for i, piece in enumerate(read(path)[:n_vocab]):
        kind = piece.type if piece.type in (UNKNOWN, CONTROL, UNUSED, BYTE) else NORMAL
        tokens[i], scores[i], types[i] = piece.text, piece.score, kind
    for text, i in source.json("added_tokens.json", required=False).items():
        if isinstance(i, int) and 0 <= i < n_vocab:
            tokens[i], scores[i], types[i] = text.encode(), -1000.0, USER_DEFINED
    decoder = settings.get("added_tokens_decoder")
    for key, entry in (decoder.items() if isinstance(decoder, dict) else ()):
        content = entry.get("content") if isinstance(entry, dict) else None
        if not isinstance(content, str) or not key.isdecimal() or int(key) >= n_vocab:
            continue
        text = content
        control = bool(entry.get("special")) or byte_pairs.looks_special(text)
        tokens[int(key)] = (text if control else text.replace("\u2581", " ")).encode()
        scores[int(key)], types[int(key)] = -1000.0, CONTROL if control else USER_DEFINED
    return {
        "tokenizer.ggml.model": "llama", "tokenizer.ggml.pre": "default",
        "tokenizer.ggml.tokens": Typed("str[]", [t.decode("utf-8", "surrogateescape") for t in tokens]),
        "tokenizer.ggml.scores": Typed("f32[]", scores), "tokenizer.ggml.token_type": Typed("i32[]", types),
    }  # fmt: skip
