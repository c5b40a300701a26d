#!/usr/bin/env python3
"""``ggblock dump`` from a checkout, installed or not: ``python tools/block_dump.py FILE [options]``."""
from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from ggblock.cli.main import main

if __name__ == "__main__":
    main(["dump", *sys.argv[1:]], prog_name="ggblock")
