"""Choose the range of an activation: what lies outside saturates, what lies inside is rounded."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, assert_never

import numpy as np
import numpy.typing as npt

from accel.numerics.histogram import Histogram
from accel.numerics.scales import Scheme

Method = Literal["minmax", "moving_average", "percentile", "entropy", "mse"]
Range = tuple[float, float]

_CANDIDATES = {"entropy": 10, "mse": 24}
"""Bounds that are tried on each side, and as many again around the best; the squared error costs next to nothing."""
_SHORTEST = 0.15
"""Share of an extreme that a range with the least squared error keeps at least."""
_KEPT = 99.99
"""Share of the values in percent that the entropy's range keeps at least."""


def choose(
    histogram: Histogram, method: Method, scheme: Scheme, *, percentile: float = 99.999, average: Range | None = None
) -> Range:
    """The range for what was counted.

    Args:
        histogram: Values of the activation.
        method: ``minmax`` takes the extremes, ``moving_average`` those smoothed over batches, ``percentile`` the middle
            share of the values, ``entropy`` the range whose integers keep most of the distribution (Kullback-Leibler
            divergence, as TensorRT does it), ``mse`` the one with the smallest mean squared error.
        scheme: The integers of the activation.
        percentile: Share of values in percent that ``percentile`` keeps.
        average: The smoothed extremes.
    """
    low, high = min(histogram.low, 0.0), max(histogram.high, 0.0)
    if not np.isfinite(low) or not np.isfinite(high):
        return 0.0, 0.0
    match method:
        case "minmax":
            return low, high
        case "moving_average":
            return (low, high) if average is None else (min(average[0], 0.0), max(average[1], 0.0))
        case "percentile":
            return _percentile(histogram, low, high, percentile)
        case "entropy":
            # The divergence hardly minds what saturates: without a floor it cuts off what small networks live by.
            floor = _percentile(histogram, low, high, _KEPT)
            return _searched(histogram, low, high, scheme, _divergence, floor, _CANDIDATES["entropy"])
        case "mse":
            return _searched(
                histogram,
                low,
                high,
                scheme,
                _squared_error,
                (low * _SHORTEST, high * _SHORTEST),
                _CANDIDATES["mse"],
            )
        case _:
            assert_never(method)


def _percentile(histogram: Histogram, low: float, high: float, percentile: float) -> Range:
    centres, counts = histogram.density()
    cut = (100 - percentile) / 200 * histogram.total
    zeros = np.searchsorted(centres, 0.0)
    counts = np.insert(counts, zeros, histogram.zeros)
    centres = np.insert(centres, zeros, 0.0)
    summed = np.cumsum(counts)
    # A range beyond the extremes keeps nothing more.
    first, last = np.searchsorted(summed, cut, "right"), np.searchsorted(summed, summed[-1] - cut, "left")
    kept = centres[[min(first, len(centres) - 1), min(last, len(centres) - 1)]]
    return max(low, min(float(kept[0]), 0.0)), min(high, max(float(kept[1]), 0.0))


class _Given:
    """What the search for a range minimises."""

    def __init__(self, histogram: Histogram, scheme: Scheme) -> None:
        self.centres, self.counts = histogram.density()
        self.levels = scheme.high - scheme.low
        self.symmetric = scheme.symmetric
        zero = np.zeros(1)
        self.mass = np.concatenate([zero, np.cumsum(self.counts)])
        self.first = np.concatenate([zero, np.cumsum(self.counts * self.centres)])
        self.second = np.concatenate([zero, np.cumsum(self.counts * self.centres**2)])

    def step(self, low: float, high: float) -> float:
        """The distance between neighbouring integers."""
        return (2 * max(-low, high) if self.symmetric else high - low) / self.levels


Cost = Callable[[_Given, float, float], float]


def _searched(
    histogram: Histogram, low: float, high: float, scheme: Scheme, cost: Cost, floor: Range, trials: int
) -> Range:
    """Shorten one side, then the other, and the first again, keeping what costs least; not within the floor."""
    if low == high or not histogram.counts.any():
        return low, high
    given = _Given(histogram, scheme)
    if scheme.symmetric:
        best = _least(lambda bound: cost(given, -bound, bound), max(-low, high), max(-floor[0], floor[1]), trials)
        return max(low, -best), min(high, best)
    chosen = [low, high]
    for side in (1, 0, 1):
        if (low, high)[side] != 0.0:
            chosen[side] = _least(
                lambda bound, side=side: cost(given, *((chosen[0], bound) if side else (bound, chosen[1]))),  # type: ignore[misc]
                (low, high)[side],
                floor[side],
                trials,
            )
    return chosen[0], chosen[1]


def _least(cost: Callable[[float], float], widest: float, floor: float, trials: int) -> float:
    """The bound that costs least: of some at even distances, then of as many around the best of them."""
    coarse = np.linspace(widest, floor, trials)  # of equals, the widest
    best = int(np.argmin([cost(float(bound)) for bound in coarse]))
    around = coarse[max(best - 1, 0)], coarse[min(best + 1, trials - 1)]
    fine = np.array([coarse[best], *np.linspace(*around, trials)])
    return float(fine[int(np.argmin([cost(float(bound)) for bound in fine]))])


def _squared_error(given: _Given, low: float, high: float) -> float:
    """Sum of squared errors: a step's square by 12 for what is rounded, the distance to the bound for what saturates."""
    step = given.step(low, high)
    a, b = np.searchsorted(given.centres, [low, high])
    inside = given.mass[b] - given.mass[a]
    below = given.second[a] - 2 * low * given.first[a] + low**2 * given.mass[a]
    total, first, second = (
        given.mass[-1] - given.mass[b],
        given.first[-1] - given.first[b],
        given.second[-1] - given.second[b],
    )
    above = second - 2 * high * first + high**2 * total
    return float(inside * step**2 / 12 + below + above)


def _divergence(given: _Given, low: float, high: float) -> float:
    """Kullback-Leibler divergence between the clipped distribution and its integers' one (Migacz, GTC 2017)."""
    a, b = int(np.searchsorted(given.centres, low)), int(np.searchsorted(given.centres, high, "right"))
    if b - a < 2:  # noqa: PLR2004  (one bin has no distribution)
        return np.inf
    inside = given.counts[a:b]
    reference = inside.copy()
    reference[0] += given.mass[a]
    reference[-1] += given.mass[-1] - given.mass[b]
    levels = min(given.levels + 1, b - a)
    edges = np.linspace(0, b - a, levels + 1).astype(np.int64)[:-1]
    occupied = inside > 0
    sums = np.add.reduceat(inside, edges)
    bins = np.add.reduceat(occupied, edges, dtype=np.int64)
    lengths = np.diff(np.append(edges, b - a))
    spread = np.repeat(sums / np.maximum(bins, 1), lengths) * occupied
    return _kl(reference, spread)


def _kl(reference: npt.NDArray[np.float64], other: npt.NDArray[np.float64]) -> float:
    """With a little mass everywhere that the reference has some; what saturates is missing in the other one."""
    seen = reference > 0
    p = reference[seen] / reference.sum()
    q = other[seen] / reference.sum() + 1e-4 / max(int(seen.sum()), 1)
    return float((p * np.log(p / q)).sum())
