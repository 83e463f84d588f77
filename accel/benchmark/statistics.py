"""Statistics of latencies. Pure functions on samples in milliseconds."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from accel.benchmark.starts import quantile_of_t
from accel.report import Estimate, LatencySummary
from accel.report.benchmarking import Percentile

Floats = npt.NDArray[np.float64]
Rounds = Sequence[Sequence[float] | Floats]

_DRAWS = 400
_GRID = 4000
"""Places in the order of the samples that a bootstrapped percentile can have."""
BEYOND = 10
"""A percentile needs so many samples beyond it, or it is one unlucky call."""


def summarize(blocks: Rounds, *, seed: int) -> LatencySummary:
    """Centre, spread and tails of the samples, percentiles with 95 % intervals.

    Args:
        blocks: Samples of each start (of each round where there are fewer than three starts). Samples of a block share the
            state of the process, so that blocks are drawn, not samples (block bootstrap, Kuensch, Ann. Stat. 17, 1989).
        seed: Seed of the draws.
    """
    filled = [np.asarray(block, np.float64) for block in blocks if len(block)]
    samples = np.concatenate(filled)
    place = np.argsort(samples, kind="stable")
    ordered = samples[place]
    median = float(np.median(ordered))
    shares = (0.50, 0.90, 0.95, 0.99)
    values = [percentile(ordered, share) for share in shares]
    errors = _errors(ordered, np.repeat(np.arange(len(filled)), [len(b) for b in filled])[place], shares, seed)
    reach = quantile_of_t(0.975, max(1, len(filled) - 1))
    p50, p90, p95, p99 = (
        _percentile(value, reach * error, share) for share, value, error in zip(shares, values, errors, strict=True)
    )
    return LatencySummary(
        count=len(ordered),
        mean=float(ordered.mean()),
        median=median,
        mad=float(np.median(np.abs(ordered - median))),
        minimum=float(ordered[0]),
        p50=p50,
        p90=p90,
        p95=p95,
        p99=p99,
    )


def percentile(ordered: Sequence[float] | Floats, share: float) -> float | None:
    """The smallest sample that at least ``share`` of all do not exceed; None with fewer than ten beyond it."""
    if len(ordered) * (1 - share) < BEYOND - 1e-9:
        return None
    return float(ordered[math.ceil(share * len(ordered)) - 1])


def _percentile(value: float | None, half: float, share: float) -> Percentile:
    if value is None:
        return Percentile(value=None, samples_needed=math.ceil(BEYOND / (1 - share) - 1e-9))
    if not math.isfinite(half):
        return Percentile(value=value)
    return Percentile(value=value, low=value * math.exp(-half), high=value * math.exp(half))


def _errors(ordered: Floats, block: npt.NDArray[np.intp], shares: Sequence[float], seed: int) -> list[float]:
    """Standard error of the logarithm of each percentile, by drawing blocks; infinite where there is but one."""
    blocks = int(block.max()) + 1
    if blocks < 2:  # noqa: PLR2004
        return [math.inf] * len(shares)
    # How many samples of each block lie at or below each place of a grid: a draw is then one product.
    edges = np.unique(np.linspace(0, len(ordered) - 1, min(len(ordered), _GRID)).astype(np.intp))
    cell = np.searchsorted(edges, np.arange(len(ordered)))
    counts = np.zeros((blocks, len(edges)))
    np.add.at(counts, (block, cell), 1)
    below = counts.cumsum(1)
    chance = np.random.default_rng(seed)
    drawn = chance.multinomial(blocks, np.full(blocks, 1 / blocks), size=_DRAWS).astype(np.float64) @ below
    # A block too many is taken off the variance of blocks: n / (n - 1).
    widened = math.sqrt(blocks / (blocks - 1))
    errors = []
    for share in shares:
        reached = (drawn >= np.ceil(share * drawn[:, -1:])).argmax(1)
        errors.append(widened * float(np.log(ordered[edges[reached]]).std(ddof=1)))
    return errors


def speedup_of_rounds(baseline: Rounds, candidate: Rounds, *, seed: int, confidence: float = 0.95) -> Estimate:
    """Baseline's median over the candidate's within one or two starts, with a bootstrap interval.

    Whole rounds are drawn, the same for both: samples within a round share the state of the machine. What differs from
    start to start is not in the interval.
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


def _ratio(pairs: Sequence[tuple[Floats, Floats]]) -> float:
    first, second = zip(*pairs, strict=True)
    return float(np.median(np.concatenate(first)) / np.median(np.concatenate(second)))
