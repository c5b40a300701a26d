"""The device itself: whether there is one, its memory, copies to and from it, and captured graphs.

Everything goes through one stream, in order. What would be launched for every token anew can be captured once as a
CUDA graph and launched as a whole.
"""

from __future__ import annotations

import ctypes
import importlib.util
import os
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from ...errors import DeviceError

EXTRA = "pip install 'ggblock[cuda]'"
SIMULATED_BYTES = 1 << 40  # of the device that the simulator stands for
STAGING = 1 << 20  # bytes of pinned memory for small copies


def is_simulated() -> bool:
    """Whether Numba's simulator stands in for a device."""
    numba = sys.modules.get("numba")
    if numba is not None:
        return bool(numba.config.ENABLE_CUDASIM)
    return os.environ.get("NUMBA_ENABLE_CUDASIM", "0") not in ("", "0")


def check() -> None:
    """Raises `DeviceError` where there is no NVIDIA GPU or what drives it is not installed. Does not import Numba."""
    if is_simulated():
        return
    library = "nvcuda.dll" if os.name == "nt" else "libcuda.so.1"
    try:
        driver = ctypes.CDLL(library)
    except OSError:
        raise DeviceError(
            f"there is no NVIDIA driver on this machine ({library}); without --offload the CPU computes everything",
            where="offload",
        ) from None
    count = ctypes.c_int(0)
    if driver.cuInit(0) or driver.cuDeviceGetCount(ctypes.byref(count)) or not count.value:
        raise DeviceError("the NVIDIA driver finds no GPU", where="offload")
    if importlib.util.find_spec("numba_cuda") is None:
        raise DeviceError(f"a GPU needs the package numba-cuda: {EXTRA}", where="offload")


class Graph:
    """Launches captured from a stream."""

    def __init__(self, executable: Any, stream: Any) -> None:
        self._executable, self._stream = executable, stream

    def launch(self) -> None:
        from cuda.bindings import driver

        _must(driver.cuGraphLaunch(self._executable, self._stream))


def _must(result: Any) -> Any:
    """What a driver call returned after its error code; `DeviceError` where that is one."""
    if int(result[0]):
        raise DeviceError(f"the CUDA driver failed: {result[0]!r}", where="offload")
    return result[1] if len(result) == 2 else result[1:]


class Device:
    """The current device. Raises `DeviceError` where there is none."""

    def __init__(self) -> None:
        check()
        from numba import cuda

        self._cuda = cuda
        self.simulated = is_simulated()
        try:
            context = cuda.current_context()
            self.name = "Numba's simulator" if self.simulated else _text(cuda.get_current_device().name)
            self.stream = cuda.stream()
            self.free_bytes: int = SIMULATED_BYTES if self.simulated else context.get_memory_info()[0]
        except Exception as error:
            raise DeviceError(f"the device cannot be used: {_first_line(error)}", where="offload") from error
        self._staging, self._is_staging = cuda.pinned_array(STAGING, np.uint8), False

    # --- memory
    def empty(self, n: int, dtype: Any) -> Any:
        """An array of ``n`` elements on the device, its content undefined. `DeviceError` where memory is short."""
        try:
            return self._cuda.device_array(max(n, 1), dtype, stream=self.stream)
        except Exception as error:
            size = n * np.dtype(dtype).itemsize
            raise DeviceError(
                f"the device has no room: {_first_line(error)}", where="offload", actual=f"{size} bytes asked for"
            ) from error

    def upload(self, host: npt.NDArray[Any]) -> Any:
        """A copy of ``host`` on the device, flat."""
        flat = np.ascontiguousarray(host).reshape(-1)
        array = self.empty(flat.size, flat.dtype)
        if flat.size:
            array.copy_to_device(flat, stream=self.stream)
            self.synchronize()
        return array

    def zeros(self, n: int, dtype: Any) -> Any:
        return self.upload(np.zeros(max(n, 1), dtype))

    def pinned(self, n_bytes: int) -> npt.NDArray[np.uint8]:
        array: npt.NDArray[np.uint8] = self._cuda.pinned_array(n_bytes, np.uint8)
        return array

    def event(self) -> Any:
        return self._cuda.event(timing=False) if not self.simulated else self._cuda.event()

    def send(self, host: npt.NDArray[Any], to: Any) -> None:
        """Copies ``host`` (flat, contiguous) into ``to``; ``host`` may change afterwards."""
        if host.nbytes > STAGING:
            to.copy_to_device(host, stream=self.stream)
            self.synchronize()
            return
        if self._is_staging:  # an earlier copy may still be reading the pinned memory
            self.synchronize()
        staged = self._staging[: host.nbytes].view(host.dtype)
        staged[:] = host
        to.copy_to_device(staged, stream=self.stream)
        self._is_staging = True

    def fetch(self, array: Any, host: npt.NDArray[Any]) -> None:
        """Copies ``array`` into ``host`` (flat, contiguous), after everything that was launched before."""
        if host.nbytes <= STAGING:
            staged = self._staging[: host.nbytes].view(host.dtype)  # in the stream's order, after any copy from it
            array.copy_to_host(staged, stream=self.stream)
            self.synchronize()
            host[:] = staged
        else:
            array.copy_to_host(host, stream=self.stream)
            self.synchronize()

    def synchronize(self) -> None:
        """Waits for everything that was launched."""
        self.stream.synchronize()
        self._is_staging = False

    def enter(self) -> None:
        """Makes the device current in this thread."""
        self._cuda.current_context()

    # --- graphs
    def capture(self, launches: Callable[[], None]) -> Graph | None:
        """What ``launches`` launches, as a graph; None where graphs cannot be had. Nothing runs.

        Its kernels must have run before: compiling and loading cannot be captured.
        """
        if self.simulated:
            return None
        from cuda.bindings import driver

        stream = int(self.stream.handle)
        mode = driver.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL
        _must(driver.cuStreamBeginCapture(stream, mode))
        try:
            launches()
        finally:
            graph = _must(driver.cuStreamEndCapture(stream))
        return Graph(_must(driver.cuGraphInstantiate(graph, 0)), stream)


def _text(name: Any) -> str:
    return name.decode() if isinstance(name, bytes) else str(name)


def _first_line(error: Exception) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
