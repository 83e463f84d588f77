"""Intervals and tests for quality, on paired samples."""

from __future__ import annotations

import math
from collections.abc import Callable
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from accel.report import Estimate

Bools = npt.NDArray[np.bool_]
Weights = npt.NDArray[np.float64]

_DRAWS = 1000
_DRAWN_ROWS = 50_000_000
"""Rows drawn in all, at most: fewer bootstrap draws for very large sets, whose intervals are narrow anyway."""


_FEWEST = 10


def wilson(hits: int, n: int, confidence: float = 0.95) -> Estimate:
    """A share with Wilson's score interval (J. Am. Stat. Assoc. 22, 1927)."""
    share, z = hits / n, _z(confidence)
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return Estimate(value=share, low=max(0.0, centre - half), high=min(1.0, centre + half))


def paired_drop(baseline: Bools, model: Bools, confidence: float = 0.95) -> Estimate:
    """Share right of the baseline minus that of the model, on the same samples.

    The interval is that of Bonett and Price (J. Educ. Behav. Stat. 37, 2012), which stays honest where few or no
    samples differ.
    """
    n = len(baseline)
    lost, won = int((baseline & ~model).sum()), int((~baseline & model).sum())
    p, q = (lost + 1) / (n + 2), (won + 1) / (n + 2)
    half = _z(confidence) * math.sqrt((p + q - (p - q) ** 2) / (n + 2))
    return Estimate(value=(lost - won) / n, low=max(-1.0, p - q - half), high=min(1.0, p - q + half))


def mcnemar(baseline: Bools, model: Bools) -> float:
    """Exact two-sided McNemar test that neither is right more often (Psychometrika 12, 1947)."""
    lost, won = int((baseline & ~model).sum()), int((~baseline & model).sum())
    n, k = lost + won, min(lost, won)
    if n == 0:
        return 1.0
    logs = [math.lgamma(n + 1) - math.lgamma(i + 1) - math.lgamma(n - i + 1) - n * math.log(2) for i in range(k + 1)]
    return min(1.0, 2 * math.fsum(map(math.exp, logs)))


def bootstrap(statistic: Callable[[Weights | None], float], n: int, *, seed: int, confidence: float = 0.95) -> Estimate:
    """Percentile bootstrap (Efron and Tibshirani, 1993) of a statistic that takes a weight for each sample.

    Below ten samples there is no interval: of so few the draws tell nothing.
    """
    if n < _FEWEST:
        return Estimate(value=statistic(None))
    chance = np.random.default_rng(seed)
    draws = max(100, min(_DRAWS, _DRAWN_ROWS // max(n, 1)))
    values = np.array(
        [statistic(np.bincount(chance.integers(0, n, n), minlength=n).astype(np.float64)) for _ in range(draws)]
    )
    values = values[np.isfinite(values)]
    if not len(values):
        return Estimate(value=statistic(None))
    tail = (1 - confidence) / 2
    low, high = np.quantile(values, [tail, 1 - tail])
    return Estimate(value=statistic(None), low=float(low), high=float(high))


def _z(confidence: float) -> float:
    return NormalDist().inv_cdf((1 + confidence) / 2)
