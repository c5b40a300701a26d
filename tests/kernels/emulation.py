"""A pytest plugin: kernels are compiled for AArch64 and run by QEMU, while tests and engine stay in this process.

    python -m pytest -p tests.kernels.emulation tests/kernels/test_matmul.py

Numba's front end works with the machine "neon", LLVM's back end makes AArch64 objects, and a driver of a few lines of
LLVM IR is linked with them. All buffers that plans refer to lie in a file that both sides map at one address, so a plan
needs no translation but the number of a kernel for its address. The threads of a team run one after the other, row by
row: what they share is split by fixed rules, so this is one of the orders in which they may run.

Needs ``qemu-aarch64`` and Debian's ``binutils-aarch64-linux-gnu`` (``.ci/qemu`` installs them). Importing this module
replaces parts of the engine: only for a process of its own.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import llvmlite.binding as llvm
import numpy as np

from ggblock.simd import host as host_module

BASE, N_BYTES = 0x2000_0000_0000, 1 << 31  # where both sides map the file, of which only what is used takes room
TRIPLE, FEATURES = "aarch64-unknown-linux-gnu", "+neon,+dotprod,+fullfp16"

# The two things that LLVM IR cannot say: where a program starts, and ``system(number, a, b, c, d, e, f)``.
START = """
.globl _start, system
_start: bl serve
system: mov x8, x0
mov x0, x1
mov x1, x2
mov x2, x3
mov x3, x4
mov x4, x5
mov x5, x6
svc #0
ret
"""

DRIVER = """
target triple = "{triple}"
{declarations}
@kernels = constant [{n} x ptr] [{names}]

define i64 @memset(i64 %to, i32 %value, i64 %n) #0 {{
  %byte = trunc i32 %value to i8
  br label %head
head:
  %i = phi i64 [ 0, %0 ], [ %next, %body ]
  %more = icmp ult i64 %i, %n
  br i1 %more, label %body, label %done
body:
  %a = add i64 %to, %i
  %p = inttoptr i64 %a to ptr
  store volatile i8 %byte, ptr %p
  %next = add i64 %i, 1
  br label %head
done:
  ret i64 %to
}}

define i64 @memcpy(i64 %to, i64 %from, i64 %n) #0 {{
  br label %head
head:
  %i = phi i64 [ 0, %0 ], [ %next, %body ]
  %more = icmp ult i64 %i, %n
  br i1 %more, label %body, label %done
body:
  %a = add i64 %to, %i
  %b = add i64 %from, %i
  %p = inttoptr i64 %a to ptr
  %q = inttoptr i64 %b to ptr
  %v = load volatile i8, ptr %q
  store volatile i8 %v, ptr %p
  %next = add i64 %i, 1
  br label %head
done:
  ret i64 %to
}}

declare i64 @system(i64, i64, i64, i64, i64, i64, i64)

; commands on the standard input, four int64 each: address, rows, threads of a plan, 0; or number, three arguments of a
; kernel with 1 << 32 added to the number. A byte on the standard output answers each.
define void @serve() #0 {{
  %command = alloca [4 x i64]
  %at = ptrtoint ptr %command to i64
  %mapped = call i64 @system(i64 222, i64 {base}, i64 {size}, i64 3, i64 17, i64 {fd}, i64 0)
  br label %wait
wait:
  %got = call i64 @system(i64 63, i64 0, i64 %at, i64 32, i64 0, i64 0, i64 0)
  %whole = icmp eq i64 %got, 32
  br i1 %whole, label %work, label %exit
exit:
  %left = call i64 @system(i64 93, i64 0, i64 0, i64 0, i64 0, i64 0, i64 0)
  unreachable
work:
  %p1 = getelementptr i64, ptr %command, i64 1
  %p2 = getelementptr i64, ptr %command, i64 2
  %p3 = getelementptr i64, ptr %command, i64 3
  %w0 = load volatile i64, ptr %command
  %w1 = load volatile i64, ptr %p1
  %w2 = load volatile i64, ptr %p2
  %w3 = load volatile i64, ptr %p3
  %high = lshr i64 %w0, 32
  %is_call = icmp eq i64 %high, 1
  br i1 %is_call, label %single, label %rows
single:
  %which = and i64 %w0, 4294967295
  %sp = getelementptr ptr, ptr @kernels, i64 %which
  %sf = load ptr, ptr %sp
  call void %sf(i64 %w1, i64 %w2, i64 %w3)
  br label %answer
