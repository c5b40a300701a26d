r"""Pre-tokenizers: how text is cut into words before byte pair encoding, by the name in ``tokenizer.ggml.pre``.

A pre-tokenizer is a row of patterns. Each pattern in turn cuts every piece that the patterns before it left: into its
matches and what lies between them. A pattern never looks beyond its piece.

Patterns are Python regular expressions over a collapsed text (see `unicode_classes`), with ``\p{..}`` allowed inside
brackets. A pattern with a character outside ASCII sees the real characters instead, and may not use ``\p{..}``.
``\s`` is white space of any script. What each model family expects is set by its own training; the names and
behaviour follow llama.cpp's, so that a file gives the same ids here as there.
"""
from __future__ import annotations

import functools
import re
from dataclasses import dataclass

from .unicode_classes import CLASS_MEMBERS, collapse, collapse_spaces

_CONTRACTION = r"(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])"
_SPACES = r"\s*[\r\n]+|\s+(?!\S)|\s+"
_WORD = r"[^\r\n\p{L}\p{N}]?[\p{L}]+"
_MARKS = r" ?[^\s\p{L}\p{N}]+[\r\n]*"
_CASED = (
    r"[^\r\n\p{L}\p{N}]?[\p{Upper}]*[\p{Lower}]+%s|[^\r\n\p{L}\p{N}]?[\p{Upper}]+[\p{Lower}]*%s"
    r"|[\p{N}]%s| ?[^\s\p{L}\p{N}]+[\r\n/]*|" + _SPACES
)
_TAGGED = (
    r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"
    r"| ?[\p{P}\p{S}]+[\r\n]*|" + _SPACES
)

_GPT_2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?[\p{L}]+| ?[\p{N}]+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_LLAMA_3 = f"{_CONTRACTION}|{_WORD}|[\\p{{N}}]{{1,3}}|{_MARKS}|{_SPACES}"
_QWEN_2 = f"{_CONTRACTION}|{_WORD}|[\\p{{N}}]|{_MARKS}|{_SPACES}"
_QWEN_3_5 = (
    _CONTRACTION + r"|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|[\p{N}]| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|" + _SPACES
)
_GPT_4O = _CASED % (_CONTRACTION + "?", _CONTRACTION + "?", "{1,3}")
_TEKKEN = _CASED % ("", "", "")
_LINES = r"[^\n]+|[\n]+"
_CJK = "[\u4e00-\u9fa5\u0800-\u4e00\uac00-\ud7ff]+"
_KANJI_KANA = "[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+"
# The letters that have case, as the deepseek-llm tokenizer lists them: hexadecimal code points and ranges.
_CASED_LETTERS = "".join(
    "-".join(chr(int(end, 16)) for end in part.split("-"))
    for part in (
        "41-5A 61-7A B5 C0-D6 D8-F6 F8-1BA 1BC-1BF 1C4-293 295-2AF 370-373 376 377 37B-37D 37F 386 388-38A 38C "
        "38E-3A1 3A3-3F5 3F7-481 48A-52F 531-556 10A0-10C5 13A0-13F5 13F8-13FD 1C90-1CBA 1CBD-1CBF 1D00-1D2B "
        "1D6B-1D77 1D79-1D9A 1E00-1F15 1F18-1F1D 1F20-1F45 1F48-1F4D 1F50-1F57 1F59 1F5B 1F5D 1F5F-1F7D 1F80-1FB4 "
        "1FB6-1FBC 1FBE 1FC2-1FC4 1FC6-1FCC 1FD0-1FD3 1FD6-1FDB 1FE0-1FEC 1FF2-1FF4 1FF6-1FFC 2102 2107 210A-2113 "
        "2115 2119-211D 2124 2126 2128 212A-212D 212F-2134 2139 213C-213F 2145-2149 214E 2183 2184 2C00-2C7B "
        "2C7E-2CE4 2CEB-2CEE 2CF2 2CF3 A640-A66D A680-A69B A722-A76F A771-A787 A78B-A78E AB70-ABBF FB00-FB06 "
        "FB13-FB17 FF21-FF3A FF41-FF5A 10400-1044F 104B0-104D3 104D8-104FB 10C80-10CB2 10CC0-10CF2 118A0-118DF "
        "1E900-1E943"
    ).split()
)


