"""Intervals by resampling: what a metric might have been, had other samples, or other groups of them, been drawn."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from accel.report import Estimate

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Weights = npt.NDArray[np.float64]
"""[samples, draws]: how often each sample counts in each draw."""
Draw = Callable[[slice, slice], Weights]
"""The weights of some samples in some draws."""

FEWEST = 10
"""Below so many samples or groups there is no interval: of so few the draws tell nothing."""
AT_ONCE = 1 << 16
"""Samples that are taken in at a time, at most."""
_DRAWS = 1000
_FEWEST_DRAWS = 100
_DRAWN = 50_000_000
"""Samples drawn in all, at most: fewer draws for very large sets, whose intervals are narrow anyway."""
_WORK = 400_000_000
"""The same for metrics that look at each sample several times."""
_BLOCK = 1 << 18
"""Weights in memory at a time."""
_SUMS = 1 << 21
"""Sums in memory at a time."""
_JACKKNIFE = 100
"""Parts that are left out, one at a time, to see how skewed a metric is."""

_NORMAL = NormalDist()


@dataclass(frozen=True, slots=True)
class Statistic:
    """A metric of some samples, each of which may count several times or not at all: a function of sums over samples.

    Since sums are added up some samples at a time, memory does not grow with the samples.
    """

    value: float
    """Of every sample once."""
    sums: Callable[[slice, Weights], Floats]
    """Of some samples with their weights [rows, draws]: the weighted sums [width, draws]."""
    of: Callable[[Floats, Floats], Floats]
    """Of the sums over all samples [width, draws] and the total weight [draws]: the metric of each draw [draws], NaN where it is none."""
    width: int = 1
    """How many sums there are."""
    at_once: int | None = AT_ONCE
    """Samples that are taken in at a time, at most; None where sums are of nothing but all of them, as those of ranks."""
    work: int = 1
    """How many times each sample is looked at for a draw."""
    rarest: int | None = None
    """Samples of the rarest class, where each class counts the same however rare it is."""

    def weighted(self, weights: Weights) -> Floats:
        """Of all samples, weighted [samples, draws]: the metric of each draw [draws]."""
        return self.of(self.sums(slice(0, len(weights)), weights), weights.sum(0))

    def once(self, n: int) -> tuple[Floats, float]:
        """The sums of all of ``n`` samples, each once [width], and the metric of them."""
        sums, total = _summed(self, n, slice(0, 1), AT_ONCE, lambda rows, _: np.ones((rows.stop - rows.start, 1)))
        return sums[:, 0], float(self.of(sums, total)[0])

    def minus(self, other: Statistic) -> Statistic:
        """The difference of two metrics of the same samples."""
        width, limits = self.width, [size for size in (self.at_once, other.at_once) if size is not None]
        rarest = [size for size in (self.rarest, other.rarest) if size is not None]
        return Statistic(
            self.value - other.value,
            lambda rows, weights: np.concatenate([self.sums(rows, weights), other.sums(rows, weights)]),
            lambda sums, total: self.of(sums[:width], total) - other.of(sums[width:], total),
            width + other.width,
            min(limits) if len(limits) == 2 else None,  # noqa: PLR2004  (one that needs all samples makes both need them)
            self.work + other.work,
            min(rarest) if rarest else None,
        )

    def times(self, factor: float) -> Statistic:
        """A multiple of the metric."""
        return Statistic(
            factor * self.value,
            self.sums,
            lambda sums, total: factor * self.of(sums, total),
            self.width,
            self.at_once,
            self.work,
            self.rarest,
        )


def mean(marks: npt.NDArray[np.bool_] | Floats) -> Statistic:
    """The mean of what each sample [samples] adds."""
    return Statistic(
        float(np.mean(marks, dtype=np.float64)),
        lambda rows, weights: (marks[rows].astype(np.float64) @ weights)[None],
        lambda sums, total: ratio(sums[0], total),
    )


def each_added_up(rows: Iterable[Floats], weights: Weights) -> Floats:
    """Weighted sums of some numbers of each sample: series of numbers [rows] in, [series, draws] out.

    One by one: a product of matrices would call threads of the BLAS for a few rows, which wait for each other on a busy host.
    """
    return np.stack([row @ weights for row in rows])


def added_up(numbers: npt.NDArray[np.generic], places: npt.NDArray[np.integer], size: int, weights: Weights) -> Floats:
    """Weighted sums of numbers by their places: each sample has one number [rows] and one place [rows] of ``size``; [size, draws]."""
    from scipy.sparse import csc_array

    by_place = csc_array((numbers.astype(np.float64), places, np.arange(len(places) + 1)), shape=(size, len(places)))
    return np.asarray(by_place @ weights)


def ratio(part: Floats, whole: Floats) -> Floats:
    """One over the other; NaN where the other is 0."""
    return np.asarray(np.divide(part, whole, out=np.full(np.shape(part), np.nan), where=whole != 0))


def bootstrap(
    statistic: Statistic, n: int, *, seed: int, confidence: float = 0.95, groups: Ints | None = None
) -> Estimate:
    """Bootstrap of a metric: the hull of the BCa interval and of the normal one with the draws' standard error.

    The first (bias-corrected and accelerated; Efron, J. Am. Stat. Assoc. 82, 1987) follows skewed metrics; of few samples it is too
    narrow on the side that it moves away from, which the second holds.

    Args:
        statistic: The metric.
        n: Number of samples.
        seed: Seed of the draws.
        confidence: How sure the interval is.
        groups: Number of each sample's group [samples]: groups are drawn then, each with all of its samples (the cluster bootstrap;
            Davison and Hinkley, Bootstrap Methods and their Application, 1997, section 3.8).
    """
    units = n if groups is None else int(groups.max(initial=-1)) + 1
    if units < FEWEST:
        return Estimate(value=statistic.value)
    draws = max(_FEWEST_DRAWS, min(_DRAWS, _DRAWN // n, _WORK // (n * statistic.work)))
    values = _finite(statistic, n, draws, _drawn(units, seed, groups))
    if not len(values):
        return Estimate(value=statistic.value)
    below = (np.sum(values < statistic.value) + np.sum(values == statistic.value) / 2) / len(values)
    bias = _NORMAL.inv_cdf(min(max(float(below), 0.5 / draws), 1 - 0.5 / draws))
    skew = _acceleration(_finite(statistic, n, min(units, _JACKKNIFE), _left_out(units, seed, groups)))
    z = _wide_enough(
        _NORMAL.inv_cdf((1 + confidence) / 2), units if statistic.rarest is None else min(units, statistic.rarest)
    )
    low, high = np.quantile(values, [_level(end, bias, skew) for end in (-z, z)])
    reach = z * float(values.std())
    return Estimate(
        value=statistic.value,
        low=min(float(low), statistic.value - reach),
        high=max(float(high), statistic.value + reach),
    )


def _wide_enough(z: float, units: int) -> float:
    """A normal quantile as that of Student's t, and as draws of few units need it, whose spread is too narrow.

    Sources: Hesterberg, Am. Stat. 69, 2015, section 4.5 (the expanded percentile interval); Abramowitz and Stegun, 26.7.5.
    """
    units = max(units, FEWEST)
    freedom = units - 1
    student = z + (z**3 + z) / (4 * freedom) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * freedom**2)
    return student * math.sqrt(units / freedom)


def _level(z: float, bias: float, skew: float) -> float:
    """The share of draws below an end of the interval."""
    reach = bias + z
    return _NORMAL.cdf(bias + reach / max(1 - skew * reach, 1e-3))


def _acceleration(without: Floats) -> float:
    """How fast the metric's error changes with the metric, from its values when parts are left out."""
    away = without.mean() - without if len(without) else without
    squares = float((away**2).sum())
    return float((away**3).sum()) / (6 * squares**1.5) if squares > 0 else 0.0


