"""Rows of a matrix in panels as floats: the embeddings of a step's tokens.

A panel is decoded whole, as for float activations (``matmul``), and one of its 16 rows is taken: for one token a
microsecond, where reading the row by NumPy with cold caches takes a hundred, 3 % of a token of SmolLM2.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba.core import types
from numba.core.extending import intrinsic

from ..simd.emit import Emit
from ..simd.vec import MACHINE, load
from . import families
from .args import arg, state
from .block_products import decoded
from .fields import N_TOKENS
from .matmul import second_part


@intrinsic(prefer_literal=True)
def row_of_panel(typingctx, panel, second, lane, n_blocks, scale, out, family):
    """Row ``lane`` of a panel of ``n_blocks`` whole blocks and the tail that ``family`` may name, times ``scale``, as
    float32 at ``out``. ``second``: of a family in two parts, where the panel lies in the second region."""
    fam, last = families.family(family.literal_value), families.tail(family.literal_value)
    sig = types.void(*[types.int64] * 4, types.float32, types.int64, family)
    step = families.second_bytes(fam)

    def codegen(c, builder, s, a):
        e = Emit(builder, MACHINE)
        first, second, lane, blocks, scale, out = a[:6]

        def block(fam: Any, p: Any, to: Any) -> None:
            weights = e.at(decoded(e, fam, p), lane, 4)

            def one(k: Any, carried: Any) -> list[Any]:
                value = e.load(e.at(weights, k, 64), 0, "f32")
                e.store(e.at(to, k, 4), 0, e.b.fmul(value, scale))
                return []

            e.loop(e.i64(0), e.i64(fam.block), 1, [], one)

        def body(i: Any, carried: Any) -> list[Any]:
            p, rest, to = carried
            block(fam, families.place(fam, p, rest), to)
            return [e.at(p, fam.n_bytes * 16), e.at(rest, step), e.at(to, fam.block * 4)]

        p, _, to = e.loop(e.i64(0), blocks, 1, [first, second, out], body)
        if last:
            block(last, p, to)
        return c.get_dummy_value()

    return sig, codegen


def make_embed(family: str) -> Any:
    """``x = w[ids] * scale``. Columns: 0 panels, 1 number of panels, 2 blocks a row, 3 bytes a panel, 4 ids int64
    (n_tokens,), 5 address of the scale (float32), 6 x, 7 bytes a token. Split by tokens."""
    size = families.second_bytes(families.family(family))

    def embed(op, thread, n_threads):
        w, n_blocks, panel_bytes, ids = arg(op, 0), arg(op, 2), arg(op, 3), arg(op, 4)
        scale, x, stride, n_tokens = load(arg(op, 5), "f32"), arg(op, 6), arg(op, 7), state(op, N_TOKENS)
        for i in range(n_tokens * thread // n_threads, n_tokens * (thread + 1) // n_threads):
            row = load(ids + 8 * i, "i64")
            panel = row // 16
            second = second_part(op, panel, size) if size else np.int64(0)
            row_of_panel(w + panel * panel_bytes, second, row % 16, n_blocks, scale, x + i * stride, family)

    return embed
