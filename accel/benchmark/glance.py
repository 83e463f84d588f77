"""A short look at the speed of a result beside its original, for a report that must not hide a slow one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from accel.benchmark.environment import environment
from accel.benchmark.figures import measurements
from accel.benchmark.measure import measure
from accel.benchmark.setting import Setting
from accel.report import Estimate
from accel.request import BenchmarkRequest, ModelFile
from accel.runtimes.discover import measured_unasked

_ROUNDS = 8
_SECONDS = 0.04
_TINY_MS = 0.05
"""Below this, what a call costs by itself outweighs the arithmetic."""


def glance(
    original: Path, result: Path, runtime: str, shapes: Mapping[str, tuple[int, ...]], *, threads: int, seed: int
) -> tuple[Estimate | None, tuple[str, ...]]:
    """Measure both for about a second, with one thread and with many, one sample at a time, each in a process of its own.

    Args:
        original: The file that is the measure.
        result: The file that should be faster.
        runtime: Where both run.
        shapes: Shapes of the inputs.
        threads: What a session takes if it is not told otherwise: one thread for each core.
        seed: Seed of the inputs and of the order.

    Returns:
        How many times as fast the result is with one thread, with its interval, and warnings: that it is slower, and where it
        is not.
    """
    look = _Look(original, result, shapes, seed)
    found = look.measured((runtime,), (1, threads) if threads > 1 else (1,))
    (one, latency_ms), (many, _) = found[runtime, 1], found[runtime, threads]

    def elsewhere() -> dict[str, Estimate]:
        others = tuple(name for name in measured_unasked() if name != runtime)
        measured = look.measured(others, (1,)) if others else {}
        return {name: gain for (name, _), (gain, _) in measured.items() if gain is not None}

    if one is None:
        return None, ()
    return one, remarks(runtime, threads, one, many, latency_ms or 0.0, elsewhere)


def remarks(
    runtime: str,
    threads: int,
    one: Estimate,
    many: Estimate | None,
    latency_ms: float,
    elsewhere: Callable[[], Mapping[str, Estimate]],
) -> tuple[str, ...]:
    """What a person should know of a result that is slower than its original beyond noise, and where to run what instead.

    Args:
        runtime: Where both ran.
        threads: How many threads ``many`` is about.
        one: How many times as fast the result is with one thread.
        many: The same with many; None where that does not run.
        latency_ms: Of the result with one thread.
        elsewhere: The same on the other runtimes of this host, measured only where it is needed.
    """
    if not _is_slower(one):
        if many is None or not _is_slower(many):
            return ()
        slower = f"With {threads} threads the result is slower: {many.value:.2f} times as fast as the original"
        return (f"{slower}, and {one.value:.2f} times with one. Use one thread, and more instances for many requests.",)
    slower = f"The result is slower: {one.value:.2f} times as fast as the original on {runtime}."
    if latency_ms < _TINY_MS:
        advice = f"A model of {latency_ms * 1e3:.0f} microseconds gains nothing from this: keep the original."
    elif fast := [f"{name} ({gain.value:.2f} times)" for name, gain in elsewhere().items() if gain.value > 1]:
        advice = f"It is faster on {', '.join(fast)}: run it there."
    else:
        advice = "Run the original there, or leave the layers in float that have no integer kernel."
    return (f"{slower} {advice}",)


def _is_slower(gain: Estimate) -> bool:
    """Whether it is so beyond noise."""
    return gain.high is not None and gain.high < 1


@dataclass(frozen=True, slots=True)
class _Look:
    original: Path
    result: Path
    shapes: Mapping[str, tuple[int, ...]]
    seed: int

    def measured(
        self, runtimes: tuple[str, ...], threads: tuple[int, ...]
    ) -> dict[tuple[str, int], tuple[Estimate | None, float | None]]:
        """For each runtime and number of threads how many times as fast the result is, and its latency in ms."""
        request = BenchmarkRequest(
            models=(ModelFile(model_id="original", path=self.original), ModelFile(model_id="result", path=self.result)),
            baseline_id="original",
            starts=1,
            rounds=_ROUNDS,
            seconds_per_round=_SECONDS,
            shapes=dict(self.shapes),
            seed=self.seed,
        )
        where = environment()
        return {
            (found.runtime, found.threads): (found.speedup, found.latency_ms.median if found.latency_ms else None)
            for count in threads
            for found in measurements(request, measure(request, runtimes, Setting(1, count), lambda *_: None), where)
            if found.model_id == "result"
        }
