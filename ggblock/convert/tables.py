"""Tables that ship with the package as TOML."""
from __future__ import annotations

import functools
import importlib.resources
import sys
from typing import Any

from .. import errors

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


@functools.cache
def packaged(name: str) -> dict[str, Any]:
    """The table ``name`` (a path inside this package). Not to be changed by callers."""
    text = importlib.resources.files(__package__).joinpath(name).read_text("utf-8")
    table: dict[str, Any] = tomllib.loads(text)
    return table


def from_file(path: str) -> dict[str, Any]:
    """The table in a person's file; raises `errors.CannotRead` or `errors.SettingError`."""
    try:
        with open(path, "rb") as stream:
            table: dict[str, Any] = tomllib.load(stream)
    except OSError as fault:
        raise errors.CannotRead(f"cannot be read: {fault.strerror or fault}", file=path) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as fault:
        raise errors.SettingError(f"no valid TOML: {fault}", file=path) from None
    return table
