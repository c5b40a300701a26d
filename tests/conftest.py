"""Fixtures that every room may use: the two real models of the catalog, fetched once into the user's cache."""
from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from ggblock import catalog

# Numba looks at this once, when it is first imported: tests/engine/cuda runs kernels for GPUs in Numba's simulator.
os.environ["NUMBA_ENABLE_CUDASIM"] = "1"


def pytest_sessionstart() -> None:
    """Ctrl-C must work where it is tested: a shell starts background jobs (`nohup`, `&`) with SIGINT ignored, and
    every child would inherit that."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def smollm2_path() -> Path:
    """SmolLM2 135M instruct, Q4_1: a byte-level BPE vocabulary, the architecture `llama`."""
    return catalog.fetch("smollm2-135m-instruct")


@pytest.fixture(scope="session")
def gemma3_path() -> Path:
    """Gemma 3 270M, Q4_K_M: a vocabulary of 262,144 pieces with scores, the architecture `gemma3`."""
    return catalog.fetch("gemma-3-270m")
