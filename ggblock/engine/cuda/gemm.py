"""Matrix products of bfloat16 by a library: cuBLAS, called through ctypes, on tiles of dequantized weights.

``Cublas`` is what a device uses for many tokens where the library is installed (it comes with the extra ``cuda``).
``Plain`` is one thread an element: for the simulator, where it stands in for cuBLAS in the tests.
"""

from __future__ import annotations

import ctypes
import importlib.util
import os
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numba import cuda

from ...errors import DeviceError
from . import jit
from .words import as_float

BF16, F32, COMPUTE_F32 = 14, 0, 68  # cudaDataType_t, cublasComputeType_t
WORKSPACE = 32 << 20  # bytes; given to cuBLAS so that its launches can be captured


class Gemm(Protocol):
    """``y[t, first + r] (+)= sum over k of a[t, k] * w[k, r]`` in float32."""

    def product(
        self, w: Any, a: Any, y: Any, first: int, n_rows: int, n_tokens: int, n_cols: int, w_stride: int,
        a_stride: int, y_stride: int, accumulate: int, stream: Any,
    ) -> None:  # fmt: skip
        """w: bfloat16 (n_cols, w_stride); a: bfloat16 (n_tokens, a_stride); y: float32 (n_tokens, y_stride)."""
        ...


@jit.kernel("plain_gemm", "ssfiiiiiii")
def plain(w, a, y, first, n_rows, n_cols, w_stride, a_stride, y_stride, accumulate):  # type: ignore[no-untyped-def]
    """Grid: (n_tokens, ceil(n_rows / threads))."""
    t = np.int64(cuda.blockIdx.x)
    r = np.int64(cuda.blockIdx.y) * cuda.blockDim.x + cuda.threadIdx.x
    if r < n_rows:
        total = np.float32(0)
        for k in range(n_cols):
            x = as_float(np.uint32(np.int64(a[t * a_stride + k]) << 16))
            total += x * as_float(np.uint32(np.int64(w[k * w_stride + r]) << 16))
        at = t * y_stride + first + r
        if accumulate:
            total += y[at]
        y[at] = total


class Plain:
    """See the module."""

    def product(
        self, w: Any, a: Any, y: Any, first: int, n_rows: int, n_tokens: int, n_cols: int, w_stride: int,
        a_stride: int, y_stride: int, accumulate: int, stream: Any,
    ) -> None:  # fmt: skip
        plain[(n_tokens, -(-n_rows // 32)), 32, stream](
            w, a, y, first, n_rows, n_cols, w_stride, a_stride, y_stride, accumulate
        )


def _libraries() -> list[str]:
    """Where cuBLAS may be: in NVIDIA's packages, then wherever the system finds it."""
    found = []
    spec = importlib.util.find_spec("nvidia")
    for root in spec.submodule_search_locations or [] if spec else []:
        for pattern in ("cublas/lib/libcublas.so.*", "cu1*/lib/libcublas.so.*", "cublas/bin/cublas64_*.dll"):
            found += [str(path) for path in sorted(Path(root).glob(pattern))]
    names = ("cublas64_13.dll", "cublas64_12.dll") if os.name == "nt" else ("libcublas.so.13", "libcublas.so.12")
    return [*found, *names]


class Cublas:
    """cuBLAS on ``stream``. Raises `OSError` where the library is not installed, `DeviceError` where it fails."""

    def __init__(self, stream: Any, workspace: Any) -> None:
        self._library = self._load()
        self._handle = ctypes.c_void_p()
        self._workspace = workspace
        self._call("cublasCreate_v2", ctypes.byref(self._handle))
        self._call("cublasSetStream_v2", self._handle, ctypes.c_void_p(int(stream.handle)))
        address = int(workspace.__cuda_array_interface__["data"][0])
        self._call("cublasSetWorkspace_v2", self._handle, ctypes.c_void_p(address), ctypes.c_size_t(WORKSPACE))
        self._one, self._scalars = ctypes.c_float(1), (ctypes.c_float(0), ctypes.c_float(1))

    @staticmethod
    def _load() -> Any:
        for name in _libraries():
            try:
                return ctypes.CDLL(name)
            except OSError:
                continue
        raise OSError("cuBLAS is not installed")

    def _call(self, name: str, *arguments: Any) -> None:
        status = getattr(self._library, name)(*arguments)
        if status:
            raise DeviceError(f"{name} failed with status {status}", where="offload")

    def product(
        self, w: Any, a: Any, y: Any, first: int, n_rows: int, n_tokens: int, n_cols: int, w_stride: int,
        a_stride: int, y_stride: int, accumulate: int, stream: Any,
    ) -> None:  # fmt: skip
        # cuBLAS counts columns first: it sees w as (w_stride, n_cols), a as (a_stride, n_tokens), y as (y_stride, ...)
        def pointer(array: Any, offset: int = 0) -> Any:
            return ctypes.c_void_p(int(array.__cuda_array_interface__["data"][0]) + offset)

        self._call(
            "cublasGemmEx", self._handle, 0, 0, n_rows, n_tokens, n_cols, ctypes.byref(self._one),
            pointer(w), BF16, w_stride, pointer(a), BF16, a_stride, ctypes.byref(self._scalars[accumulate]),
            pointer(y, 4 * first), F32, y_stride, COMPUTE_F32, -1,
        )  # fmt: skip
