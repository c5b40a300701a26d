"""As ``expanded32``, with a scale for 16 weights."""
from .expanded32 import Expanded

FAMILY = Expanded(16)
