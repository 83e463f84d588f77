"""The arithmetic of corruptions. An array here is a batch of a column as it is stored: its first axis is the rows.

Kinds and severities of images are those of Hendrycks and Dietterich, Benchmarking Neural Network Robustness to Common Corruptions
and Perturbations (ICLR 2019): of their ImageNet-C, and for images of fewer than 64 pixels a side of their CIFAR-10-C. Occlusion is
the cutout of DeVries and Taylor (arXiv 1708.04552).
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import assert_never

import numpy as np
import numpy.typing as npt

from accel.data.corruption import Corruption, CorruptionName

Array = npt.NDArray[np.generic]
Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

_SMALL_SIDE = 64
_NOISE = (0.08, 0.12, 0.18, 0.26, 0.38)
_NOISE_SMALL = (0.04, 0.06, 0.08, 0.09, 0.10)
"""Standard deviation, as a share of the range."""
_BLUR = (1.0, 2.0, 3.0, 4.0, 6.0)
_BLUR_SMALL = (0.4, 0.6, 0.7, 0.8, 1.0)
"""Standard deviation of the kernel in pixels, for images of 224 pixels a side and for small ones."""
_BLUR_SIDE = 224
_BRIGHTNESS = (0.1, 0.2, 0.3, 0.4, 0.5)
_BRIGHTNESS_SMALL = (0.05, 0.1, 0.15, 0.2, 0.3)
"""What is added, as a share of the range."""
_OCCLUSION = (0.2, 0.3, 0.4, 0.5, 0.6)
"""Side of the square, as a share of the image's smaller side."""
_SNR_DB = (30.0, 20.0, 15.0, 10.0, 5.0)
"""Power of the split's signal over that of the noise."""
_MISSING = (0.05, 0.1, 0.2, 0.3, 0.5)
"""Share of the values."""
_CHANNELS = 4
"""A last axis of so many entries at most is one of channels."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What a corruption must know of all rows of a column."""

    low: float = 0.0
    high: float = 0.0
    """The least and the largest value."""
    power: float = 0.0
    """Mean square."""
    mean: Floats | None = None
    """Mean of each value of a row."""


@dataclass(frozen=True, slots=True)
class Damage:
    """A corruption of one column. What happens to a row depends on its number and the seed, not on the rows beside it."""

    corruption: Corruption
    seed: int
    column: str
    facts: Facts

    def apply(self, batch: Array, numbers: Ints) -> Array:
        """Corrupt some rows; the element type stays.

        Args:
            batch: The rows.
            numbers: The number of each in its column.
        """
        name: CorruptionName = self.corruption.corruption
        values = batch.astype(np.float64)
        match name:
            case "gaussian_noise":
                values += self._noise(batch, numbers) * (self._share(_NOISE, _NOISE_SMALL, batch) * self._range)
                return _like(np.clip(values, self.facts.low, self.facts.high), batch)
            case "brightness":
                values += self._share(_BRIGHTNESS, _BRIGHTNESS_SMALL, batch) * self._range
                return _like(np.clip(values, self.facts.low, self.facts.high), batch)
            case "blur":
                return _like(_blurred(values, self._level), batch)
            case "occlusion":
                return self._occluded(batch, numbers)
            case "audio_noise":
                loudness = (self.facts.power * 10 ** (-_SNR_DB[self._level] / 10)) ** 0.5
                return _like(values + self._noise(batch, numbers) * loudness, batch)
            case "missing":
                return self._without(batch, numbers)
            case _:
                assert_never(name)

    @property
    def _level(self) -> int:
        return self.corruption.severity - 1

    @property
    def _range(self) -> float:
        return self.facts.high - self.facts.low

    def _share(self, large: tuple[float, ...], small: tuple[float, ...], batch: Array) -> float:
        return (small if _smaller_side(batch) < _SMALL_SIDE else large)[self._level]

    def _chances(self, numbers: Ints) -> Iterator[np.random.Generator]:
        """A generator for each row. Severities draw the same, so that they differ in nothing but strength."""
        place = zlib.crc32(f"{self.corruption.corruption} {self.column}".encode())
        for number in numbers:
            yield np.random.default_rng((self.seed, place, int(number)))

    def _noise(self, batch: Array, numbers: Ints) -> npt.NDArray[np.float32]:
        noise = np.empty(batch.shape, np.float32)
        for row, chance in zip(noise, self._chances(numbers), strict=True):
            chance.standard_normal(dtype=np.float32, out=row)
        return noise

    def _occluded(self, batch: Array, numbers: Ints) -> Array:
        found = batch.copy()
        down, across = spatial(batch.shape[1:])
        side = max(1, round(_OCCLUSION[self._level] * _smaller_side(batch)))
        middle = _like(np.asarray((self.facts.low + self.facts.high) / 2), batch)
        for row, chance in zip(found, self._chances(numbers), strict=True):
            place: list[slice] = [slice(None)] * row.ndim
            for axis in (down - 1, across - 1):
                start = int(chance.integers(0, row.shape[axis] - side + 1))
                place[axis] = slice(start, start + side)
            row[tuple(place)] = middle
        return found

    def _without(self, batch: Array, numbers: Ints) -> Array:
        if self.facts.mean is None:
            raise ValueError("missing values are replaced by means")
        gone = np.empty(batch.shape, np.bool_)
        for row, chance in enumerate(self._chances(numbers)):
            gone[row] = chance.random(batch.shape[1:]) < _MISSING[self._level]
        return np.where(gone, _like(self.facts.mean, batch), batch)


def spatial(shape: tuple[int, ...]) -> tuple[int, int]:
    """The two axes of an image in a batch of rows of a shape: the last two, or those before the channels where these come last."""
    last = len(shape)
    if len(shape) > 2 and shape[-1] <= _CHANNELS < shape[-2]:  # noqa: PLR2004  (rows, columns and channels)
        last -= 1
    return last - 1, last


def _smaller_side(batch: Array) -> int:
    return min(int(batch.shape[axis]) for axis in spatial(batch.shape[1:]))


def _blurred(batch: Floats, level: int) -> Floats:
    from scipy import ndimage

    sigma = max(_BLUR[level] * _smaller_side(batch) / _BLUR_SIDE, _BLUR_SMALL[level])
    axes = spatial(batch.shape[1:])
    return np.asarray(ndimage.gaussian_filter(batch, [sigma if axis in axes else 0 for axis in range(batch.ndim)]))


def _like(found: Floats, batch: Array) -> Array:
    """In the element type of the batch; whole numbers are rounded and stay within what the type holds."""
    if batch.dtype.kind == "f":
        return found.astype(batch.dtype)
    bounds = np.iinfo(batch.dtype.str)
    return np.asarray(np.clip(np.rint(found), bounds.min, bounds.max).astype(batch.dtype))
