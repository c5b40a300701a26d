"""The tiny models that the commands are tried on."""
from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli import tiny_models


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of them; what they need is compiled, so that no later call says so on stderr."""
    folder = tmp_path_factory.mktemp("models")
    tiny_models.write_all(folder)
    for name in ("text.gguf", "no_vocabulary.gguf"):
        done = tiny_models.run("bench", folder / name, "-p", 4, "-n", 2, "-r", 1)
        assert done.returncode == 0, done.stderr
    return folder
