"""Statistics of latencies. Pure functions on samples in milliseconds."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from accel.report import Estimate, LatencySummary

Rounds = Sequence[Sequence[float]]

_DRAWS = 1000
_BEYOND = 10
"""A percentile needs so many samples beyond it, or it is one unlucky call."""
UNSTABLE = 0.05


def summarize(samples: Sequence[float]) -> LatencySummary:
    """Centre, spread and tails of the samples."""
    ordered = np.sort(np.asarray(samples, np.float64))
    median = float(np.median(ordered))
    return LatencySummary(
        count=len(ordered),
        mean=float(ordered.mean()),
        median=median,
        mad=float(np.median(np.abs(ordered - median))),
        minimum=float(ordered[0]),
        p90=percentile(ordered, 0.90),
        p95=percentile(ordered, 0.95),
        p99=percentile(ordered, 0.99),
    )


def percentile(ordered: Sequence[float] | np.ndarray, share: float) -> float | None:
    """The smallest sample that at least ``share`` of all do not exceed; None with fewer than ten beyond it."""
    if len(ordered) * (1 - share) < _BEYOND - 1e-9:
        return None
    return float(ordered[math.ceil(share * len(ordered)) - 1])


def speedup(baseline: Rounds, candidate: Rounds, *, seed: int, confidence: float = 0.95) -> Estimate:
    """Baseline's median over the candidate's, with a bootstrap interval.

    Whole rounds are drawn, the same for both: samples within a round share the state of the machine, so drawing single
    samples would make the interval too narrow (block bootstrap, Kuensch, Ann. Stat. 17, 1989).
    """
    pairs = [(np.asarray(b), np.asarray(c)) for b, c in zip(baseline, candidate, strict=False) if len(b) and len(c)]
    chance = np.random.default_rng(seed)
    ratios = []
    for _ in range(_DRAWS):
        drawn = [pairs[i] for i in chance.integers(0, len(pairs), len(pairs))]
        ratios.append(_ratio(drawn))
    tail = (1 - confidence) / 2
    low, high = np.quantile(ratios, [tail, 1 - tail])
    return Estimate(value=_ratio(pairs), low=float(low), high=float(high))


def _ratio(pairs: Sequence[tuple[np.ndarray, np.ndarray]]) -> float:
    first, second = zip(*pairs, strict=True)
    return float(np.median(np.concatenate(first)) / np.median(np.concatenate(second)))


def doubts(summary: LatencySummary, gain: Estimate | None, *, load: float | None, cores: int) -> tuple[str, ...]:
    """What makes a figure less than certain."""
    found = []
    if summary.mad > UNSTABLE * summary.median:
        found.append(f"Unstable: samples differ from their median by {summary.mad / summary.median:.0%} (MAD).")
    if gain is not None and gain.low is not None and gain.high is not None and gain.low <= 1 <= gain.high:
        found.append("No measurable difference from the baseline.")
    if load is not None and load > max(1.0, 0.75 * cores):
        found.append(f"The host was busy before the benchmark began (load {load:.1f} on {cores} cores).")
    return tuple(found)
