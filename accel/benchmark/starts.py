"""How many times a benchmark's processes are started, and what the starts together say.

A process keeps the state that it began in: where its memory lies and how its threads were placed can cost a model of two
threads a fifth of its speed until it ends. Rounds of one process therefore agree with each other more than they are right,
and the unit that is repeated is the start of a process.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from accel.report import Estimate

Floats = npt.NDArray[np.float64]
Stopped = Literal["precise", "budget", "fixed"]

PILOT = 10
"""Starts that tell the spread. From it follows how many are needed (Stein, Ann. Math. Stat. 16, 1945)."""
LEAST = 3
"""Starts below which they are too few for an interval of their own."""

_LEVEL = 0.99
"""Of the critical value. Few and trimmed starts, whose noise is neither quite normal nor quite independent (a host is restless
for seconds at a time), cover less than their nominal level; 98 % was measured to miss the truth in up to 7.5 % of benchmarks."""
_TRIMMED = 5
"""One in so many starts is left out at either end: one that a host disturbed must not decide."""
_TRIMMED_FROM = 7


@dataclass(frozen=True, slots=True)
class Length:
    """When a benchmark of one setting is long enough."""

    precision: float
    """Half the width of the intervals that is narrow enough, as a share."""
    budget_s: float
    asked: int | None
    """Starts that the caller wants instead."""
    least: int = LEAST
    pilot: int = PILOT

    def stopped(self, series: Sequence[Sequence[float]], done: int, spent_s: float) -> Stopped | None:
        """Why to stop after ``done`` starts that took ``spent_s``; None to go on.

        Args:
            series: For each candidate the logarithm of its figure in each start.
            done: Starts so far.
            spent_s: What they took.
        """
        if self.asked is not None and done >= self.asked:
            return "fixed"
        if self.asked is None and done >= self.pilot and all(self.is_precise(values) for values in series):
            return "precise"
        least = min(self.least, self.asked or self.least)
        if done >= least and spent_s * (done + 1) / done > self.budget_s:
            return "budget"
        return None

    def is_precise(self, values: Sequence[float]) -> bool:
        """Whether an interval is narrow enough."""
        return centre_of(values)[1] <= self.precision

    def planned(self, series: Sequence[Sequence[float]], done: int, spent_s: float) -> int:
        """How many starts it will be, as far as can be told."""
        if done == 0:
            return self.asked or self.pilot
        wanted = self.asked or max([self.pilot, *(starts_needed(values, self.precision) for values in series)])
        affordable = max(self.least, int(self.budget_s / (spent_s / done)))
        return max(done + 1, min(wanted, affordable))


def centre_of(values: Sequence[float]) -> tuple[float, float]:
    """Trimmed mean of one figure a start, and half the width of its interval.

    The error is that of Yuen (Biometrika 61, 1974). The spread is the pilot's or that of all starts, whichever is larger:
    the pilot's alone would be exact (Stein) if a host never became noisier later.

    Args:
        values: Logarithms, one a start.

    Returns:
        Both as logarithms; the half-width is infinite with fewer than three starts.
    """
    array = np.asarray(values, np.float64)
    centre, spread, freedom = _trimmed(array)
    if len(array) < LEAST:
        return centre, math.inf
    half = _critical(freedom) * spread
    if len(array) > PILOT:
        _, spread, freedom = _trimmed(array[:PILOT])
        half = max(half, _critical(freedom) * spread)
    return centre, half / math.sqrt(len(array))


def starts_needed(values: Sequence[float], precision: float) -> int:
    """How many starts make the half-width ``precision``, by the spread of the pilot."""
    pilot = np.asarray(values[:PILOT], np.float64)
    if len(pilot) < LEAST:
        return PILOT
    _, spread, freedom = _trimmed(pilot)
    return max(PILOT, math.ceil((_critical(freedom) * spread / precision) ** 2))


def _trimmed(array: Floats) -> tuple[float, float, int]:
    """Trimmed mean, the spread that one value has for it, and its degrees of freedom."""
    count = len(array)
    cut = count // _TRIMMED if count >= _TRIMMED_FROM else 0
    ordered, kept = np.sort(array), count - 2 * cut
    centre = float(ordered[cut : count - cut].mean())
    if kept < 2:  # noqa: PLR2004  (a spread needs two)
        return centre, math.inf, 1
    clipped = np.clip(ordered, ordered[cut], ordered[count - cut - 1])
    squares = float(((clipped - clipped.mean()) ** 2).sum())
    return centre, math.sqrt(squares * count / (kept * (kept - 1))), kept - 1


def _critical(freedom: int) -> float:
    return quantile_of_t((1 + _LEVEL) / 2, freedom)


@functools.cache
def quantile_of_t(share: float, freedom: int) -> float:
    """Quantile of Student's distribution."""
    from scipy.special import stdtrit  # scipy.stats takes half a second to import

    return float(stdtrit(freedom, share))


def ratio(logarithms: Sequence[float]) -> Estimate:
    """A ratio from its logarithm in each start; without an interval with fewer than three starts."""
    centre, half = centre_of(logarithms)
    if not math.isfinite(half):
        return Estimate(value=math.exp(centre))
    return Estimate(value=math.exp(centre), low=math.exp(centre - half), high=math.exp(centre + half))
