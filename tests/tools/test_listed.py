"""tools/README.md names every program, so that it can be found."""

from __future__ import annotations

from pathlib import Path

import pytest

TOOLS = Path(__file__).resolve().parents[2] / "tools"
PROGRAMS = sorted(path.relative_to(TOOLS).as_posix() for path in TOOLS.rglob("*.py") if path.name != "__init__.py")


@pytest.mark.parametrize("program", PROGRAMS)
def test_every_program_is_in_the_table(program: str) -> None:
    table = [line for line in (TOOLS / "README.md").read_text(encoding="utf-8").splitlines() if line.startswith("| `")]
    assert any(f"`{program}`" in line for line in table), f"tools/README.md has no row for {program}"
