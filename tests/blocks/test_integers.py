"""I8, I16, I32, I64 against Python's int.from_bytes."""
from __future__ import annotations

import numpy as np
import pytest

from .common import check_twin


@pytest.mark.parametrize("name", ["i8", "i16", "i32", "i64"])
def test_twin(name: str) -> None:
    check_twin(name, lambda block: [np.int64(int.from_bytes(block, "little", signed=True)).astype(np.float32)], 500)
