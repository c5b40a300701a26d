# ruff: noqa: E501  (texts are as long as they are)
"""Texts that tokenizers find hard, made the same way at every run: what tools/gen_golden_tokens.py tokenizes."""
from __future__ import annotations

import random

SENTENCES = [
    "The quick brown fox jumps over the lazy dog.",
    "It's what they'd've said: we're, you'll, I'm, he's, can't -- DON'T, SHE'LL, 'tis.",
    "In 2024, 1,234,567.89 people paid $12.50 (≈ €11.70) for 3 kg; that is 0x1F4A9 or 1e-9.",
    "def main(argv: list[str]) -> int:\n    for i, x in enumerate(argv):\n\t\tprint(f\"{i:>4}: {x!r}\")\n    return 0\n",
    "if (a != b && c <= d) { x ^= ~y; z = a ? b : c; } // TODO: fix\r\n\r\n/* done */",
    "SELECT * FROM `users` WHERE name LIKE '%O''Brien%' AND id IN (1, 22, 333, 4444, 55555);",
    "<html><head><title>A &amp; B</title></head><body class=\"x\"><h1>Hi</h1><p>text</p><br/></body></html>",
    "{\"a\": [1, 2.5, -3e+10, null, true], \"b\": {\"c\": \"\\u00e9\\n\"}}",
    "https://example.org/path/to/file.tar.gz?query=1&b=%20#frag  mailto:someone@example.com",
    "# Heading\n\n* item one\n* item two\n    1. nested\n\n| a | b |\n|---|---|\n| 1 | 2 |\n\n```sh\n$ ls -la ~/*\n```\n",
    "$$\\int_0^\\infty e^{-x^2}\\,dx = \\frac{\\sqrt{\\pi}}{2}$$ ∑ ∏ √2 ≠ ∞ → ⇒ ∀x∈ℝ",
    "Größe, Straße, ÄÖÜ, naïve café, Ångström, œuvre, Łódź, İstanbul, ſ and K",
    "Съешь же ещё этих мягких французских булок, да выпей чаю. ЁЖИК ёжик",
    "Ξεσκεπάζω την ψυχοφθόρα βδελυγμία. ΆΈΉ ᾳ ᾼ",
    "我能吞下玻璃而不伤身体。2024年3月14日，星期四！「引用」…",
    "私はガラスを食べられます。それは私を傷つけません。ｶﾀｶﾅ ヴァイオリン 々〆",
    "나는 유리를 먹을 수 있어요. 그래도 아프지 않아요 ㅋㅋㅋ",
    "نص عربي مع أرقام ١٢٣٤ وعلامات، شكراً؟ پارسی ۱۲۳",
    "טקסט בעברית עם ניקוד: שָׁלוֹם",
    "मैं काँच खा सकता हूँ और मुझे उससे कोई चोट नहीं पहुंचती। १२३",
    "ฉันกินกระจกได้ แต่มันไม่ทำให้ฉันเจ็บ ๑๒๓",
    "আমি কাঁচ খেতে পারি, তাতে আমার কোনো ক্ষতি হয় না। நான் கண்ணாடி சாப்பிடுவேன்",
    "👍🏽 👩‍👩‍👧‍👦 🇩🇪🇯🇵 ❤️ 🏳️‍🌈 1️⃣ ☕️😀😃😄 ©®™",
    "a\u0301e\u0308o\u0302\u0323 x\u0338 Z\u0351\u036b\u0343a\u0352l\u0323g\u035bo\u034f \u0301start",
    "zero\u200bwidth\u200cjoin\u200d\ufeffbom\u2060word soft\u00adhyphen",
    "spaces:\u00a0nbsp\u2003em\u3000ideographic\u1680ogham\u2028line\u2029par\u0085nel\u202fnarrow",
    "ctrl:\x00nul\x01soh\x07bel\x08bs\x0bvt\x0cff\x1bescape\x1cfs\x1ffs\x7fdel\x9fapc",
    "private \ue000\uf8ff\U000f0000 unassigned \u0378\U0001fbff\U000e0fff nonchar \ufffe\uffff\U0010ffff repl \ufffd",
    "𝐁𝐨𝐥𝐝 𝒮𝒸𝓇𝒾𝓅𝓉 𝟘𝟙𝟚 ½ ⅓ ² ³ Ⅷ ⑩ ㊿ 𐐀𐐨 𞤀𞤢 𑢠 Ꭰꭰ Ⴀ ǅ ﬁ ﬀ",
    "——……“quotes” ‘single’ «guillemets» „low“ ‹x› ¡Hola! ¿Qué? § ¶ † ‡ • · ‰",
    "Ġ Ċ ▁ ▁▁word <0x0A> <0xFF> <s></s><unk><pad> [CLS] [SEP] [MASK] ##ing",
    "<|im_start|>user\nHi<|im_end|>\n<|endoftext|><bos><eos><start_of_turn>model\n<end_of_turn><unused17><mask>",
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa AAAAAAAAAAAAAAAA 0000000000000000000000 ==============",
    "camelCase PascalCase snake_case kebab-case SCREAMING_SNAKE x86_64 utf8mb4 iPhone15Pro McDonald's",
    "                                 33 spaces\t\t\t\ttabs\n\n\n\n\nfive newlines   \n   \n mixed \t \r\n\r\r\n end   ",
    " leading", "trailing ", "\n", " ", "\t", "'", "''", "1", "😀", "e", "\u0301", "  ", "\n\n", "\r\n", " \n", "a b", ".",
]  # fmt: skip

