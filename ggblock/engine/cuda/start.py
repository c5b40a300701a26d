"""From what ``offload`` says to a device with a placement, or to the CPU alone."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING

from ...errors import DeviceError
from .. import placement
from ..placement import Offload, Placement
from ..store import Notify

if TYPE_CHECKING:
    from .device import Device
    from .gemm import Gemm
    from .plan import Offloading

RESERVED = 512 << 20  # bytes left free on the device by "auto": activations, tiles, cuBLAS, kernels
GB = 1e9


def gemm_of(device: Device) -> Gemm | None:
    """The library's matrix product where the device has one; None otherwise, and always in the simulator."""
    if device.simulated:
        return None
    from .gemm import WORKSPACE, Cublas

    try:
        return Cublas(device.stream, device.empty(WORKSPACE, "uint8"))
    except OSError:
        return None


def start(
    offload: Offload,
    sizes: Mapping[str, int],
    n_layers: int,
    cache_bytes: int,
    n_ctx: int,
    notify: Notify | None,
) -> Offloading | None:
    """What runs on the device, or None where nothing does.

    ``sizes``: bytes of every matrix; ``cache_bytes``: of a layer's KV cache. "auto" without a usable device is told in
    one line and means the CPU. Raises `DeviceError` where there is no device or too little memory on it, `SettingError`
    for a pattern that matches nothing.
    """

    def say(line: str) -> None:
        if notify is not None:
            notify(line)
        else:
            warnings.warn(line, stacklevel=5)

    if offload.kind == "none":
        return None
    if offload.kind == "tensors":  # a pattern that matches nothing is the caller's fault on every machine
        placement.choose(offload, sizes, n_layers)
    from .device import Device

    try:
        device = Device()
    except DeviceError as error:
        if offload.kind != "auto":
            raise
        say(f"offload auto: {error}; the CPU computes everything")
        return None
    place = placement.choose(offload, sizes, n_layers, cache_bytes, lambda: device.free_bytes - RESERVED)
    need = sum(sizes[name] for name in place.names) + place.n_caches * cache_bytes
    if need > device.free_bytes:
        raise DeviceError(
            f"what is to be offloaded does not fit the memory of {device.name}",
            where="offload",
            expected=f"at most {device.free_bytes / GB:.2f} GB",
            actual=f"{need / GB:.2f} GB",
        )
    if not place.names:
        say(f"offload auto: not one layer fits the memory of {device.name}; the CPU computes everything")
        return None
    if notify is not None or offload.kind == "auto":
        say(f"{described(place, sizes)} on {device.name}, {need / GB:.2f} of {device.free_bytes / GB:.1f} GB")
    if notify is not None and not device.simulated:
        say("kernels for the GPU are compiled when they are first used, in every process anew: some seconds each")
    from .plan import Offloading

    return Offloading(device, place, n_ctx, gemm_of(device))


def described(place: Placement, sizes: Mapping[str, int]) -> str:
    """ "12 of 16 layers and the output", or how many matrices where layers are not whole."""
    by_layer: dict[int | None, list[bool]] = {}
    for name in sizes:
        by_layer.setdefault(placement.layer_of(name), []).append(place.has(name))
    output = all(by_layer.pop(None, [False]))
    if any(any(has) and not all(has) for has in by_layer.values()):
        return f"{len(place.names)} of {len(sizes)} matrices"
    n = sum(all(has) for has in by_layer.values())
    return f"{n} of {place.n_layers} layers" + (" and the output" if output else "")
