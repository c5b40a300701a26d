"""Kernels compiled for a machine that this process does not run on: assembly to read, nothing to execute.

``tile_assembly`` emits a tile of one block family straight into an LLVM module. ``main`` compiles a whole kernel
through Numba with the machine "neon" in place of this one, and stops before Numba would make code for this CPU: it
is run in a process of its own (``python -m tests.kernels.foreign NAME...``) and prints assembly, which
``whole_kernels`` returns.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import llvmlite.binding as llvm
from llvmlite import ir

TARGETS = {
    "neon": ("aarch64-unknown-linux-gnu", "generic", "+neon,+dotprod,+fullfp16"),
    "avxvnni": ("x86_64-unknown-linux-gnu", "alderlake", "+avxvnni,+avx2,+fma,+f16c,-avx512f"),
    "avx2": ("x86_64-unknown-linux-gnu", "haswell", "+avx2,+fma,+f16c"),
    "avx512vbmi": ("x86_64-unknown-linux-gnu", "znver4", "+avx512f,+avx512bw,+avx512vl,+avx512vnni,+avx512vbmi"),
    "avx512": ("x86_64-unknown-linux-gnu", "cascadelake", "+avx512f,+avx512bw,+avx512vl,+avx512vnni"),
    "portable": ("x86_64-unknown-linux-gnu", "x86-64", ""),
}


def assembly(module_text: str, machine: str) -> str:
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    triple, cpu, features = TARGETS[machine]
    target = llvm.Target.from_triple(triple).create_target_machine(cpu=cpu, features=features, opt=2)
    module = llvm.parse_assembly(module_text)
    module.triple = triple
    module.data_layout = str(target.target_data)
    module.verify()
    return str(target.emit_assembly(module))


def tile_assembly(family: str, machine: str, tokens: int, mode: str) -> str:
    """For ``machine``, a loop over the blocks of one panel against one token, or over its units (``kernels.unpacked``)
    against ``tokens``; mode "unpack": one that makes units of blocks, "group": one as of ``narrow.group``.
    ``q4_k+128``: of such tails."""
    from ggblock.kernels import block_products, families, fields, narrow, unpacked
    from ggblock.simd.emit import F32, I64, Emit

    module = ir.Module()
    module.triple = TARGETS[machine][0]
    function = ir.Function(module, ir.FunctionType(ir.VoidType(), [I64] * 6), "tile")
    builder = ir.IRBuilder(function.append_basic_block())
    e = Emit(builder, machine)
    p, q, q2, meta, out, blocks = function.args
    fam: Any = families.tail(family) or families.family(family)

    def body(i: Any, carried: Any) -> Any:
        at = e.at(p, i, 16 * fam.n_bytes)
        x = e.at(q, i, fam.block * tokens * 4)
        if mode == "unpack":
            unpacked.emit_unpack(e, fam, at, e.at(out, i, 16 * fam.n_bytes), "1")
            return carried
        if mode != "w" and (mode == "f" or isinstance(fam, families.FloatFamily)):
            return block_products.block_float(e, fam, at, x, tokens, carried)
        if tokens > 1:
            unit = e.at(p, i, families.unit_bytes(fam, machine, mode))
            m = e.at(meta, i, fields.META_STEP * tokens)
            x, second = (e.at(v, i, unpacked.q_step(mode) * tokens) for v in (q, q2))
            return unpacked.emit_unit(e, fam, unit, x, second, m, tokens, mode, unpacked.Sums(e, carried))
        limit, second, words = e.const("f32", 1.0), e.at(q2, i, fam.block), block_products.Words(e, meta, blocks)
        return [block_products.block(e, fam, at, x, second, words, None, mode, limit, carried[0])]

    if mode == "group":
        sums = unpacked.Sums(e, [], out)
        narrow.group(e, fam, p, q, q2, meta, tokens, blocks, sums, lambda i: None)
        builder.ret_void()
        return assembly(str(module), machine)
    for t, total in enumerate(e.loop(e.i64(0), blocks, 1, [e.zero("f32x16")] * tokens, body)):
        assert total.type.element == F32
        e.store(out, 64 * t, total)
    builder.ret_void()
    return assembly(str(module), machine)


class Stopped(Exception):
    """Carries the optimised LLVM IR of a kernel out of Numba."""


def _stop_before_code() -> None:
    """Numba's code generator for this CPU does nothing; asked for its object code, it raises ``Stopped`` instead."""
    from numba.core import codegen

    def stop(library: Any) -> Any:
        raise Stopped(str(library._final_module))

    codegen.JITCPUCodegen.set_env = lambda self, name, env: None
    codegen.JITCPUCodegen._add_module = lambda self, module: None
    codegen.JITCodeLibrary._finalize_specific = lambda library: None
    codegen.JITCodeLibrary.get_pointer_to_function = lambda library, name: library._ensure_finalized() or 1
    codegen.CPUCodeLibrary.serialize_using_object_code = stop


def main(names: list[str]) -> None:
    from ggblock.simd import host

    me = host.host()
    foreign = host.Host(me.cpu, me.features, "neon")
    host.host = lambda: foreign
    from ggblock.kernels import registry
    from ggblock.simd import jit

    _stop_before_code()
    for name in names:
        try:
            jit.compile_kernel(registry.build(name), strict=registry.is_strict(name))
        except Stopped as stopped:
            print(f"==== {name}\n{assembly(str(stopped), 'neon')}")


def whole_kernels(names: Sequence[str], timeout_s: float = 600) -> dict[str, str]:
    """AArch64 assembly of each of ``names``, by name. Nothing of this CPU may be left in a kernel: one that calls more
    than the C library's functions for memory, and its own parts, fails."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.kernels.foreign", *names],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
        timeout=timeout_s,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    parts = re.split(r"^==== (.*)\n", done.stdout, flags=re.MULTILINE)
    found = dict(zip(parts[1::2], parts[2::2], strict=True))
    assert list(found) == list(names)
    for name, text in found.items():
        called = re.findall(r"^\s+bl\s+(\S+)", text, re.MULTILINE)
        outside = {n for n in called if n not in ("memset", "memcpy", "memmove") and f"\n{n}:" not in text}
        assert not outside, f"{name} calls {outside}"
    return found


if __name__ == "__main__":
    main(sys.argv[1:])
