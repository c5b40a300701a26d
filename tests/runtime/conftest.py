"""Tiny random models on disk, run by the naive twin, so that the runtime is tested apart from the engine."""
from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import ggblock
from ggblock.runtime import Model
from tests.naive.llama import NaiveLlama
from tests.oracle import tiny


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny")
    for name in ("llama_text", "llama_f32"):
        tiny.write(tiny.by_name(name), folder / f"{name}.gguf")
    return folder


@pytest.fixture
def open_tiny(tiny_folder: Path) -> Iterator[Callable[..., Model]]:
    """``open_tiny(name="llama_text", context=None, path=None)``: a model whose engine is the naive twin."""
    models = []

    def make(name: str = "llama_text", context: int | None = None, path: Path | None = None, **options: Any) -> Model:
        file = ggblock.open(path or tiny_folder / f"{name}.gguf")
        model = Model(file, NaiveLlama(file, context), **options)
        models.append(model)
        return model

    yield make
    for model in models:
        model.close()


@pytest.fixture
def write_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Write llama_text with other vocabulary keys; None leaves a key out."""

    def write(**changes: Any) -> Path:
        vocabulary = {k: v for k, v in (tiny.vocabulary("gpt2") | changes).items() if v is not None}
        with monkeypatch.context() as patch:
            patch.setattr(tiny, "vocabulary", lambda kind: vocabulary)
            tiny.write(tiny.by_name("llama_text"), tmp_path / "changed.gguf")
        return tmp_path / "changed.gguf"

    return write