rows:
  %i = phi i64 [ 0, %work ], [ %i1, %row_done ]
  %more_rows = icmp ult i64 %i, %w1
  br i1 %more_rows, label %row, label %answer
row:
  %offset = mul i64 %i, {row_bytes}
  %op = add i64 %w0, %offset
  %op_p = inttoptr i64 %op to ptr
  %number = load i64, ptr %op_p
  %kp = getelementptr ptr, ptr @kernels, i64 %number
  %kf = load ptr, ptr %kp
  br label %thread
thread:
  %t = phi i64 [ 0, %row ], [ %t1, %thread ]
  call void %kf(i64 %op, i64 %t, i64 %w2)
  %t1 = add i64 %t, 1
  %more_threads = icmp ult i64 %t1, %w2
  br i1 %more_threads, label %thread, label %row_done
row_done:
  %i1 = add i64 %i, 1
  br label %rows
answer:
  %said = call i64 @system(i64 64, i64 1, i64 %at, i64 1, i64 0, i64 0, i64 0)
  br label %wait
}}

attributes #0 = {{ "no-builtins" noinline }}
"""


def object_code(text: str) -> bytes:
    """A module's text, whatever machine it names, as an AArch64 object."""
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    target = llvm.Target.from_triple(TRIPLE).create_target_machine(
        cpu="generic", features=FEATURES, opt=2, reloc="static", codemodel="large"
    )
    module = llvm.parse_assembly(text)
    module.triple = TRIPLE
    module.data_layout = str(target.target_data)
    module.verify()
    return bytes(target.emit_object(module))


