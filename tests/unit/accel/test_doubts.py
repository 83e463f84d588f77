"""Each doubt is said of synthetic samples that deserve it, and not of those that do not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from accel.benchmark import doubts
from accel.benchmark.environment import environment
from accel.benchmark.figures import measurements
from accel.benchmark.measure import Measured
from accel.benchmark.setting import Candidate, Round, Setting, Take
from accel.benchmark.starts import Length, Stopped
from accel.report import Measurement
from accel.report.benchmarking import ServerProbe
from accel.request import BenchmarkRequest, ModelFile

WHERE = environment().model_copy(update={"cores": 2, "load_before": 0.0})
MODELS = tuple(ModelFile(model_id=name, path=Path(name)) for name in ("first", "second"))


def take(samples_ms: np.ndarray, **more: object) -> Take:
    """A start of one round of these samples."""
    begun = {"load_ms": 1.0, "first_ms": 2.0, "query_size": 1, "calls_per_query": 1, "queries_per_sample": 1} | more
    rounds = [Round(samples_ms, 1e3 / float(np.mean(samples_ms)), len(samples_ms), 0.1)]
    return Take(warmup_ms=samples_ms[:1], rounds=rounds, cost_ms=float(np.median(samples_ms)), **begun)


def noisy(seed: int, level: float, count: int = 300) -> np.ndarray:
    return level * (1 + 0.01 * np.random.default_rng(seed).standard_normal(count))


def calm(level: float = 1.0, starts: int = 10, **more: object) -> list[Take]:
    return [take(noisy(seed, level), **more) for seed in range(starts)]


def measured(
    first: list[Take], second: list[Take] | None = None, *, setting: Setting | None = None, stopped: Stopped = "precise"
) -> Measured:
    candidates = [Candidate(MODELS[0], "onnxruntime:cpu", first)]
    candidates += [Candidate(MODELS[1], "onnxruntime:cpu", second)] if second else []
    return Measured(setting or Setting(1, 1), tuple(candidates), "first", stopped, Length(0.02, 60, None))


def figures(found: Measured, **more: object) -> Measurement:
    """The last candidate's."""
    request = BenchmarkRequest(models=MODELS, baseline_id="first", **more)
    return list(measurements(request, found, WHERE))[-1]


def said(found: Measured, **more: object) -> str:
    return " ".join(figures(found, **more).warnings)


def test_nothing_is_said_of_a_calm_benchmark() -> None:
    assert figures(measured(calm(), calm(0.5))).warnings == ()
    assert doubts.of_the_host(WHERE, busy_before=0.0, busy_meanwhile=0.1, drift=0.03, fall=None) == ()


def test_the_host() -> None:
    where = WHERE.model_copy(update={"steal_share": 0.2, "throttled_share": 0.1})
    found = " ".join(doubts.of_the_host(where, busy_before=0.9, busy_meanwhile=0.5, drift=0.07, fall=0.12))
    for word in (
        "took 0.9 of 2 cores just before",
        "took 0.5 of 2 cores while",
        "(steal)",
        "20%",
        "held the benchmark back in 10%",
        "7% slower",
        "by 12%",
    ):
        assert word in found
    assert "6% faster" in doubts.of_the_host(WHERE, busy_before=None, busy_meanwhile=None, drift=-0.06, fall=None)[0]


def test_unstable_samples() -> None:
    shaky = [take(np.random.default_rng(seed).uniform(1, 2, 300)) for seed in range(10)]
    assert "Unstable" in said(measured(shaky))


def test_two_states_of_processes() -> None:
    states = [take(noisy(seed, 1.2 if seed % 2 else 1.0)) for seed in range(10)]
    assert "Bimodal from start to start: 50% of 10 processes ran at 1.20 times" in said(measured(states))


def test_two_states_of_samples() -> None:
    mixed = [take(np.concatenate([noisy(seed, 1.0, 200), noisy(seed, 1.5, 100)])) for seed in range(10)]
    assert "Bimodal: 33% of the samples" in said(measured(mixed))


@pytest.mark.parametrize("count", [8, 10, 20, 1000])
@pytest.mark.parametrize("shape", ["normal", "uniform", "exponential"])
def test_one_cluster_is_not_taken_for_two(shape: str, count: int) -> None:
    chance = np.random.default_rng(1)
    draw = {"normal": chance.standard_normal, "uniform": chance.random, "exponential": chance.standard_exponential}[
        shape
    ]
    false = sum(doubts.two_clusters(np.exp(draw(count))) is not None for _ in range(500))
    assert false / 500 <= 0.03


