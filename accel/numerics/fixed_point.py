"""Fixed-point numbers: whole numbers of steps of 2^-b."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from accel.numerics.scales import Float32, Floats, Integers

MOST_FRACTION_BITS = 30


@dataclass(frozen=True, slots=True)
class Fixed:
    """An array of floats as integers, and what that cost."""

    integers: Integers
    fraction_bits: int
    saturated: int
    """Values that were too large for the integers."""
    largest_error: float
    squared_error: float
    """Sum over all values."""
    squared_signal: float
    """Sum over all values."""

    @property
    def step(self) -> Float32:
        """The value of one: 2^-b, exactly."""
        return np.asarray(2.0**-self.fraction_bits, np.float32)

    def floats(self) -> Float32:
        """The floats that the integers stand for."""
        floats: Float32 = self.integers.astype(np.float32) * self.step
        return floats


def fix(array: Floats, fraction_bits: int, storage_bits: int) -> Fixed:
    """Round to the nearest of round(w * 2^b), ties to even, and saturate.

    Args:
        array: Finite floats, of any shape.
        fraction_bits: b, 0 to 30.
        storage_bits: Bits of the signed integers: 8, 16 or 32.
    """
    exact = array.astype(np.float64)
    steps: npt.NDArray[np.float64] = np.rint(exact * 2.0**fraction_bits)
    low, high = _limits(storage_bits)
    outside = int(((steps < low) | (steps > high)).sum())
    integers = np.clip(steps, low, high)
    error = integers * 2.0**-fraction_bits - exact
    return Fixed(
        integers.astype(f"int{storage_bits}"),
        fraction_bits,
        outside,
        float(np.abs(error).max(initial=0.0)),
        float(np.square(error).sum()),
        float(np.square(exact).sum()),
    )


def best_fraction_bits(arrays: Iterable[Floats], storage_bits: int) -> int:
    """The largest b, 0 to 30, at which no value of any array saturates; 0 where there is none.

    Args:
        arrays: Finite floats.
        storage_bits: Bits of the signed integers: 8, 16 or 32.
    """
    limits = [(float(array.min()), float(array.max())) for array in arrays if array.size]
    lowest, highest = min((low for low, _ in limits), default=0.0), max((high for _, high in limits), default=0.0)
    low, high = _limits(storage_bits)
    for bits in range(MOST_FRACTION_BITS, 0, -1):
        if np.rint(lowest * 2.0**bits) >= low and np.rint(highest * 2.0**bits) <= high:
            return bits
    return 0


def snr_db(parts: Iterable[Fixed]) -> float | None:
    """Signal-to-noise ratio in decibels over several arrays; None where nothing was lost, or all is 0."""
    found = list(parts)
    signal, noise = sum(part.squared_signal for part in found), sum(part.squared_error for part in found)
    return 10 * float(np.log10(signal / noise)) if noise > 0 and signal > 0 else None


def _limits(storage_bits: int) -> tuple[int, int]:
    return -(1 << (storage_bits - 1)), (1 << (storage_bits - 1)) - 1
