"""A short look at the speed of a result beside its original, for a report that must not hide a slow one."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from accel.benchmark.run import benchmark
from accel.report import BenchmarkReport, Estimate
from accel.request import BenchmarkRequest, ModelFile
from accel.runtimes.discover import discover

_ROUNDS = 8
_SECONDS = 0.04
_TINY_MS = 0.05
"""Below this, what a call costs by itself outweighs the arithmetic."""


def glance(
    original: Path, result: Path, runtime: str, shapes: Mapping[str, tuple[int, ...]], *, seed: int
) -> tuple[Estimate | None, tuple[str, ...]]:
    """Measure both for about a second, one thread, one sample at a time, each in a process of its own.

    Args:
        original: The file that is the measure.
        result: The file that should be faster.
        runtime: Where both run.
        shapes: Shapes of the inputs.
        seed: Seed of the inputs and of the order.

    Returns:
        How many times as fast the result is, with its interval, and warnings: that it is slower, and where it is not.
    """
    gain, latency_ms = _measured(original, result, (runtime,), shapes, seed)[runtime]
    if gain is None or gain.high is None or gain.high >= 1:
        return gain, ()
    slower = f"The result is slower: {gain.value:.2f} times as fast as the original on {runtime}."
    if latency_ms is not None and latency_ms < _TINY_MS:
        return gain, (
            f"{slower} A model of {latency_ms * 1e3:.0f} microseconds gains nothing from this: keep the original.",
        )
    others = tuple(found.name for found in discover() if found.available and found.name != runtime)
    if others:
        found = _measured(original, result, others, shapes, seed)
        fast = [f"{name} ({value.value:.2f} times)" for name, (value, _) in found.items() if value and value.value > 1]
        if fast:
            return gain, (f"{slower} It is faster on {', '.join(fast)}: run it there.",)
    return gain, (f"{slower} Run the original there, or leave the layers in float that have no integer kernel.",)


def _measured(
    original: Path, result: Path, runtimes: tuple[str, ...], shapes: Mapping[str, tuple[int, ...]], seed: int
) -> dict[str, tuple[Estimate | None, float | None]]:
    request = BenchmarkRequest(
        models=(ModelFile(model_id="original", path=original), ModelFile(model_id="result", path=result)),
        baseline_id="original",
        runtimes=runtimes,
        rounds=_ROUNDS,
        seconds_per_round=_SECONDS,
        shapes=dict(shapes),
        seed=seed,
    )
    report = benchmark(request, lambda *_: None).report
    if not isinstance(report, BenchmarkReport):
        raise TypeError("a benchmark gives its report")
    found = {}
    for measurement in report.measurements:
        if measurement.model_id == "result":
            latency = measurement.latency_ms.median if measurement.latency_ms else None
            found[measurement.runtime] = (measurement.speedup, latency)
    return found
