#!/usr/bin/env python3
"""Write `tests/kernels/quantizers.json`: the SHA-256 of every quantizer's bytes for the tests' weights.

The hashes change when a search changes. Say in the commit how the errors changed (`tools/bench/quantize.py`).
"""
from __future__ import annotations

import json
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tests.kernels.quantizer_inputs import TYPES, digest  # noqa: E402

if __name__ == "__main__":
    target = ROOT / "tests" / "kernels" / "quantizers.json"
    target.write_text(json.dumps({name: digest(name) for name in TYPES}, indent=1) + "\n")
    print(f"wrote {target.relative_to(ROOT)}")
