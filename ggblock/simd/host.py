"""The CPU that this process runs on, and the vector machine that fits it.

Needs llvmlite and not Numba. ``GGBLOCK_MACHINE`` forces a machine for tests and measurements; it must be set
before the first kernel is compiled, because Numba fixes its target once a process.
"""

from __future__ import annotations

import functools
import os
from dataclasses import dataclass

import llvmlite.binding as llvm

from ..errors import SettingError

MACHINES = ("avx512vbmi", "avx512", "avxvnni", "avx2", "neon", "portable")

#: Tokens of a matrix-matrix tile, which its registers hold best; kernels and the engine's activation layout follow it.
TILE_TOKENS = {"avx512vbmi": 8, "avx512": 8, "avxvnni": 4, "avx2": 4, "neon": 4, "portable": 4}

#: Machines that multiply pairs of int16 faster than floats: attention over many tokens does so
#: (``kernels.attention_words``).
WORD_MACHINES = ("avx512vbmi", "avx512", "avxvnni", "avx2")

#: Machines that look bytes up in tables faster than they multiply single bits (``kernels.sign_tables``) or base-3
#: digits (``kernels.digit_tables``).
TABLE_MACHINES = ("avx512vbmi", "avx512", "avxvnni", "avx2")

#: Those that look bytes up in tables of 16 alone, which only bytes of one place of their rows have in common.
PLACE_MACHINES = ("avx512", "avxvnni", "avx2")

#: Machines that multiply signed codes of full range faster by activations of 16 bits: ``kernels.wide``.
WIDE_MACHINES = ("avx2",)

#: Machines of CPUs that may be slow enough at multiplying bytes that fewer dot products pay, and these CPUs
#: (``Host.pairs``): ``kernels.winograd``.
PAIR_MACHINES, PAIR_CPUS = ("avx512vbmi",), ("znver4",)

_AVX512 = ("avx512f", "avx512bw", "avx512vl", "avx512vnni")
_VBMI = ("avx512vbmi",)  # all but Cascade Lake and Cooper Lake
_VNNI_256 = ("avx512f", "avx512vl", "avx512vnni")  # have AVX-VNNI's instruction in other bytes

#: CPUs whose hardware does not prefetch what kernels read strictly forward, and how many bytes ahead these do it
#: themselves (``Emit.asking``).
AHEAD = {"znver5": 10240}

#: Machines that first sum products of bytes in int16 (``machines.Machine.narrow``): ``kernels.narrow``.
NARROW_MACHINES = ("avx2",)


@dataclass(frozen=True)
class Host:
    """What code is generated for: a CPU name and features in LLVM's spelling, and our machine's name."""

    cpu: str
    features: str
    machine: str
    #: Whether the CPU has the machine's dot product only in AVX-512's encoding.
    stands_in: bool = False

    @property
    def pairs(self) -> bool:
        """Whether many tokens are multiplied with fewer dot products."""
        return self.machine in PAIR_MACHINES and self.cpu in PAIR_CPUS

    @property
    def ahead(self) -> int:
        """Bytes ahead of which kernels prefetch weights; 0 where the hardware does it best."""
        return AHEAD.get(self.cpu, 0)


def _detect(arch: str, features: dict[str, bool]) -> str:
    if all(features.get(name) for name in _AVX512):
        return "avx512vbmi" if all(features.get(name) for name in _VBMI) else "avx512"
    if features.get("avx2") and features.get("fma") and features.get("f16c"):
        return "avxvnni" if features.get("avxvnni") else "avx2"
    if arch.startswith("aarch64") and features.get("dotprod"):
        return "neon"
    return "portable"


def _runs_on(machine: str, features: dict[str, bool]) -> bool:
    its_own = ("avxvnni",) if features.get("avxvnni") else _VNNI_256
    needs = {
        "avx512vbmi": (*_AVX512, *_VBMI),
        "avx512": _AVX512,
        "avxvnni": (*its_own, "avx2", "fma", "f16c"),
        "avx2": ("avx2", "fma", "f16c"),
        "neon": ("dotprod",),
        "portable": (),
    }[machine]
    return all(features.get(name) for name in needs)


@functools.cache
def host() -> Host:
    """The target of this process.

    Raises ``SettingError`` where ``GGBLOCK_MACHINE`` names no machine, or one that this CPU cannot run. A CPU with
    AVX-512 can stand in for "avxvnni": code is that of the machine, but its dot product in AVX-512's encoding.
    """
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    arch = llvm.get_process_triple().split("-")[0]
    try:
        features = dict(llvm.get_host_cpu_features())
    except RuntimeError:  # LLVM cannot tell on some platforms
        features = {}
    cpu = llvm.get_host_cpu_name()
    forced = os.environ.get("GGBLOCK_MACHINE", "").lower()
    if forced and forced not in MACHINES:
        raise SettingError(
            "no such vector machine", where="GGBLOCK_MACHINE", expected=" ".join(MACHINES), actual=forced
        )
    if forced and not _runs_on(forced, features):
        raise SettingError("this CPU cannot run that vector machine", where="GGBLOCK_MACHINE", actual=forced)
    machine = forced or _detect(arch, features)
    if forced and forced != _detect(arch, features):
        # keep the CPU's schedule model, take away what the forced machine would not have
        drop = ["avx512", "avx10", "amx", "evex512"] if forced in ("avx2", "avxvnni") else []
        if forced == "avx512":
            drop += ["avx512vbmi", "avx512bf16", "gfni"]
        if forced == "avx2":
            drop += ["avxvnni", "gfni"]  # LLVM shifts bytes by it where it may
        if forced == "portable":
            if arch == "x86_64":
                cpu, features = "x86-64", {}
            elif arch.startswith("aarch64"):
                cpu, features = "generic", {}
        features = {name: on and not any(name.startswith(d) for d in drop) for name, on in features.items()}
    stands_in = machine == "avxvnni" and not features.get("avxvnni")
    if stands_in:
        features["avxvnni"] = True
    said = ",".join(("+" if on else "-") + name for name, on in sorted(features.items()))
    return Host(cpu, said, machine, stands_in)
