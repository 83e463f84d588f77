"""Intervals and tests for counts of samples that are right, on paired samples."""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from accel.report import Estimate

Bools = npt.NDArray[np.bool_]

_CLOSE = 1e-12
"""How near an end of an interval that is searched for is found."""


def wilson(hits: int, n: int, confidence: float = 0.95) -> Estimate:
    """A share with Wilson's score interval (J. Am. Stat. Assoc. 22, 1927)."""
    share, z = hits / n, _z(confidence)
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return Estimate(value=share, low=max(0.0, centre - half), high=min(1.0, centre + half))


def paired_drop(baseline: Bools, model: Bools, confidence: float = 0.95) -> Estimate:
    """Share right of the baseline minus that of the model, on the same samples.

    The interval holds that of Bonett and Price (J. Educ. Behav. Stat. 37, 2012), which stays honest where few or no samples
    differ, and the score interval of Tango (Stat. Med. 17, 1998), which does so where nearly all that differ are lost: there the
    first alone, when it is to be 95 % sure, is wrong in up to 9 % of all cases.
    """
    n = len(baseline)
    lost, won = int((baseline & ~model).sum()), int((~baseline & model).sum())
    p, q, z = (lost + 1) / (n + 2), (won + 1) / (n + 2), _z(confidence)
    half = z * math.sqrt((p + q - (p - q) ** 2) / (n + 2))
    return Estimate(
        value=(lost - won) / n,
        low=max(-1.0, min(p - q - half, -_highest(won, lost, n, z))),
        high=min(1.0, max(p - q + half, _highest(lost, won, n, z))),
    )


def _highest(lost: int, won: int, n: int, z: float) -> float:
    """The upper end of Tango's interval: the largest drop that the counts do not refute."""
    low, high = (lost - won) / n, 1.0
    while high - low > _CLOSE:
        drop = (low + high) / 2
        # The most likely share won, if the drop were this.
        b = (2 * n - lost + won) * drop - lost - won
        share = (math.sqrt(b * b + 8 * n * won * drop * (1 - drop)) - b) / (4 * n)
        if n * drop - (lost - won) <= z * math.sqrt(n * max(0.0, 2 * share + drop * (1 - drop))):
            low = drop
        else:
            high = drop
    return high


def mcnemar(lost: int, won: int) -> float:
    """Exact two-sided McNemar test that samples are as likely lost as won (Psychometrika 12, 1947)."""
    n, k = lost + won, min(lost, won)
    if n == 0:
        return 1.0
    logs = [math.lgamma(n + 1) - math.lgamma(i + 1) - math.lgamma(n - i + 1) - n * math.log(2) for i in range(k + 1)]
    return min(1.0, 2 * math.fsum(map(math.exp, logs)))


def _z(confidence: float) -> float:
    return NormalDist().inv_cdf((1 + confidence) / 2)
