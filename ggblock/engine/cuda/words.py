"""What a device does with a 32-bit word in one instruction, and the same in Python for the simulator.

``dp4a(a, b, c)``: c plus the dot product of four signed bytes each. ``permute(a, b, selector)``: four bytes picked from
the eight of b:a, by the low three bits of each nibble of the selector. ``as_float``, ``as_bits``: the same 32 bits as
float32 and as uint32.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .jit import SIMULATED

if SIMULATED:

    def dp4a(a, b, c):  # type: ignore[no-untyped-def]
        x, y, total = int(a), int(b), int(c)
        for shift in (0, 8, 16, 24):
            total += (((x >> shift) & 255 ^ 128) - 128) * (((y >> shift) & 255 ^ 128) - 128)
        return np.int32(total)

    def permute(a, b, selector):  # type: ignore[no-untyped-def]
        both = int(a) | int(b) << 32
        out = 0
        for i in range(4):
            out |= (both >> 8 * (int(selector) >> 4 * i & 7) & 255) << 8 * i
        return np.uint32(out)

    def as_float(bits):  # type: ignore[no-untyped-def]
        return np.uint32(bits).view(np.float32)

    def as_bits(value):  # type: ignore[no-untyped-def]
        return np.float32(value).view(np.uint32)

else:
    from llvmlite import ir
    from numba.cuda import types
    from numba.cuda.extending import intrinsic

    _I32 = ir.IntType(32)

    def _assembly(builder: Any, text: str, args: Any) -> Any:
        asm = ir.InlineAsm(ir.FunctionType(_I32, [_I32] * 3), text, "=r,r,r,r", side_effect=False)
        return builder.call(asm, args)

    @intrinsic
    def dp4a(typingctx, a, b, c):  # type: ignore[no-untyped-def]
        def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
            return _assembly(builder, "dp4a.s32.s32 $0, $1, $2, $3;", args)

        return types.int32(types.uint32, types.uint32, types.int32), codegen

    @intrinsic
    def permute(typingctx, a, b, selector):  # type: ignore[no-untyped-def]
        def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
            return _assembly(builder, "prmt.b32 $0, $1, $2, $3;", args)

        return types.uint32(types.uint32, types.uint32, types.uint32), codegen

    @intrinsic
    def as_float(typingctx, bits):  # type: ignore[no-untyped-def]
        def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
            return builder.bitcast(args[0], ir.FloatType())

        return types.float32(types.uint32), codegen

    @intrinsic
    def as_bits(typingctx, value):  # type: ignore[no-untyped-def]
        def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
            return builder.bitcast(args[0], _I32)

        return types.uint32(types.float32), codegen
