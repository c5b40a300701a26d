"""The table of quantizers: block type to the file that makes it. No Numba here."""
from __future__ import annotations

MODULES = {
    "q2_k": "quantize_ranges", "q4_k": "quantize_ranges", "q5_k": "quantize_ranges",
    "q3_k": "quantize_signed", "q6_k": "quantize_signed", "iq4_xs": "quantize_signed",
}

#: Bytes of scratch that a thread of any quantizer needs.
SCRATCH_BYTES = 1 << 16