PARTS = [
    *"abcXYZ0159 \n\t\r'\".,;:!?()[]{}<>/|\\@#$%^&*_-+=~`",
    "  ", "   ", "      ", "\n\n", "\n\n\n", "\r\n", " \n", "\n ", "\t\t", "'s", "'S", "'ll", "'LL", "'re", "'Ve", "'d", "'T",
    "12", "123", "1234", "é", "ß", "µ", "Σ", "ж", "Ж", "ǅ", "ʰ", "你", "好", "龥", "鿿", "か", "カ", "ー", "한", "국", "ไ", "ท",
    "न", "म", "\u0938\u094d", "ع", "ש", "😀", "\u200d", "\ufe0f", "🇩", "\u0301", "\u0308", "\u0323", "\u200b", "\ufeff",
    "\u00a0", "\u3000", "\u2028", "\u0085", "\x00", "\x01", "\x1c", "\x1f", "\x7f", "\x9f", "½", "²", "Ⅷ", "٣", "𝟘", "…", "—",
    "“", "”", "、", "。", "，", "！", "：", "€", "∑", "←", "¬", "\ue000", "\U000f0000", "𐐀", "𞤀", "\ufffd", "\u0378", "ſ", "K",
    "İ", "the", " the", "The", "ing", "tion", " of", "▁", "▁▁", "Ġ", "<b>", "</b>", "<|im_end|>", "<bos>", "<unk>", "</s>",
]  # fmt: skip


def lines(count: int, seed: int) -> list[str]:
    """``count`` lines: the sentences, pieces and mixtures of them, runs of one character, and random characters."""
    rng = random.Random(seed)
    result = list(SENTENCES)
    for run in (2, 3, 4, 7, 16, 33, 100):
        result += [part * run for part in (" ", "\n", "\t", "a", "1", "'", "▁", "好", "😀", " \n", "=", "\u0301")]
    while len(result) < count:
        kind = rng.randrange(5)
        if kind == 0:
            text = rng.choice(SENTENCES)
            start = rng.randrange(len(text))
            result.append(text[start : start + rng.randrange(1, 80)])
        elif kind == 1:
            words = " ".join(rng.sample(SENTENCES[:35], 3)).split(" ")
            rng.shuffle(words)
            result.append(" ".join(words[: rng.randrange(2, 30)]))
        elif kind == 2:
            result.append("".join(chr(_code_point(rng)) for _ in range(rng.randrange(1, 30))))
        else:
            result.append("".join(rng.choice(PARTS) for _ in range(rng.randrange(1, 40))))
    return result[:count]


def _code_point(rng: random.Random) -> int:
    ranges = ((0x20, 0x3000), (0x3000, 0xD800), (0xE000, 0x11000), (0x10000, 0x20000), (0x20000, 0x110000))
    return rng.randrange(*rng.choice(ranges))
