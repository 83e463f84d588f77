"""Why a model is no faster than its baseline."""

from __future__ import annotations

import tempfile
from pathlib import Path

from accel.benchmark.environment import environment
from accel.benchmark.reasons.evidence import CPU, Evidence, Side
from accel.benchmark.reasons.integers import integers
from accel.benchmark.reasons.machine import memory, overhead, oversubscribed
from accel.benchmark.reasons.slower import slower
from accel.benchmark.reasons.storage import storage
from accel.benchmark.reasons.zeros import zeros
from accel.report import Profile, SpeedFinding

_MOST = 10
_MOSTLY = 0.5
_FIRST = 2.0
"""Beyond every share."""


def why(
    baseline: Path,
    model: Path,
    before: Profile,
    after: Profile,
    *,
    threads: int,
    cores: int,
    latency_ms: float | None = None,
) -> tuple[SpeedFinding, ...]:
    """Say in words what keeps a model from being faster than its baseline, each reason with its share of the time.

    A share is of the time in the model's operators, and for operators that got slower it is what they take more; for calls it
    is of the whole run. Shares of different kinds overlap. Of a model whose run is mostly calls nothing else is said: the
    profiler's times are then mostly its own. Graphs are read as ONNX Runtime's CPU provider optimises them, for which both
    files are loaded: call it when nothing is being timed.

    Args:
        baseline: The file that is the measure.
        model: The file that should be faster.
        before: Profile of the baseline.
        after: Profile of the model, made with the same settings.
        threads: Threads within one operator.
        cores: Cores that the process may use.
        latency_ms: Median latency of the model without the profiler; its profiled run, which is slower, if left out.

    Returns:
        Ten reasons at most, the largest first; those without a share come before.

    Raises:
        RuntimeFailed: The optimised graphs are not to be had.
    """
    with tempfile.TemporaryDirectory(prefix="why-") as folder:
        sides = (Side.load(baseline, before, Path(folder)), Side.load(model, after, Path(folder)))
    evidence = Evidence(*sides, threads, cores, latency_ms)
    calls = tuple(overhead(evidence))
    found = [*oversubscribed(evidence), *calls]
    mostly_calls = any((finding.share or 0.0) >= _MOSTLY for finding in calls)
    # What another provider compiled is one operator to the profiler, and its graph is not to be had.
    known = all(row.provider == CPU for profile in (before, after) for row in profile.operators)
    if known and not mostly_calls:
        found += slower(evidence, environment().cpu_features)
        found += integers(evidence)
        found += storage(evidence)
        found += zeros(evidence)
        found += memory(evidence)
    return tuple(sorted(found, key=lambda finding: -(_FIRST if finding.share is None else finding.share))[:_MOST])
