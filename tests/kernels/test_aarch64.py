"""Every kernel compiled for AArch64: those that multiply integers do it with the dot product instruction."""

from __future__ import annotations

import re
from itertools import product

import pytest

from ggblock.kernels import families, quantizers, registry

from .foreign import whole_kernels

pytestmark = pytest.mark.emulated

CODED = tuple(name for name in families.FAMILIES if isinstance(families.family(name), families.Family))
FLOATS = tuple(name for name in families.FAMILIES if name not in CODED)
TAILS = ("q2_k+48", "q3_k+48", "q4_k+96", "iq4_xs+32", "tq1_0+96")
FAST, FINE, EXACT = "2/1+", "2/2", "f/f"  # what ``--activations`` makes of the modes for one token and for many
CACHES = ("f16", "q12", "q8_0", "f32")
HEADS = ("3/64", "4/256")  # of SmolLM2 and gemma: rows of a micro-tile, columns of a head

#: Group -> kernels that multiply integers, and kernels that do not. Each group is compiled by a process of its own.
KERNELS: dict[str, tuple[list[str], list[str]]] = {
    "matmul": ([f"matmul/{name}/{families.mode_of_one(name, ('2', '1+'), 'neon')}/1+" for name in CODED + TAILS], []),
    "further forms": (  # of one family for each way to find scales: their tiles of codes are those of ``FAST``
        [f"matmul/{name}/{FINE}" for name in ("q4_0", "q6_k", "mxfp4")],
        [f"matmul/{name}/{EXACT}" for name in (*FLOATS, "q4_0", "q6_k", "mxfp4")],
    ),
    "activations": (  # sums of codes, for the mins of a weight's block
        [f"{kind}/{modes}" for kind in ("norm", "gate/silu", "gate/gelu", "copy") for modes in (FAST, FINE)],
        [f"{kind}/{EXACT}" for kind in ("norm", "gate/silu", "gate/gelu", "copy")]
        + ["tables", "digits", "sums", "wide"],
    ),
    "attention": (
        [f"attention/{head}/q8_0" for head in HEADS],
        [f"attention/{head}/{cache}" for head in HEADS for cache in ("f16", "q12", "f32")]
        + [f"combine/{head}{cache}" for head in HEADS for cache in ("", "/q12")]
        + ["/".join(("rope", *parts)) for parts in product(("norm", "neox"), CACHES, ("norm", "none"))],
    ),
    "sieve": (["upper", "rest", "matmul/q8_0_parted/0/2"], ["split", "embed/q8_0_parted"]),
    "sketch": (
        ["rough/4", "rough/5", "largest/q6_k/2", "largest/q8_0/2"],
        ["largest/f16/f", *(f"sketch/{name}" for name in ("q6_k/4", "q8_0/5", "f16/5", "iq4_nl/4"))],
    ),
    "rest": (
        [],
        [f"quantize/{name}" for name in quantizers.MODULES]
        + [f"{kind}/{name}" for kind in ("scan", "widen") for name in ("f16", "bf16")]
        + [f"embed/{name}" for name in (*FLOATS, "q4_0", "q6_k", "iq4_nl", "q4_k+96")]
        + [f"levels/{name}" for name in families.LEVELS]
        + ["scan/f32", "repack", "threes", "team", "post"],
    ),
}


def test_no_kind_is_left_out() -> None:
    kinds = {name.partition("/")[0] for group in KERNELS.values() for part in group for name in part}
    assert kinds == set(registry.TABLE)


@pytest.mark.parametrize("group", KERNELS)
def test_every_kernel(group: str) -> None:
    integers, others = KERNELS[group]
    found = whole_kernels(integers + others, timeout_s=3600)
    assert [name for name in integers if not re.search(r"\bsdot\b", found[name])] == []
    assert [name for name in others if re.search(r"\bsdot\b", found[name])] == []
