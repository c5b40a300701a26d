"""Small vocabularies that show every cut and every merge: what tools/gen_golden_tokens.py makes its files from.

Their merges are learned from the hard texts with no regard for words, so they run across letters, spaces, digits and
marks: a text that is cut one character too early or too late gives other ids.
"""
from __future__ import annotations

import itertools
import random
from collections import Counter

import golden_texts

from ggblock.tokenizer.bpe import BYTE_SYMBOLS

Metadata = dict[str, object]
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6
MARK = "\u2581"


def learn(texts: list[list[str]], count: int) -> list[tuple[str, str]]:
    """Up to ``count`` merges of the symbols in ``texts``, the most frequent pair first."""
    texts = [list(text) for text in texts]
    merges: list[tuple[str, str]] = []
    for _ in range(count):
        pairs = Counter(pair for text in texts for pair in itertools.pairwise(text))
        if not pairs:
            break
        best = max(pairs, key=lambda pair: (pairs[pair], pair))
        merges.append(best)
        for text in texts:
            at = 0
            while at < len(text) - 1:
                if (text[at], text[at + 1]) == best:
                    text[at : at + 2] = [best[0] + best[1]]
                at += 1
    return merges


def base(model: str, tokens: list[str], types: list[int]) -> Metadata:
    """Metadata that llama.cpp accepts as a file with nothing but a vocabulary."""
    if len(set(tokens)) < len(tokens):
        raise SystemExit(f"{model}: a token appears twice, on which llama.cpp aborts")
    return {
        "general.architecture": "llama",
        "llama.context_length": 64,
        "llama.embedding_length": 64,
        "llama.block_count": 1,
        "llama.feed_forward_length": 64,
        "llama.attention.head_count": 1,
        "llama.attention.layer_norm_rms_epsilon": 1e-5,
        "tokenizer.ggml.model": model,
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": types,
    }


def byte_pairs() -> Metadata:
    """Byte-level merges; two bytes have no token, one merge gives no token, one merge appears twice."""
    texts = [[BYTE_SYMBOLS[byte] for byte in line.encode()] for line in golden_texts.lines(220, seed=3)]
    merges = learn([text[:160] for text in texts], 700)
    whole = "".join(BYTE_SYMBOLS[byte] for byte in b" leading")
    tokens = [symbol for byte, symbol in enumerate(BYTE_SYMBOLS) if byte not in (0x07, 0x1F)]
    tokens += [left + right for left, right in merges] + [whole, "123", "\u0120\u0120\u0120\u0120\u0120"]
    tokens = list(dict.fromkeys(tokens))
    types = [NORMAL] * len(tokens)
    for text, kind in (
        ("<|endoftext|>", CONTROL), ("<|im_start|>", CONTROL), ("<|im_end|>", CONTROL), ("<|im", CONTROL),
        ("<b>", USER_DEFINED), ("    ", USER_DEFINED), ("\u00e9", USER_DEFINED), ("<unk>", UNKNOWN), ("<x>", UNUSED),
    ):  # fmt: skip
        if text not in tokens:
            tokens.append(text)
            types.append(kind)
    lines = [f"{left} {right}" for left, right in merges]
    lines += ["~ ~", lines[5]]  # "~~" is no token
    if "~~" in tokens:
        raise SystemExit("the vocabulary holds ~~, choose another pair")
    return {
        **base("gpt2", tokens, types),
        "tokenizer.ggml.merges": lines,
        "tokenizer.ggml.bos_token_id": tokens.index("<|im_start|>"),
        "tokenizer.ggml.eos_token_id": tokens.index("<|im_end|>"),
    }


def marked_texts() -> list[list[str]]:
    """Characters to learn from. llama.cpp reads tokens as C strings, so none may contain a NUL."""
    lines = golden_texts.lines(220, seed=4)
    return [list(line.replace(" ", MARK).replace("\x00", "")[:160]) for line in lines]


def pieces() -> Metadata:
    """Pieces with scores, some of them equal; byte tokens; tokens of every type."""
    texts = marked_texts()
    merges = learn(texts, 900)
    rng = random.Random(8)
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    types = [UNKNOWN, CONTROL, CONTROL] + [BYTE] * 256
    scores = [0.0] * len(tokens)
    for text, kind in (("<pad>", CONTROL), ("<mask>", USER_DEFINED), ("\n\n", USER_DEFINED), ("  ", USER_DEFINED),
                       ("<b>", USER_DEFINED), ("<|endoftext|>", CONTROL), ("<x>", UNUSED)):  # fmt: skip
        tokens.append(text)
        types.append(kind)
        scores.append(-1000.0)
    for rank, (left, right) in enumerate(merges):
        if left + right not in tokens:
            tokens.append(left + right)
            types.append(NORMAL)
            scores.append(float(-(rank // 3)) if rng.random() < 0.9 else -float(rng.randrange(300)))
    for character in sorted({character for text in texts[:80] for character in text}):
        if character not in tokens and character not in "\n\x07好":
            tokens.append(character)
            types.append(NORMAL)
            scores.append(-2000.0)
    return {
        **base("llama", tokens, types),
        "tokenizer.ggml.scores": scores,
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.ggml.unknown_token_id": 0,
    }


def marked_pairs() -> Metadata:
    """Merges over UTF-8 with marks for spaces and byte tokens, as gemma 4 has them."""
    scored = pieces()
    tokens = [str(token) for token in scored["tokenizer.ggml.tokens"]]  # type: ignore[attr-defined]
    texts = marked_texts()
    merges = learn(texts, 900)
    tokens = list(dict.fromkeys(tokens + [left + right for left, right in merges]))
    types = list(scored["tokenizer.ggml.token_type"])  # type: ignore[call-overload]
    types += [NORMAL] * (len(tokens) - len(types))
    return {
        **base("gemma4", tokens, types),
        "tokenizer.ggml.merges": [f"{left} {right}" for left, right in merges if "\n" not in left + right],
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
    }


def word_pieces() -> Metadata:
    """Beginnings and continuations of words, at the ids that BERT's special tokens have by default."""
    words: Counter[str] = Counter()
    for line in golden_texts.lines(400, seed=6):
        words.update(line.lower().replace("\x00", "").split())
    tokens = ["[PAD]", *(f"[unused{index}]" for index in range(99)), "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    kinds = {"[PAD]": CONTROL, "[UNK]": UNKNOWN, "[CLS]": CONTROL, "[SEP]": CONTROL, "[MASK]": CONTROL}
    seen = set(tokens)
    for word, _ in words.most_common(500):
        for text in (MARK + word[:6], MARK + word[:2], MARK + word[0], word[2:5], word[-1], word[:1].upper()):
            if text and text not in seen and " " not in text:
                seen.add(text)
                tokens.append(text)
    return base("bert", tokens, [kinds.get(token, NORMAL) for token in tokens])
