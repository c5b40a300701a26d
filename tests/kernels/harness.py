"""What the kernel tests share: matrices of every block type, exactly representable activations, plans around them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

import ggblock
from ggblock import blocks
from ggblock.engine import plan
from ggblock.engine.plan import Builder, tabled_blocks
from ggblock.engine.team import Team
from ggblock.engine.weights import Weight, describe
from ggblock.format.writer import GgufWriter, TensorSpec
from ggblock.kernels import families
from ggblock.kernels.families import mode_of_one
from ggblock.kernels.fields import ALIKE, MOST_LEVELS, MOST_SUM, MOST_TIMES
from ggblock.kernels.sign_tables import TOGETHER
from ggblock.simd.host import host
from ggblock.simd.machines import MACHINES

#: Largest relative error of one rounding to float32.
EPS = 2.0**-24

MACHINE = MACHINES[host().machine]

#: Which columns of 32 are in one of eight groups, (8, 4): those that many tokens multiply together.
FOURS = np.arange(32).reshape(2, 8, 2).swapaxes(0, 1).reshape(8, 4) if MACHINE.narrow else np.arange(32).reshape(8, 4)

#: Types that a matrix can have: all but whole numbers wider than 16 bits, whose decoder already rounds.
TYPES = tuple(name for name in blocks.REGISTRY if name not in ("i32", "i64"))

#: (activations for one token, for many): the modes of ``kernels.matmul``.
MODES = {"two_mixed": ("2", "1+"), "floats": ("f", "f")}


@cache
def team(n_threads: int) -> Team:
    """A team that lives as long as the tests."""
    return Team(n_threads)


def random_rows(name: str, n_rows: int, n_cols: int, rng: np.random.Generator) -> np.ndarray:
    """uint8 (n_rows, row_bytes): any codes; finite scales of both signs, a few of them zero, denormal or large."""
    block = blocks.by_name(name)
    n = n_rows * n_cols // block.block_size
    raw = rng.integers(0, 256, (n, block.block_bytes), dtype=np.uint8)

    def scales(count: int) -> np.ndarray:
        values = rng.uniform(0.25, 2, (n, count)) * rng.choice([-1, 1], (n, count))
        odd = rng.choice([0.0, 2.0**-24, 2.0**-14, 500.0], (n, count))
        return np.where(rng.random((n, count)) < 0.03, odd, values)

    for field in block.layout:
        at = slice(field.offset, field.end)
        if field.kind in ("f16", "f32", "f64"):
            raw[:, at] = (
                scales(field.count)
                .astype("<" + field.kind.replace("f16", "f2").replace("f32", "f4").replace("f64", "f8"))
                .view(np.uint8)
            )
        elif field.kind == "bf16":
            raw[:, at] = (scales(1).astype("<f4").view(np.uint32) >> 16).astype("<u2").view(np.uint8)
        elif field.kind == "e8m0":
            raw[:, at] = np.where(rng.random((n, 1)) < 0.1, rng.integers(0, 3, (n, 1)), rng.integers(115, 135, (n, 1)))
    if name == "iq1_m":  # the nibbles of its float16 are the tops of four words: between 0.25 and 2
        bits = rng.uniform(0.25, 2, n).astype("<f2").view("<u2")
        for i in range(4):
            raw[:, 49 + 2 * i] = raw[:, 49 + 2 * i] & 15 | (bits >> np.uint16(4 * i) & 15).astype(np.uint8) << 4
    return raw.reshape(n_rows, -1)


@dataclass(frozen=True)
class Matrix:
    """A tensor of a file on the disk, with its exact weights and what bounds the rounding of its products.

    ``exact``: float64 (n_rows, n_cols), scale * code - min without rounding. ``size``: float64, the same shape: a bound
    of the magnitudes that a kernel adds up for each unit of activation; codes may carry an offset (a multiple of the
    sub-block's scale) that is taken off again through the sum of the activations.
    """

    tensor: Any
    exact: np.ndarray
    size: np.ndarray

    def weight(self) -> Weight:
        return describe(self.tensor)


def offset_of(name: str) -> int:
    """The largest number that is added to a code to make it an unsigned byte, in the type's own steps."""
    signed = 128 if MACHINE.narrow else MACHINE.signed_bias
    known = {
        "q4_0": 8,
        "q5_0": 16,
        "q6_k": 32,
        "q3_k": 4,
        "mxfp4": 16,
        "nvfp4": 16,
        "tq1_0": 1,
        "tq2_0": 1,
        "q1_0": 1,
        "q2_0": 1,
        "iq3_s": 16,
        "iq1_s": 16,
        "iq1_m": 16,
        "q4_1": 0,
        "q5_1": 0,
        "q2_k": 0,
        "q4_k": 0,
        "q5_k": 0,
    }
    if name in known and is_paired(name):
        return max(known[name], families.middle(families.family(name)))
    return known.get(name, signed)


def matrix(
    folder: Path, name: str, n_rows: int, n_cols: int, rng: np.random.Generator, codes: int | None = None
) -> Matrix:
    """A random matrix of type ``name``, written to a file in ``folder`` and opened again. ``codes``: what all bytes of
    codes are."""
    block = blocks.by_name(name)
    raw = random_rows(name, n_rows, n_cols, rng)
    for field in block.layout if codes is not None else ():
        if field.name in ("qs", "ql", "qh", "hmask"):
            raw.reshape(-1, block.block_bytes)[:, field.offset : field.end] = codes
    path = folder / f"{name}-{n_rows}-{n_cols}-{rng.integers(1 << 62)}.gguf"
    with GgufWriter(path, {"general.architecture": "none"}, [TensorSpec("w", name, (n_rows, n_cols))]) as writer:
        writer.write("w", raw)
    tensor = ggblock.open(path).tensors["w"]
    cells = raw.reshape(-1, block.block_bytes)
    if block.unpack is None:
        exact = block.decode(cells).astype(np.float64).reshape(n_rows, n_cols)
        return Matrix(tensor, exact, np.abs(exact))
    parts = block.unpack(cells)
    each = block.block_size // parts.scales.shape[1]
    scales = np.repeat(parts.scales.astype(np.float64), each, axis=1)
    mins = np.zeros_like(scales) if parts.mins is None else np.repeat(parts.mins.astype(np.float64), each, axis=1)
    codes, offset = parts.codes.astype(np.float64), offset_of(name)
    exact = scales * codes - mins
    size = np.abs(scales) * (np.abs(codes + offset) + offset) + np.abs(mins)
    if name == "q2_k" and is_paired(name):  # what is taken off codes times scales is in steps of the block
        (d,) = (field for field in block.layout if field.name == "d")
        size += 2 * families.middle(families.family(name)) * np.abs(cells[:, d.offset : d.end].view("<f2"))
    return Matrix(tensor, exact.reshape(n_rows, n_cols), size.reshape(n_rows, n_cols))


def is_paired(family: str, modes: tuple[str, str] = MODES["two_mixed"]) -> bool:
    """Whether many tokens are multiplied by fewer dot products (``kernels.winograd``)."""
    return plan.mode_of_many(family, modes, host()) == "1p"


def levels_of(family: str, modes: tuple[str, str], n_tokens: int, n_cols: int) -> np.ndarray:
    """The largest codes of the activations of a product, by column."""
    levels = np.full(n_cols, MOST_LEVELS)
    if n_tokens > 1 and is_paired(family, modes):
        eight, (everywhere, second) = np.arange(n_cols) // 8 % 4, families.levels(families.family(family))
        levels[(eight == 0) | (eight == 2)], levels[eight == 1] = everywhere, second
    return levels


def is_alike(family: str, modes: tuple[str, str] = MODES["two_mixed"]) -> bool:
    """Whether the scales of many tokens' activations are multiples of one (``fields.TOGETHER``)."""
    return families.in_groups(families.family(family), MACHINE.name, plan.mode_of_many(family, modes, host()))


def activations_of(w: Weight, modes: tuple[str, str], n_tokens: int, rng: np.random.Generator) -> np.ndarray:
    """``exact_activations`` of a product."""
    levels = levels_of(w.family, modes, n_tokens, w.n_cols)
    alike = n_tokens > 1 and is_alike(w.family, modes)
    return exact_activations(n_tokens, w.n_cols, terms_of(w, modes, n_tokens), rng, levels, alike)


def exact_activations(
    n_tokens: int, n_cols: int, terms: int, rng: np.random.Generator, levels: np.ndarray | None = None,
    alike: bool = False,
) -> np.ndarray:  # fmt: skip
    """float32 (n_tokens, n_cols) that 8 bits (16 with two terms) hold without rounding, whatever rounds them.

    In every four columns one value is their level (``levels_of``, None: 127) times a power of two that is the same for
    32 columns (so none stand apart, ``kernels.activation_apart``), and all others are smaller multiples of that power
    of two, or with two terms of 1/256 of it (never halfway between two steps of the first term). ``alike``: those of
    256 columns are at most ``MOST_TIMES`` times the least, the same multiples for all tokens, and codes add up to no
    more than ``fields.MOST_SUM`` lets them.
    """
    n = -(-n_cols // 32) * 32
    levels = np.full(n, MOST_LEVELS) if levels is None else np.resize(levels[:32], n)
    if terms == 1:
        most = np.minimum(levels, 36) if alike else levels
        steps = rng.integers(-most, most + 1, (n_tokens, n)).astype(np.float64)
    else:
        steps = rng.integers(-126, 127, (n_tokens, n)) + rng.integers(-127, 128, (n_tokens, n)) / 256
    peaks = np.arange(0, n, 4) + rng.integers(0, 4, (n_tokens, n // 4))
    np.put_along_axis(steps, peaks, levels[peaks] * rng.choice([-1.0, 1.0], peaks.shape), axis=1)
    powers = 2.0 ** rng.integers(-9, 3, (n_tokens, n // 32))
    if alike:
        assert 4 * MOST_LEVELS + 12 * 36 <= MOST_SUM - 16
        times = 2.0 ** rng.integers(0, MOST_TIMES.bit_length(), n // 32)
        times[::ALIKE] = MOST_TIMES
        powers = np.repeat(powers[:, ::ALIKE], ALIKE, axis=1)[:, : n // 32] / MOST_TIMES * times
    values = (steps * np.repeat(powers, 32, axis=1))[:, :n_cols]
    if n_cols % 4:  # the last peak may be cut off
        values[:, n_cols - 1] = levels[n_cols - 1] * powers[:, -1]
    assert np.array_equal(values, values.astype(np.float32))
    return values.astype(np.float32)


def terms_of(w: Weight, modes: tuple[str, str], n_tokens: int) -> int:
    """Terms of activations that count in every column of a product; floats have as many as any."""
    mode = modes[1] if n_tokens > 1 else mode_of_one(w.family, modes, MACHINE.name)
    return 2 if mode == "f" else int(mode[0])


def rounding(w: Weight, m: Matrix, modes: tuple[str, str], x: np.ndarray) -> np.ndarray | float:
    """(n_tokens, n_rows): what tables may round off a product of one token, and whole numbers that stand for halves one
    of many; 0 where none are used.

    ``kernels.sign_tables``: a sum of four is off by half a step of its 32 columns (64 where tables have 16 bytes),
    which is 1/127 of their largest sum of four magnitudes, and its columns by 1/2**17 of a step.
    ``kernels.sum_tables``: a sum of 16 is off by half a step, 1/32,512 of the largest in its 256 columns; it is
    multiplied by a min, or a scale times what is taken off the codes, and ``size`` is never less.
    ``kernels.digit_tables``: each sum of two or three columns of a block, 16 of 48 columns
    and 6 of the last 16, is off by half a step, 1/127 of the largest there, and its columns by 1/2**17 of a step.
    """
    if len(x) > 1:
        return rounding_of_words(m, x) if families.modes_of(w.family, modes, MACHINE.name)[1] == "w" else 0.0
    mode = mode_of_one(w.family, modes, MACHINE.name)
    if mode not in ("1s", "1t", "1d"):
        return 0.0
    if mode == "1d":
        n = x.shape[1] // 256 if len(w.slices) > 1 else tabled_blocks(mode, x.shape[1])
        columns = np.abs(x[0, : 256 * n].astype(np.float64)).reshape(n, 256)
        peaks = 16 * columns[:, :240].reshape(n, 5, 3, 16).sum(2).max(2).sum(1)
        rest = columns[:, 240:252].reshape(n, 3, 4).sum(1).max(1), columns[:, 252:].reshape(n, 2, 2).sum(2).max(1)
        weights = m.size[:, : 256 * n].reshape(len(m.size), n, 256).min(2)
        return (weights @ ((peaks + 6 * np.maximum(*rest)) / 127 * (1 / 2 + 3 / 2**17)))[None]
    if mode == "1s":
        n = x.shape[1] // 256
        steps = np.abs(x[:, : 256 * n].astype(np.float64).reshape(n, 16, 16).sum(2)).max(1) / 32512
        weights = m.size[:, : 256 * n].reshape(len(m.size), n, 16, 16).min(3).sum(2)
        return (weights @ (steps / 2))[None]
    whole = x.shape[1] if len(w.slices) > 1 else tabled_blocks(mode, x.shape[1]) * 128
    each = 32 * (1 if MACHINE.lookup64 else TOGETHER)
    fours = np.abs(x[:, :whole].astype(np.float64)).reshape(1, -1, each // 4, 4).sum(3).max(2)
    a_column = np.zeros(x.shape)
    a_column[:, :whole] = np.repeat(fours / 127 * (1 / 2 + 4 / 2**17) / 4, each, axis=1)
    return a_column @ np.abs(m.exact).T


def rounding_of_words(m: Matrix, x: np.ndarray) -> np.ndarray:
    """(n_tokens, n_rows): what ``kernels.float_words`` may round off: half a step of each weight and activation, 1/8191
    of the largest in 32 columns, and 1/2**9 of a step more, since 8191 codes times two roundings of float32 are that
    much."""
    pad = [(0, 0), (0, -x.shape[1] % 32)]
    a, b = (np.abs(np.pad(v.astype(np.float64), pad)).reshape(len(v), -1, 32) for v in (x, m.exact))
    of_a, of_b = ((1 / 2 + 2**-9) / 8191 * v.max(2) for v in (a, b))
    return of_a @ b.sum(2).T + a.sum(2) @ of_b.T + 32 * of_a @ of_b.T


class Product:
    """A plan of one product: ``y = x @ w.T``, through the engine's builder."""

    def __init__(
        self,
        w: Weight,
        modes: tuple[str, str],
        n_threads: int,
        capacity: int,
        accumulate: bool = False,
        bias: np.ndarray | None = None,
    ) -> None:
        builder = Builder(modes, n_threads, capacity)
        self.x, self.y = builder.rows(w.n_cols), builder.rows(w.n_rows)
        builder.matmul(builder.copy(self.x), w, self.y, accumulate=accumulate, bias=bias)
        builder.barrier()
        self.n_rows, self.n_cols = w.n_rows, w.n_cols
        self.plan = builder.finish(team(n_threads))
        for room in builder._rooms.values():
            room[:] = 0xA5  # as another matrix might leave it

    def run(self, x: np.ndarray, before: float = 7.0) -> np.ndarray:
        """float32 (n_tokens, n_rows); every y holds ``before`` when it starts."""
        n = len(x)
        self.x.data[:n, : self.n_cols] = x
        self.y.data[:] = 0
        self.y.data[:n, : self.n_rows] = before
        self.plan.run(n, 0)
        assert not self.y.data[:, self.n_rows :].any(), "the padding of y must stay zero"
        return self.y.data[:n, : self.n_rows].copy()


def tolerance(m: Matrix, x: np.ndarray, floats: bool) -> np.ndarray:
    """(n_tokens, n_rows): how far a product may be from the exact one when the activations are exact.

    A row is summed with one fused multiply-add for each weight (float activations) or two for each sub-block of
    at least 16 weights: each rounds by EPS of a partial sum, which is no more than the sum of all magnitudes. Six
    more roundings touch every term before: super-scale times scale, offset times scale, times the activations'
    scale, the integer to a float, the sum of the activations to a float and times its scale; a multiply-add that
    is not fused is the seventh.
    """
    n_cols = m.exact.shape[1]
    n = n_cols if floats else 2 * -(-n_cols // 16)
    return (n + 7) * EPS * (np.abs(x.astype(np.float64)) @ m.size.T)


def assert_close(actual: np.ndarray, expected: np.ndarray, tolerance: np.ndarray) -> None:
    """Everywhere |actual - expected| <= tolerance; a NaN fails."""
    wrong = ~(np.abs(actual.astype(np.float64) - expected) <= tolerance)
    where = np.argwhere(wrong)
    assert not len(where), (
        f"{len(where)} of {wrong.size} are off, first {where[0]}: {actual[tuple(where[0])]!r}, "
        + f"expected {expected[tuple(where[0])]!r} within {tolerance[tuple(where[0])]!r}"
    )