@dataclass(frozen=True)
class PreTokenizer:
    """How one family cuts text, and the switches that its name implies.

    ``ignore_merges``: a word that is a token is taken whole, without merging.
    ``add_bos``: the default when the file does not say.
    ``byte_level``: bytes are written as the 256 printable characters of GPT-2; otherwise text stays UTF-8, spaces
    become U+2581, and characters without a token become ``<0xNN>`` tokens.
    """

    patterns: tuple[str, ...]
    ignore_merges: bool = False
    add_bos: bool = False
    byte_level: bool = True


_DIGITS_ALONE = PreTokenizer((r"[\p{N}]", _GPT_2))
_GPT_2_ONLY = PreTokenizer((_GPT_2,))
_LLAMA_3_LIKE = PreTokenizer((_LLAMA_3,), ignore_merges=True, add_bos=True)
_QWEN_2_LIKE = PreTokenizer((_QWEN_2,))
_GPT_4O_LIKE = PreTokenizer((_GPT_4O,))
_DEEPSEEK_3_LIKE = PreTokenizer((r"[\p{N}]{1,3}", _KANJI_KANA, _TAGGED))
_BLOOM_WORDS = " ?[^(\\s|.,!?\u2026\u3002\uff0c\u3001\u0964\u06d4\u060c)]+"
_BLOOM_LIKE = PreTokenizer((_BLOOM_WORDS,))

