"""Helpers are linked into kernels and nothing else; functions of others are compiled as ever (``simd.linked``)."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
import pytest

from ggblock.simd import jit, linked, vec

from .adhoc import compiled

load, store = vec.load, vec.store


@jit.inline
def twice(x: Any) -> Any:
    return x + x


@jit.inline
def four_times(x: Any) -> Any:
    return twice(twice(x))


@pytest.mark.skipif(numba.version_info.short not in linked.TRIED, reason="a version of Numba that is left as it is")
def test_helpers_are_linked_only() -> None:
    def kernel(a, b, n):  # type: ignore[no-untyped-def]
        for i in range(n):
            store(b + 4 * i, four_times(load(a + 4 * i, "f32")))

    x, out = np.arange(7, dtype=np.float32), np.empty(7, np.float32)
    compiled(kernel)(x, out, 7)
    assert np.array_equal(out, 4 * x)
    for helper in (twice, four_times):
        (found,) = helper.overloads.values()
        library = found.library
        assert linked._is_helper(library)
        assert not library.codegen._engine.is_symbol_defined(found.fndesc.mangled_name)


def test_functions_of_others_are_compiled_as_ever() -> None:
    inner = numba.njit(lambda x: x + 1)
    outer = numba.njit(lambda x: inner(x) * 2)
    assert outer(3) == 8 and inner(3) == 4
    (found,) = inner.overloads.values()
    assert not linked._is_helper(found.library)
    assert found.library.codegen._engine.is_symbol_defined(found.fndesc.mangled_name)
