"""Look inside files: overview, one tensor, one block, pictures, differences, checks, metadata edits. Only numpy.

Nothing here prints; functions return dataclasses, documents for JSON, or lines of text for the commands to show.
Each name is imported when it is first used.
"""
from __future__ import annotations