@pytest.mark.parametrize(("count", "told"), [(10, 0.75), (20, 0.95), (1000, 1.0)])
def test_two_clusters_are_found(count: int, told: float) -> None:
    chance = np.random.default_rng(2)
    found = 0
    for _ in range(200):
        high = chance.random(count) < 0.5
        found += doubts.two_clusters(np.exp(0.2 * high + 0.015 * chance.standard_normal(count))) is not None
    assert found / 200 >= told
    assert doubts.two_clusters([1.0] * 20) is None
    assert doubts.two_clusters([1.0, 1.02] * 20) is None  # too close to matter


def test_throttling_is_a_trend_of_all() -> None:
    slower = [[take(noisy(seed, level * (1 + 0.02 * seed))) for seed in range(10)] for level in (1.0, 0.5)]
    assert doubts.falls(measured(*slower)) == pytest.approx(0.18, abs=0.04)
    assert doubts.falls(measured(calm(), calm(0.5))) is None
    assert doubts.falls(measured(slower[0][::-1])) is None  # faster and faster is no throttling
    one_wild = calm()
    one_wild[-1].cost_ms = 3.0
    assert doubts.falls(measured(one_wild)) is None


def test_too_few_samples_and_starts() -> None:
    few = [take(noisy(seed, 1.0, 5)) for seed in range(10)]
    assert "Only 50 samples" in said(measured(few))
    assert "Only 1 start:" in said(measured(calm(starts=1), calm(0.5, starts=1), stopped="fixed"))


def test_a_budget_that_was_too_short() -> None:
    loose = [take(noisy(seed, 0.5 + 0.03 * (seed % 5))) for seed in range(6)]
    found = figures(measured(calm(starts=6), loose, stopped="budget"))
    assert "The budget of 60 s was spent after 6 starts with an interval of plus or minus" in " ".join(found.warnings)
    assert found.stopped == "budget"
    precise = figures(measured(calm(starts=6), calm(0.5, starts=6), stopped="budget"))
    assert (precise.stopped, precise.warnings) == ("precise", ())  # that another needed longer is not its fault


def test_no_difference() -> None:
    same = [take(noisy(100 + seed, 1.0)) for seed in range(10)]
    assert "No measurable difference" in said(measured(calm(), same))


def test_more_threads_than_cores() -> None:
    assert "Oversubscribed: 4 threads on 2 cores" in said(measured(calm(), setting=Setting(1, 2, 2)))


def test_batches_that_the_model_fixes() -> None:
    assert "fixed at 4: a query of 8 is 2 calls" in said(
        measured(calm(query_size=8, calls_per_query=2), setting=Setting(8, 1))
    )
    assert "a query has 4 samples, not 1" in said(measured(calm(query_size=4)))
    assert "3 are timed together" in said(measured(calm(queries_per_sample=3)))


def test_a_broken_baseline() -> None:
    found = measured(calm(), calm())
    found.candidates[0].error = "It broke."
    second = figures(found)
    assert second.latency_ms is not None
    assert second.speedup is None
    assert "The baseline is broken" in " ".join(second.warnings)


def server(held: bool, **more: object) -> Take:
    begun = take(noisy(0, 1.0, 1000), **more)
    begun.probes = [ServerProbe(rate_hz=50.0, requests=1000, p99_ms=1.1 if held else None, held=held)]
    begun.cost_ms = 20.0 if held else None
    return begun


def test_rates_that_do_not_hold() -> None:
    request = {"scenario": "server", "bound_ms": 0.5}
    found = figures(measured([server(held=False)]), **request)
    assert found.server is not None
    assert found.server.rate_hz is found.throughput is found.latency_ms is None
    assert "No rate keeps 99 % of requests within 0.5 ms: even 50 a second" in " ".join(found.warnings)
    short = server(held=False)
    short.is_cut_short = True
    assert "The budget was too short" in said(measured([short]), **request)
    held = figures(measured([server(held=False)], [server(held=True)]), **request)
    assert held.server is not None
    assert held.server.rate_hz == 50
    assert "no start found a rate that the baseline holds too" in " ".join(held.warnings)
