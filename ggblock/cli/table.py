"""Tables for people: columns that fit the terminal, plain and complete when the output is not one."""
from __future__ import annotations

import shutil
import sys
import textwrap
from collections.abc import Iterable, Sequence


def terminal_width() -> int | None:
    """Columns of the terminal on stdout, or None when it is none (a pipe, a file)."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def lines(
    heads: Sequence[str], rows: Sequence[Sequence[str]], left: Sequence[int] = (0,), flexible: int = 0,
    width: int | None = None, indent: str = "",
) -> list[str]:
    """Lay out ``rows`` under ``heads``.

    Columns in ``left`` are flush left, the others right. When ``width`` is given, the column ``flexible`` is cut
    in its middle so that a line fits.
    """
    widths = [max(map(len, column)) for column in zip(heads, *rows, strict=True)]
    if width is not None:
        excess = sum(widths) + 2 * (len(widths) - 1) + len(indent) - width
        if excess > 0:
            widths[flexible] = max(8, widths[flexible] - excess)
    out = []
    for row in (heads, *rows):
        cells = []
        for i, cell in enumerate(row):
            shown = middle(cell, widths[i])
            cells.append(f"{shown:<{widths[i]}}" if i in left else f"{shown:>{widths[i]}}")
        out.append((indent + "  ".join(cells)).rstrip())
    return out


def fit(rows: Iterable[str], width: int | None) -> list[str]:
    """Wrap what is longer than ``width``, with a hanging indent; None leaves every line as it is."""
    if width is None:
        return list(rows)
    out: list[str] = []
    for row in rows:
        indent = row[: len(row) - len(row.lstrip())]
        out += textwrap.wrap(
            row, max(width, 40), initial_indent="", subsequent_indent=indent + "    ", drop_whitespace=True,
            break_long_words=False, break_on_hyphens=False,
        ) if len(row) > width else [row]
    return out


def middle(text: str, limit: int) -> str:
    """``text`` with its middle replaced by an ellipsis when it is longer than ``limit``."""
    if len(text) <= limit:
        return text
    head = limit // 2
    return text[:head] + "…" + text[len(text) - (limit - head - 1) :]
