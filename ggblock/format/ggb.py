"""The marks of the GGB profile in a file's metadata, and what they require. ``spec/panels.md`` is the definition."""
from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .. import errors
from . import checksums
from .metadata import Typed

PREFIX = "ggblock.ggb."
#: States the profile and its version.
VERSION = PREFIX + "version"
#: The alignment that the file stated before it became GGB.
OLD_ALIGNMENT = PREFIX + "alignment"
#: Every GGB file's ``general.alignment``, bytes.
ALIGNMENT = 64
#: The version that is written, and the only one that is read.
WRITE_VERSION = 2

_ALIGNMENT = "general.alignment"


def marked(values: Mapping[str, Any]) -> dict[str, Any]:
    """``values`` with the keys that a GGB file (each part of a split one) has beside its checksums.

    An alignment that is stated moves to `OLD_ALIGNMENT`; values that are marked already stay as they are.
    """
    if VERSION in values:
        return dict(values)
    # In its place, so that the way back gives the keys in their old order.
    out = {OLD_ALIGNMENT if key == _ALIGNMENT else key: values[key] for key in values if key != OLD_ALIGNMENT}
    out[_ALIGNMENT] = Typed("u32", ALIGNMENT)
    out[VERSION] = Typed("u32", WRITE_VERSION)
    return out


def unmarked(values: Mapping[str, Any]) -> dict[str, Any]:
    """The inverse of `marked`: ``values`` for a GGUF file. The prefix is the profile's own: other such keys go too."""
    plain = VERSION not in values
    out = {}
    for key, value in values.items():
        if key == OLD_ALIGNMENT and not plain:
            out[_ALIGNMENT] = value
        elif not key.startswith(PREFIX) and (plain or key != _ALIGNMENT):
            out[key] = value
    return out


def check(values: Mapping[str, Typed], path: str, *, in_panels: bool, big_endian: bool) -> None:
    """Refuse a file (a part of a split one) that claims the profile, or has tensors in panels, and lacks what it needs.

    Raises `errors.MissingKey`, `errors.WrongKeyKind`, `errors.UnsupportedVersion` or `errors.BadAlignment`.
    """
    version = values.get(VERSION)
    if version is None:
        if in_panels:
            raise errors.MissingKey("a file with tensors in panels must state the profile's version", file=path,
                                    where=VERSION)
        return
    if version.kind != "u32":
        raise errors.WrongKeyKind("the profile's version is no u32", file=path, where=VERSION, expected="u32",
                                  actual=version.kind)
    if version.value != WRITE_VERSION:
        older = isinstance(version.value, int) and version.value < WRITE_VERSION
        way = "convert it again from what it was made of" if older else "a newer ggblock may read it"
        raise errors.UnsupportedVersion(f"a GGB file of a version that this reader does not know; {way}", file=path,
                                        where=VERSION, expected=WRITE_VERSION, actual=version.value)
    if big_endian:
        raise errors.UnsupportedVersion("GGB files are little-endian", file=path, where=VERSION, expected="little",
                                        actual="big")
    alignment = values.get(_ALIGNMENT)
    if alignment is None or alignment.value != ALIGNMENT:
        raise errors.BadAlignment("a GGB file has another alignment than the profile's", file=path, where=_ALIGNMENT,
                                  expected=ALIGNMENT, actual="nothing" if alignment is None else alignment.value)
    for key, kind in ((checksums.TENSORS, "str[]"), (checksums.HEADER, "str")):
        typed = values.get(key)
        if typed is None:
            raise errors.MissingKey("a GGB file must have checksums", file=path, where=key)
        if typed.kind != kind:
            raise errors.WrongKeyKind("checksums of another kind", file=path, where=key, expected=kind,
                                      actual=typed.kind)
