"""Integers in place of floats: scale, zero point, and the way there and back.

``real = (integer - zero_point) * scale``, as QuantizeLinear and DequantizeLinear of ONNX define it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.floating]
Float32 = npt.NDArray[np.float32]
Integers = npt.NDArray[np.integer]

_Number = TypeVar("_Number", np.float32, np.int32)

_SMALLEST = float(np.finfo(np.float32).tiny)


@dataclass(frozen=True, slots=True)
class Scheme:
    """Which integers stand for the floats.

    A signed symmetric scheme leaves its lowest integer unused, so that a weight and its negative are equally exact.
    """

    bits: int = 8
    signed: bool = True
    symmetric: bool = True

    @property
    def low(self) -> int:
        """The smallest integer."""
        if not self.signed:
            return 0
        return -(1 << (self.bits - 1)) + (1 if self.symmetric else 0)

    @property
    def high(self) -> int:
        """The largest integer."""
        return (1 << (self.bits - (1 if self.signed else 0))) - 1

    @property
    def dtype(self) -> np.dtype[np.integer]:
        """The narrowest type of NumPy that holds the integers."""
        width = 8 if self.bits <= 8 else 16  # noqa: PLR2004  (a byte)
        return np.dtype(f"{'' if self.signed else 'u'}int{width}")


@dataclass(frozen=True, slots=True)
class Granularity:
    """What shares a scale: all of a tensor, each index of an axis (a channel), or each block along an axis.

    As in ONNX: with ``block``, ``axis`` is the axis that is cut, and every other index has scales of its own.
    """

    axis: int | None = None
    block: int | None = None


PER_TENSOR = Granularity()
ACTIVATIONS = Scheme(8, signed=False, symmetric=False)
"""Unsigned activations are what the kernels of x86-64 multiply fastest, and what every runtime loads."""
WIDE = Scheme(16, signed=False, symmetric=False)
"""Activations where 8 bits are too few; hardware with 16-bit integers has them, processors compute in float."""
WEIGHTS = Scheme(8, signed=True, symmetric=True)


@dataclass(frozen=True, slots=True)
class Parameters:
    """Scales and zero points of a tensor: shape () per tensor, [channels], or [..., blocks, ...]."""

    scale: Float32
    zero_point: npt.NDArray[np.int32]


def extremes(array: Floats, granularity: Granularity = PER_TENSOR) -> tuple[Floats, Floats]:
    """The lowest and the highest value of each group that shares a scale; 0 for groups without values."""
    if granularity.axis is None:
        return (
            np.asarray(array.min(initial=np.inf) if array.size else array.dtype.type(0)),
            np.asarray(array.max(initial=-np.inf) if array.size else array.dtype.type(0)),
        )
    axis = granularity.axis % array.ndim
    if granularity.block is None:
        others = tuple(a for a in range(array.ndim) if a != axis)
        if not array.size:
            empty = np.zeros(array.shape[axis], array.dtype)
            return empty, empty
        return array.min(others), array.max(others)
    starts = np.arange(0, array.shape[axis], granularity.block)
    if not array.size:
        shape = [len(starts) if a == axis else size for a, size in enumerate(array.shape)]
        return np.zeros(shape, array.dtype), np.zeros(shape, array.dtype)
    return np.minimum.reduceat(array, starts, axis), np.maximum.reduceat(array, starts, axis)


def parameters(low: npt.ArrayLike, high: npt.ArrayLike, scheme: Scheme) -> Parameters:
    """Scales and zero points that cover ranges; 0 is always covered, and always exact.

    Args:
        low: Lowest values, one for each group.
        high: Highest values, of the same shape.
        scheme: The integers to map to.
    """
    lows = np.minimum(np.asarray(low, np.float64), 0.0)
    highs = np.maximum(np.asarray(high, np.float64), 0.0)
    if scheme.symmetric:
        middle = 0 if scheme.signed else 1 << (scheme.bits - 1)
        scale = np.maximum(highs, -lows) / max(scheme.high - middle, 1)
        zero_point = np.full(scale.shape, middle, np.int32)
    else:
        scale = (highs - lows) / (scheme.high - scheme.low)
        safe = np.maximum(scale, _SMALLEST)
        zero_point = np.clip(np.rint(scheme.low - lows / safe), scheme.low, scheme.high).astype(np.int32)
    # A group of zeros has no scale of its own; 1 keeps it exact, and no runtime divides by 0.
    scale = np.where(scale == 0, 1.0, np.maximum(scale, _SMALLEST))
    return Parameters(scale.astype(np.float32), zero_point)


def quantize(array: Floats, given: Parameters, scheme: Scheme, granularity: Granularity = PER_TENSOR) -> Integers:
    """Round to the nearest integer, ties to even, and saturate.

    Returns:
        Integers of the scheme's dtype and the array's shape.
    """
    # Divided in float32, as runtimes do it: a quotient next to a tie must round to the same side.
    with np.errstate(over="ignore"):
        steps = np.rint(array.astype(np.float32, copy=False) / spread(given.scale, array.shape, granularity))
    integers = steps + spread(given.zero_point, array.shape, granularity)
    return np.asarray(np.clip(integers, scheme.low, scheme.high).astype(scheme.dtype))


def dequantize(integers: Integers, given: Parameters, granularity: Granularity = PER_TENSOR) -> Float32:
    """The floats that integers stand for."""
    steps: npt.NDArray[np.int32] = integers.astype(np.int32) - spread(given.zero_point, integers.shape, granularity)
    floats: Float32 = steps.astype(np.float32) * spread(given.scale, integers.shape, granularity)
    return floats


def quantize_tensor(
    array: Floats, scheme: Scheme, granularity: Granularity = PER_TENSOR
) -> tuple[Integers, Parameters]:
    """Quantize by the extremes of the values themselves, as weights are."""
    found = parameters(*extremes(array, granularity), scheme)
    return quantize(array, found, scheme, granularity), found


def spread(part: npt.NDArray[_Number], shape: tuple[int, ...], granularity: Granularity) -> npt.NDArray[_Number]:
    """One value for each group, made to broadcast against the tensor."""
    if granularity.axis is None or part.ndim == 0:
        return part
    axis = granularity.axis % len(shape)
    if granularity.block is None:
        return part.reshape([-1 if a == axis else 1 for a in range(len(shape))])
    return np.repeat(part, granularity.block, axis)[tuple(slice(size) for size in shape)]


def noise_db(reference: Floats, other: Floats) -> float | None:
    """Signal-to-noise ratio in decibels: 10 log10(sum x^2 / sum (x - y)^2); None where they are equal or all is 0."""
    signal = float(np.square(reference, dtype=np.float64).sum())
    noise = float(np.square(reference.astype(np.float64) - other).sum())
    return 10 * float(np.log10(signal / noise)) if noise > 0 and signal > 0 else None