class Memory:
    """The file that both sides map, handed out in pieces and never taken back."""

    def __init__(self) -> None:
        self.file = tempfile.TemporaryFile(prefix="ggblock-emulation-")
        self.file.truncate(N_BYTES)
        libc = ctypes.CDLL(None, use_errno=True)
        libc.mmap.restype = ctypes.c_void_p
        libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
        flags = mmap.MAP_SHARED | 0x100000  # MAP_FIXED_NOREPLACE
        got = libc.mmap(BASE, N_BYTES, mmap.PROT_READ | mmap.PROT_WRITE, flags, self.file.fileno(), 0)
        assert got == BASE, os.strerror(ctypes.get_errno())
        self._used = 64

    def buffer(self, n_bytes: int) -> np.ndarray:
        """As ``engine.memory.buffer``: zeroed, at a multiple of 64."""
        start = self._used
        self._used += -(-(n_bytes + 4096) // 64) * 64  # kernels prefetch, and may read a vector, past an end
        assert self._used <= N_BYTES, "the emulated memory is full"
        return np.ctypeslib.as_array((ctypes.c_uint8 * max(1, n_bytes)).from_address(BASE + start))[:n_bytes]

    def address(self, array: np.ndarray) -> int:
        """Where the other side sees ``array``: what lies elsewhere is copied, so that it can be read there."""
        at = int(array.ctypes.data)
        if BASE <= at < BASE + N_BYTES:
            return at
        copy = self.buffer(array.nbytes)
        copy[:] = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
        return int(copy.ctypes.data)


class Emulator:
    """Kernels by number, and the process that runs them."""

    def __init__(self, memory: Memory) -> None:
        self.memory = memory
        self._kernels: list[tuple[str, bytes]] = []
        self._linked = 0
        self._process: subprocess.Popen[bytes] | None = None
        self._folder = tempfile.TemporaryDirectory(prefix="ggblock-emulation-")

    def link(self, symbol: str, code: bytes) -> int:
        """As ``engine.store._link``; the number of the kernel stands for its address."""
        self._kernels.append((symbol, code))
        return len(self._kernels) - 1

    def _start(self) -> subprocess.Popen[bytes]:
        if self._process is not None and self._linked == len(self._kernels):
            return self._process
        self.stop()
        folder, n = Path(self._folder.name), len(self._kernels)
        names = [f"kernel_{i}" for i in range(n)]
        for i in range(self._linked, n):
            symbol, code = self._kernels[i]
            path = folder / f"{names[i]}.o"
            path.write_bytes(code)
            rename = ["--redefine-sym", f"{symbol}={names[i]}", f"--keep-global-symbol={names[i]}"]
            subprocess.run(["aarch64-linux-gnu-objcopy", *rename, str(path)], check=True)
        text = DRIVER.format(
            triple=TRIPLE,
            declarations="\n".join(f"declare void @{name}(i64, i64, i64)" for name in names),
            n=n,
            names=", ".join(f"ptr @{name}" for name in names),
            base=BASE,
            size=N_BYTES,
            fd=self.memory.file.fileno(),
            row_bytes=8 * fields.ROW,
        )
        (folder / "driver.o").write_bytes(object_code(text))
        (folder / "start.s").write_text(START)
        subprocess.run(["aarch64-linux-gnu-as", "-o", folder / "start.o", folder / "start.s"], check=True)
        objects = [str(folder / f"{name}.o") for name in ["start", "driver", *names]]
        program = str(folder / "program")
        subprocess.run(["aarch64-linux-gnu-ld", "-static", "-o", program, *objects], check=True)
        self._linked = n
        self._process = subprocess.Popen(
            ["qemu-aarch64", "-cpu", "max", program],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            pass_fds=[self.memory.file.fileno()],
            bufsize=0,
        )
        return self._process

    def command(self, *words: int) -> None:
        process = self._start()
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write(np.array(words, np.int64).tobytes())
        answer = process.stdout.read(1)
        assert answer, f"the emulated program ended with {process.wait()}"

    def stop(self) -> None:
        if self._process is not None:
            assert self._process.stdin is not None and self._process.stdout is not None
            self._process.stdin.close()
            self._process.stdout.close()
            self._process.wait()
            self._process = None


def _int64(address: int, n: int) -> np.ndarray:
    """``n`` int64 of the shared memory."""
    return np.ctypeslib.as_array((ctypes.c_int64 * n).from_address(address))


class EmulatedTeam:
    """As ``engine.team.Team``."""

    def __init__(self, n_threads: int) -> None:
        self.n_threads = n_threads

    def run(self, plan_address: int, n_rows: int) -> None:
        """Counts the turn as ``kernels.team.post`` does, in the states of the first and the last row."""
        rows = _int64(plan_address, n_rows * fields.ROW).reshape(n_rows, fields.ROW)
        for address in {int(rows[0, fields.STATE]), int(rows[-1, fields.STATE])} - {0}:
            state = _int64(address, fields.N_STATE)
            state[fields.TURN] = (state[fields.TURN] + 1) % fields.TURNS
        EMULATOR.command(plan_address, n_rows, self.n_threads, 0)

    def close(self) -> None:
        """Nothing is held."""


def _compiled(function: Any) -> Any:
    """As ``adhoc.compiled``: arrays are copied to the other side and, when it is done, back."""
    number = EMULATOR.link(*jit.compile_kernel(function))

    def run(*args: np.ndarray | int) -> None:
        there = [a if isinstance(a, int) else MEMORY.address(a) for a in args]
        EMULATOR.command((1 << 32) + number, *map(int, there))
        for a, at in zip(args, there, strict=True):
            if isinstance(a, np.ndarray) and a.flags.writeable:
                raw = np.ctypeslib.as_array((ctypes.c_uint8 * a.nbytes).from_address(at))
                a[...] = raw.view(a.dtype).reshape(a.shape)

    return run


def _serialized(library: Any) -> tuple[None, None, tuple[bytes]]:
    return None, None, (object_code(str(library._final_module)),)


_me = host_module.host()
_foreign = host_module.Host(_me.cpu, _me.features, "neon")
host_module.host = lambda: _foreign  # type: ignore[assignment]  # before any module asks for it
os.environ.setdefault("GGBLOCK_CACHE", tempfile.mkdtemp(prefix="ggblock-emulation-"))  # objects no one else may find

from ggblock.engine import memory as memory_module  # noqa: E402
from ggblock.kernels import fields  # noqa: E402

MEMORY = Memory()
memory_module.buffer, memory_module.address = MEMORY.buffer, MEMORY.address

from numba.core import codegen  # noqa: E402

from ggblock.engine import store, team  # noqa: E402
from ggblock.simd import jit  # noqa: E402

EMULATOR = Emulator(MEMORY)
store._link = EMULATOR.link
team.Team = EmulatedTeam  # type: ignore[assignment, misc]
codegen.JITCPUCodegen.set_env = lambda self, name, env: None
codegen.JITCPUCodegen._add_module = lambda self, module: None
codegen.JITCodeLibrary._finalize_specific = lambda library: None
codegen.JITCodeLibrary.get_pointer_to_function = lambda library, name: library._ensure_finalized() or 1
codegen.CPUCodeLibrary.serialize_using_object_code = _serialized

from tests.kernels import adhoc  # noqa: E402

adhoc.compiled = _compiled


def pytest_unconfigure() -> None:
    EMULATOR.stop()