def _finite(statistic: Statistic, n: int, draws: int, draw: Draw) -> Floats:
    """The metric of each draw in which it is a number."""
    values = np.concatenate(list(_values(statistic, n, draws, draw)))
    return np.asarray(values[np.isfinite(values)])


def _values(statistic: Statistic, n: int, draws: int, draw: Draw) -> Iterator[Floats]:
    together = max(1, min(draws, _SUMS // statistic.width, _BLOCK if statistic.at_once else _BLOCK // n))
    for first in range(0, draws, together):
        these = slice(first, min(first + together, draws))
        yield statistic.of(*_summed(statistic, n, these, _BLOCK // together, draw))


def _summed(statistic: Statistic, n: int, draws: slice, rows: int, draw: Draw) -> tuple[Floats, Floats]:
    """The sums over all samples [width, draws], so many rows at a time, and the total weights [draws]."""
    size = n if statistic.at_once is None else max(1, min(n, statistic.at_once, rows))
    sums, total = np.zeros((statistic.width, draws.stop - draws.start)), np.zeros(draws.stop - draws.start)
    for start in range(0, n, size):
        here = slice(start, min(start + size, n))
        weights = draw(here, draws)
        sums += statistic.sums(here, weights)
        total += weights.sum(0)
    return sums, total


def _drawn(units: int, seed: int, groups: Ints | None) -> Draw:
    """Draw units with replacement.

    Of very many samples how often each counts is drawn by itself, which is nearly the same and need not be kept (the Poisson
    bootstrap; Chamandy et al., Estimating Uncertainty for Massive Data Streams, 2012).
    """
    if groups is None and units > _DRAWN // _DRAWS:
        times = _poisson()

        def drawn(rows: slice, draws: slice) -> Weights:
            chance = np.random.default_rng([seed, rows.start, draws.start])
            shape = (rows.stop - rows.start, draws.stop - draws.start)
            return np.asarray(times[chance.integers(0, len(times), shape, np.uint16)])

        return drawn
    counts = _counts(units, seed)
    return lambda rows, draws: counts[draws, rows if groups is None else groups[rows]].T.astype(np.float64, order="C")


@lru_cache(maxsize=1)
def _counts(units: int, seed: int) -> npt.NDArray[np.uint8]:
    """How often each unit is drawn [draws, units]: the same for every metric, so that they are drawn once."""
    chance = np.random.default_rng(seed)
    draws = max(_FEWEST_DRAWS, min(_DRAWS, _DRAWN // units))
    counts = np.empty((draws, units), np.uint8)
    for row in counts:
        row[:] = np.bincount(chance.integers(0, units, units), minlength=units)
    return counts


def _poisson() -> Weights:
    """As many entries of each number as it is likely to be drawn, of 65,536."""
    entries = 1 << 16
    chances = np.cumsum([math.exp(-1) / math.factorial(times) for times in range(10)])
    return np.searchsorted(chances, (np.arange(entries) + 0.5) / entries).astype(np.float64)


def _left_out(units: int, seed: int, groups: Ints | None) -> Draw:
    """Every unit once but those of one part, for each part; parts are drawn by lot."""
    parts = min(units, _JACKKNIFE)
    part = (np.random.default_rng([seed, 1]).permutation(units) % parts).astype(np.uint8)
    numbers = np.arange(parts)
    return lambda rows, draws: (part[rows if groups is None else groups[rows]][:, None] != numbers[draws]).astype(
        np.float64
    )