PRE_TOKENIZERS: dict[str, PreTokenizer] = {
    "default": PreTokenizer((r"[\p{P}$+<=>^~|]+", _GPT_2, r"[\p{N}]+", "[0-9][0-9][0-9]")),
    "gpt-2": _GPT_2_ONLY,
    "phi-2": _GPT_2_ONLY,
    "mpt": _GPT_2_ONLY,
    "olmo": _GPT_2_ONLY,
    "jais": _GPT_2_ONLY,
    "exaone4": _GPT_2_ONLY,
    "trillion": _GPT_2_ONLY,
    "granite-docling": _GPT_2_ONLY,
    "gigachat": _GPT_2_ONLY,
    "a.x-4.0": _GPT_2_ONLY,
    "mellum": _GPT_2_ONLY,
    "modern-bert": _GPT_2_ONLY,
    "jina-es": _GPT_2_ONLY,
    "jina-de": _GPT_2_ONLY,
    "jina-v1-en": _GPT_2_ONLY,
    "jina-v2-es": _GPT_2_ONLY,
    "jina-v2-de": _GPT_2_ONLY,
    "jina-v2-code": _GPT_2_ONLY,
    "roberta-bpe": _GPT_2_ONLY,
    "starcoder": _DIGITS_ALONE,
    "refact": _DIGITS_ALONE,
    "command-r": _DIGITS_ALONE,
    "smollm": _DIGITS_ALONE,
    "codeshell": _DIGITS_ALONE,
    "exaone": _DIGITS_ALONE,
    "minerva-7b": _DIGITS_ALONE,
    "mellum2": _DIGITS_ALONE,
    "falcon": PreTokenizer((r"[\p{P}$+<=>^~|`]+", _GPT_2, "[0-9][0-9][0-9]")),
    "llama-bpe": _LLAMA_3_LIKE,
    "llama3": _LLAMA_3_LIKE,
    "llama-v3": _LLAMA_3_LIKE,
    "falcon3": _LLAMA_3_LIKE,
    "falcon-h1": _LLAMA_3_LIKE,
    "pixtral": _LLAMA_3_LIKE,
    "midm-2.0": _LLAMA_3_LIKE,
    "lfm2": _LLAMA_3_LIKE,
    "jina-v5-nano": _LLAMA_3_LIKE,
    "dbrx": PreTokenizer((_LLAMA_3,)),
    "smaug-bpe": PreTokenizer((_LLAMA_3,)),
    "chatglm-bpe": PreTokenizer((_LLAMA_3,)),
    "glm4": PreTokenizer((_LLAMA_3,), ignore_merges=True),
    "glm5": PreTokenizer((_LLAMA_3,), ignore_merges=True),
    "qwen2": _QWEN_2_LIKE,
    "deepseek-r1-qwen": _QWEN_2_LIKE,
    "kormo": _QWEN_2_LIKE,
    "f2llmv2": _QWEN_2_LIKE,
    "megrez": _QWEN_2_LIKE,
    "stablelm2": _QWEN_2_LIKE,
    "hunyuan": _QWEN_2_LIKE,
    "solar-open": _QWEN_2_LIKE,
    "grok-2": _QWEN_2_LIKE,
    "qwen35": PreTokenizer((_QWEN_3_5,)),
    "laguna": PreTokenizer((_LINES, _QWEN_2)),
    "tekken": PreTokenizer((_TEKKEN,), ignore_merges=True, add_bos=True),
    "gpt-4o": _GPT_4O_LIKE,
    "llama4": _GPT_4O_LIKE,
    "kanana2": _GPT_4O_LIKE,
    "talkie": _GPT_4O_LIKE,
    "minimax-m2": _GPT_4O_LIKE,
    "deepseek-llm": PreTokenizer(
        (
            r"[\r\n]",
            f"\\s?[{_CASED_LETTERS}]+",
            "\\s?[!-/:-~\uff01-\uff0f\uff1a-\uff5e\u2018-\u201f\u3000-\u3002]+",
            r"\s+\Z",
            _CJK,
            r"[\p{N}]+",
        )
    ),
    "deepseek-coder": PreTokenizer((r"[\r\n]", r"\s?[\p{L}]+", r"\s?[\p{P}]+", _CJK, r"[\p{N}]")),
    "deepseek-v3": _DEEPSEEK_3_LIKE,
    "hunyuan-dense": _DEEPSEEK_3_LIKE,
    "hy_v4": _DEEPSEEK_3_LIKE,
    "joyai-llm": _DEEPSEEK_3_LIKE,
    "poro-chat": _BLOOM_LIKE,
    "bloom": _BLOOM_LIKE,
    "gpt3-finnish": _BLOOM_LIKE,
    "viking": PreTokenizer((_BLOOM_WORDS, r"[\p{N}]")),
    "seed-coder": PreTokenizer(
        (_CONTRACTION + "|" + _WORD + r"|[\p{N}]| ?[^\s\p{L}\p{N}\r\n]+|" + _SPACES,)
    ),
    "minicpm5": PreTokenizer(
        (r"[\p{N}]{1,3}", f"{_CONTRACTION}|{_WORD}|[\\p{{N}}]+|{_MARKS}|{_SPACES}"), ignore_merges=True
    ),
    "superbpe": PreTokenizer((r"[\p{N}]+", r"(?=(?:[0-9]{3})+(?![0-9]))")),
    "gemma4": PreTokenizer((_LINES,), add_bos=True, byte_level=False),
}


@functools.cache
def _compile(pattern: str) -> tuple[bool, re.Pattern[str]]:
    """The compiled pattern, and whether it reads the collapsed text."""
    sees_classes = pattern.isascii()
    if sees_classes:
        for name, members in CLASS_MEMBERS.items():
            pattern = pattern.replace(name, members)
    # ASCII keeps \s at the six characters that collapsing maps white space to.
    return sees_classes, re.compile(pattern, re.ASCII)


def split(text: str, patterns: tuple[str, ...]) -> list[str]:
    """``text`` cut by each pattern in turn; the pieces joined give the text back."""
    bounds = [len(text)]
    collapsed = collapse(text)
    for pattern in patterns:
        sees_classes, compiled = _compile(pattern)
        view = collapsed if sees_classes else collapse_spaces(text)
        finer = []
        start = 0
        for stop in bounds:
            at = start
            for match in compiled.finditer(view, start, stop):
                left, right = match.span()
                if left > at:
                    finer.append(left)
                if right > left:
                    finer.append(right)
                at = right
            if at < stop:
                finer.append(stop)
            start = stop
        bounds = finer
    pieces = []
    start = 0
    for stop in bounds:
        pieces.append(text[start:stop])
        start = stop
    return pieces
