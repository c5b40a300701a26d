"""The golden files of tools/gen_golden_tokens.py, checked against the index that was made with them."""
from __future__ import annotations

import functools
import gzip
import hashlib
import json
from pathlib import Path
from typing import Any

GOLDEN = Path(__file__).parent / "golden"


@functools.cache
def golden(name: str) -> Any:
    """The content of ``name.json.gz``. Fails when the file is missing or was changed by hand."""
    content = gzip.decompress((GOLDEN / f"{name}.json.gz").read_bytes())
    index = json.loads((GOLDEN / "index.json").read_text(encoding="utf-8"))
    assert hashlib.sha256(content).hexdigest() == index["sha256"][name], f"{name}.json.gz is not what was generated"
    return json.loads(content)
