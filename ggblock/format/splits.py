"""Files in parts: ``NAME-00001-of-00003.gguf`` and its companions, opened from any of them.

The first part holds the metadata; each part holds its own share of the tensors and ``split.no`` (from 0),
``split.count`` and, at least in the first, ``split.tensors.count``.
"""
from __future__ import annotations

import os
import re

from .. import errors
from . import ggb, limits
from .metadata import Typed

NUMBER, COUNT, TENSORS = "split.no", "split.count", "split.tensors.count"
KEYS = frozenset({NUMBER, COUNT, TENSORS})
_NAME = re.compile(r"(?P<prefix>.*)-(?P<number>[0-9]{5})-of-(?P<count>[0-9]{5})(?P<suffix>\.[^./\\]+)", re.DOTALL)


def part_count(values: dict[str, Typed], path: str) -> int:
    """``split.count``, 1 where it is missing. Raises `errors.SplitMismatch`."""
    count = _integer(values, COUNT, path, 1)
    if not 1 <= count <= limits.MAX_PARTS:
        raise errors.SplitMismatch(
            "an impossible number of parts", file=path, where=COUNT, expected=f"1 to {limits.MAX_PARTS}", actual=count
        )
    return count


def part_paths(path: str, count: int) -> list[str]:
    """The paths of all ``count`` parts of the file that ``path`` is one of.

    Raises `errors.SplitMismatch` when the name does not follow the pattern, disagrees with ``count``, or a part
    is missing.
    """
    folder, name = os.path.split(path)
    match = _NAME.fullmatch(name)
    if match is None:
        raise errors.SplitMismatch(
            "one part of several, but its name does not say which", file=path,
            expected=f"NAME-00001-of-{count:05d}.gguf", actual=name,
        )
    if int(match["count"]) != count:
        raise errors.SplitMismatch(
            "name and metadata disagree on the number of parts", file=path, where=COUNT, expected=match["count"],
            actual=count,
        )
    names = [f"{match['prefix']}-{number:05d}-of-{count:05d}{match['suffix']}" for number in range(1, count + 1)]
    if name not in names:
        raise errors.SplitMismatch(
            "the number in the name is not that of a part", file=path, expected=f"00001 to {count:05d}",
            actual=match["number"],
        )
    paths = [os.path.join(folder, each) for each in names]
    missing = [part for part in paths if not os.path.exists(part)]
    if missing:
        raise errors.SplitMismatch(
            f"{len(missing)} of {count} parts {'is' if len(missing) == 1 else 'are'} missing", file=path,
            expected=missing[0], actual="no such file",
        )
    return paths


def check_part(values: dict[str, Typed], path: str, number: int, count: int) -> None:
    """Raise `errors.SplitMismatch` unless ``values`` are those of part ``number`` (from 0) of ``count``."""
    for key, expected in ((COUNT, count), (NUMBER, number)):
        actual = _integer(values, key, path, None)
        if actual != expected:
            raise errors.SplitMismatch(
                "the part does not belong here", file=path, where=key, expected=expected, actual=actual
            )


def check_profile(values: dict[str, Typed], path: str, first: dict[str, Typed]) -> None:
    """Raise `errors.SplitMismatch` unless ``values`` of a part are of the same profile as the first part's."""
    if (ggb.VERSION in values) != (ggb.VERSION in first):
        names = ["a GGUF part", "a GGB part"]
        raise errors.SplitMismatch(
            "the parts are of different profiles", file=path, where=ggb.VERSION, expected=names[ggb.VERSION in first],
            actual=names[ggb.VERSION in values],
        )


def check_total(values: dict[str, Typed], path: str, n_tensors: int) -> None:
    """Raise `errors.SplitMismatch` unless all parts together hold ``split.tensors.count`` tensors."""
    expected = _integer(values, TENSORS, path, None)
    if n_tensors != expected:
        raise errors.SplitMismatch(
            "the parts do not hold as many tensors as the first one says", file=path, where=TENSORS,
            expected=expected, actual=n_tensors,
        )


def _integer(values: dict[str, Typed], key: str, path: str, default: int | None) -> int:
    typed = values.get(key)
    value = default if typed is None else typed.value
    if not isinstance(value, int) or isinstance(value, bool):
        raise errors.SplitMismatch(
            "missing or not an integer", file=path, where=key, expected="an integer",
            actual="nothing" if typed is None else typed.kind,
        )
    return value
