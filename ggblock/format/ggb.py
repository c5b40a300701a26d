"""The marks of the GGB profile in a file's metadata. ``spec/panels.md`` is the definition."""
from __future__ import annotations

PREFIX = "ggblock.ggb."
#: States the profile and its version.
VERSION = PREFIX + "version"
#: The alignment that the file stated before it became GGB.
OLD_ALIGNMENT = PREFIX + "alignment"
#: Every GGB file's ``general.alignment``, bytes.
ALIGNMENT = 64
