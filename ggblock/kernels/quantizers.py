"""The table of quantizers: block type to the file that makes it. No Numba here."""
from __future__ import annotations

MODULES = {
    "f16": "quantize_floats", "bf16": "quantize_floats",
    "q2_k": "quantize_ranges", "q4_k": "quantize_ranges", "q5_k": "quantize_ranges",
    "q3_k": "quantize_signed", "q6_k": "quantize_signed", "iq4_xs": "quantize_signed",
    "q4_0": "quantize_scales", "q5_0": "quantize_scales", "iq4_nl": "quantize_scales", "q2_0": "quantize_scales",
    "tq1_0": "quantize_scales", "tq2_0": "quantize_scales",
    "q4_1": "quantize_pairs", "q5_1": "quantize_pairs",
    "q8_0": "quantize_direct", "q1_0": "quantize_direct", "mxfp4": "quantize_direct",
}

#: Bytes of scratch that a thread of any quantizer needs.
SCRATCH_BYTES = 1 << 16
