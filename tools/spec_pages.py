#!/usr/bin/env python3
"""Render the pages of `spec/` that are made from tables: the rules of `errors.md`, the units of `panels.md` and others.

`python tools/spec_pages.py` writes them anew; with `--check` it only says (exit code 1) which are out of date. The
pages of `spec/blocks` are made by `spec_blocks.py`.
"""
from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.format import craft
from tools import spec_blocks

SPEC = spec_blocks.SPEC.parent


def read_toml(stem: str) -> dict[str, Any]:
    """A table of the specification."""
    return spec_blocks.tomllib.loads((SPEC / f"{stem}.toml").read_text("utf-8"))


def errors_table() -> str:
    """The rules, a table a stage."""
    found = read_toml("errors")
    lines: list[str] = []
    for stage in found["stages"]:
        lines += [f"### {stage['name'].capitalize()}: {stage['says']}", "", "| error | a | rule | vectors |",
                  "|---|---|---|---|"]  # fmt: skip
        for rule in found["rule"]:
            if rule["stage"] == stage["name"]:
                lines.append(f"| `{rule['error']}` | {rule['parent']} | {rule['says']} | {len(rule['vectors'])} |")
        lines.append("")
    return "\n".join(lines).rstrip()


def _run(first: int, n_bytes: int, width: int, second: int | None = None) -> str:
    """A run of units: the bytes of the block, and their width."""
    places = (first,) if second is None else (first, second)
    spans = " and ".join(f"{o}-{o + n_bytes - 1}" if n_bytes > 1 else f"{o}" for o in places)
    return f"{spans}{' by turns' if second is not None else ''} × {width}"


def panels_table() -> str:
    """Units of a block by type; neighbours with the same units share a line."""
    lines, before = ["| type | runs of units, in their order: bytes of the block × width |", "|---|---|"], None
    for entry in read_toml("panels")["types"]:
        name, runs = entry["name"], entry["units"]
        if runs == before:
            lines[-1] = lines[-1].replace(" |", f", {name} |", 1)
        else:
            lines.append(f"| {name} | {', '.join(_run(*run) for run in runs)} |")
        before = runs
    return "\n".join(lines)


def kinds_table() -> str:
    """The kinds of metadata values."""
    kinds = read_toml("container")["kind"]
    rows = [f"| {kind['id']} | {kind['name']} | {kind['n_bytes'] or 'varies'} |" for kind in kinds]
    return "\n".join(["| number | kind | bytes |", "|---|---|---|", *rows])


def limits_table() -> str:
    """The limits with a comment as their meaning."""
    lines = (SPEC / "container.toml").read_text("utf-8").split("[limits]")[1].split("\n\n")[0].splitlines()[1:]
    rows = ["| limit | value | of |", "|---|---|---|"]
    for line in lines:
        setting, _, meaning = line.partition("#")
        name, _, value = setting.partition("=")
        rows.append(f"| `{name.strip()}` | {value.strip().replace('_', ' ')} | {meaning.strip()} |")
    return "\n".join(rows)


def recipes_table() -> str:
    """Each recipe's type, number and rules in words."""
    data = spec_blocks.tomllib.loads((SPEC.parent / read_toml("recipes")["data"]).read_text("utf-8"))
    rows = ["| recipe | type | `file_type` | rules |", "|---|---|---|---|"]
    for name, entry in data["recipe"].items():
        rules = []
        for rule in entry.get("rules", []):
            when = [f"layers `{rule['layers']}`"] if "layers" in rule else []
            when += [f"{rule['kv_group']} or more heads a key-value head"] if "kv_group" in rule else []
            if "experts" in rule:
                when.append("8 experts" if rule["experts"] == 8 else "not 8 experts")
            if "importance" in rule:
                when.append(f"with{'' if rule['importance'] else 'out'} importance")
            rules.append(f"{', '.join(rule['tensors'])}{' (' + '; '.join(when) + ')' if when else ''}: {rule['type']}")
        rows.append(f"| {name} | {entry['type']} | {entry['file_type']} | {'. '.join(rules)} |")
    return "\n".join(rows)


def example_table() -> str:
    """A small file of container.toml, byte by byte."""
    (vector,) = (v for v in read_toml("container")["valid"] if v["name"] == "tensors, alignment 64, a gap")
    rows, raw = ["| byte | bytes | is |", "|---|---|---|"], b""
    for part in vector["parts"]:
        start, raw = len(raw), craft.assemble([f"hex {raw.hex()}", part])
        new = raw[start:]
        shown = new.hex(" ") if any(new) or len(new) < 10 else f"{len(new)} zeros"
        rows.append(f"| {start} | `{shown}` | `{part}` |")
    return "\n".join(rows)


def keys_table() -> str:
    """The keys that ggblock writes."""
    rows = [f"| `{key['name']}` | {key['kind']} | {key['says']} |" for key in read_toml("container")["key"]]
    return "\n".join(["| key | kind | says |", "|---|---|---|", *rows])


#: page, name of the table in it, and what makes its text; in the page it lies between two comments with its name
TABLES: list[tuple[str, str, Callable[[], str]]] = [
    ("container.md", "kinds", kinds_table),
    ("container.md", "limits", limits_table),
    ("container.md", "example", example_table),
    ("errors.md", "rules", errors_table),
    ("panels.md", "units", panels_table),
    ("recipes.md", "recipes", recipes_table),
    ("versioning.md", "keys", keys_table),
]


def rendered(page: str) -> str:
    """The text of a page with its tables made anew. Raises ValueError where a table's place is missing."""
    text = (SPEC / page).read_text("utf-8")
    for where, name, make in TABLES:
        if where == page:
            comments = rf"(<!-- {name}: made by tools/spec_pages\.py -->\n).*?(\n<!-- end of {name} -->)"
            pattern = re.compile(comments, re.DOTALL)
            if not pattern.search(text):
                raise ValueError(f"{page} has no place for {name}")
            table = make()
            text = pattern.sub(lambda match, table=table: match[1] + "\n" + table + "\n" + match[2], text)
    return text


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if a page is out of date")
    check = parser.parse_args().check
    stale = []
    for page in dict.fromkeys(page for page, _, _ in TABLES):
        text = rendered(page)
        if (SPEC / page).read_text("utf-8") != text:
            stale.append(page)
            if not check:
                (SPEC / page).write_text(text, "utf-8")
    print(("out of date: " if check else "written: ") + (" ".join(stale) or "none"))
    return 1 if check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
