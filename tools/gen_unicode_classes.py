"""Make ggblock/tokenizer/unicode_table.py: the general category of every code point in one Unicode version.

llama.cpp splits text with the categories of Unicode 15.1, while Python's own ``unicodedata`` is older or newer
depending on the interpreter. The table makes token ids independent of that.

Run with Python 3.13 (its ``unicodedata`` is 15.1), or with any other and ``pip install unicodedata2==15.1.0``:
    python tools/gen_unicode_classes.py
"""
from __future__ import annotations

import itertools
import textwrap
from pathlib import Path

try:
    import unicodedata2 as unicodedata
except ImportError:
    import unicodedata

VERSION = "15.1.0"
TARGET = Path(__file__).resolve().parents[1] / "ggblock" / "tokenizer" / "unicode_table.py"
HEADER = '''\
"""General categories of Unicode {version} as runs from code point 0 on. Made by tools/gen_unicode_classes.py.

Each run is a letter and a decimal length: the first letter of the general category (L letter, N number, M mark,
P punctuation, S symbol, Z separator, C control, format, private use or surrogate), and ``X`` for unassigned.
"""

RUNS = (
{lines}
)
'''


def letter(code_point: int) -> str:
    category = unicodedata.category(chr(code_point))
    return "X" if category == "Cn" else category[0]


def main() -> None:
    if unicodedata.unidata_version != VERSION:
        raise SystemExit(f"needs Unicode {VERSION}, this Python has {unicodedata.unidata_version}")
    runs = "".join(
        f"{name}{sum(1 for _ in group)}" for name, group in itertools.groupby(letter(c) for c in range(0x110000))
    )
    lines = "\n".join(f'    "{line}"' for line in textwrap.wrap(runs, 112))
    TARGET.write_text(HEADER.format(version=VERSION, lines=lines), encoding="utf-8", newline="\n")
    print(f"{TARGET.name}: {len(runs)} characters")


if __name__ == "__main__":
    main()
