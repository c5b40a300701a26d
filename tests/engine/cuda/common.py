"""Plans on the simulated device."""

from __future__ import annotations

from functools import cache

import numpy as np

from ggblock.engine.cuda.device import Device
from ggblock.engine.cuda.gemm import Gemm
from ggblock.engine.cuda.plan import MixedBuilder, Offloading
from ggblock.engine.placement import Placement
from ggblock.engine.weights import Weight
from tests.kernels.harness import team

N_CTX = 192


@cache
def device() -> Device:
    found = Device()
    assert found.simulated, "tests/conftest.py asks for the simulator"
    return found


def offloading(*names: str, n_layers: int = 0, gemm: Gemm | None = None) -> Offloading:
    """A device that has the matrices ``names``."""
    return Offloading(device(), Placement(frozenset(names), n_layers), N_CTX, gemm)


class DeviceProduct:
    """``y = x @ w.T`` on the device, as ``tests.kernels.harness.Product`` does it on the CPU."""

    def __init__(
        self, w: Weight, modes: tuple[str, str], capacity: int = 16, accumulate: bool = False,
        bias: np.ndarray | None = None, gemm: Gemm | None = None,
    ) -> None:  # fmt: skip
        builder = MixedBuilder(modes, 1, capacity, offloading(w.tensor.name, gemm=gemm))
        self.x, self.y = builder.rows(w.n_cols), builder.rows(w.n_rows)
        builder.matmul(builder.copy(self.x), w, self.y, accumulate=accumulate, bias=bias)
        builder.barrier()
        self.n_rows, self.n_cols = w.n_rows, w.n_cols
        assert builder.kernel_names() == [], "nothing is left to the CPU"
        self.plan = builder.finish(team(1))

    def run(self, x: np.ndarray, before: float = 7.0) -> np.ndarray:
        """float32 (n_tokens, n_rows); every y holds ``before`` when it starts."""
        n = len(x)
        self.x.data[:n, : self.n_cols] = x
        self.y.data[:n, : self.n_rows] = before
        self.plan.run(n, 0)
        return self.plan.fetch(self.y, n)[:, : self.n_rows].copy()
