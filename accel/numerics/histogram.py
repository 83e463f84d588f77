"""Histograms of activations that grow, and can be merged."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

_HALF = 4096
"""Bins on each side of 0."""
_SMALLEST_BOUND = 2.0**-100


@dataclass(slots=True)
class Histogram:
    """Counts of values in equal bins over [-bound, bound], with the exact extremes.

    The bound is a power of two, and doubles when a larger value comes, two bins becoming one; so histograms of parts of the
    data, whatever their bounds, merge into the one that all of the data would have given. Zeros are counted apart: behind
    a Relu they are most of the values, and no scale makes an error there.
    """

    low: float = np.inf
    high: float = -np.inf
    zeros: int = 0
    bound: float = _SMALLEST_BOUND
    counts: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(2 * _HALF, np.int64))

    def add(self, values: npt.NDArray[np.floating]) -> None:
        """Count values; they must be finite."""
        if not values.size:
            return
        low, high = float(values.min()), float(values.max())
        self.extend(low, high)
        scaled = values.ravel() * np.float64(_HALF / self.bound)
        np.floor(scaled, out=scaled)
        index = scaled.astype(np.int64)
        index += _HALF
        self.counts += np.bincount(index, minlength=2 * _HALF)
        zeros = int(values.size - np.count_nonzero(values))
        self.zeros += zeros
        self.counts[_HALF] -= zeros

    def extend(self, low: float, high: float) -> None:
        """Make room for values between two extremes, which count as seen."""
        self.low, self.high = min(self.low, low), max(self.high, high)
        if self.low > self.high:
            return  # nothing was seen
        largest = max(abs(self.low), abs(self.high))
        while self.bound <= largest:  # a value on the bound would be in another bin after the next doubling
            self._double()

    def _double(self) -> None:
        if not self.counts.any():
            self.bound *= 2
            return
        halved = self.counts.reshape(-1, 2).sum(1)
        self.counts = np.zeros(2 * _HALF, np.int64)
        self.counts[_HALF // 2 : _HALF + _HALF // 2] = halved
        self.bound *= 2

    def merge(self, other: Histogram) -> None:
        """Take in what another has counted."""
        theirs = Histogram(other.low, other.high, other.zeros, other.bound, other.counts.copy())
        self.extend(theirs.low, theirs.high)
        while theirs.bound < self.bound:
            theirs._double()
        while self.bound < theirs.bound:
            self._double()
        self.counts += theirs.counts
        self.zeros += theirs.zeros

    @property
    def total(self) -> int:
        """Values that were counted."""
        return int(self.counts.sum()) + self.zeros

    def density(self) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Centres and counts of the bins between the extremes, the zeros left out."""
        width = self.bound / _HALF
        first = int(np.clip(np.floor(self.low / width) + _HALF, 0, 2 * _HALF - 1))
        last = int(np.clip(np.floor(self.high / width) + _HALF, 0, 2 * _HALF - 1)) + 1
        centres = (np.arange(first, last) - _HALF + 0.5) * width
        return np.clip(centres, self.low, self.high), self.counts[first:last].astype(np.float64)
