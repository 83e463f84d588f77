"""Latencies: centre, tails and their intervals, against hand-computed values and by simulation."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from accel.benchmark.statistics import percentile, speedup_of_rounds, summarize


def test_tails_need_ten_samples_beyond() -> None:
    assert percentile(np.arange(99.0), 0.9) is None
    assert percentile(np.arange(100.0), 0.9) == 89
    summary = summarize([np.arange(1.0, 202)], seed=0)
    assert (summary.median, summary.p50.value, summary.p95.value) == (101, 101, 191)
    assert (summary.p99.value, summary.p99.samples_needed) == (None, 1000)
    assert (summary.mad, summary.minimum, summary.count) == (50, 1, 201)
    assert summary.p95.low is None  # of one block no interval is known
    few = summarize([[1.0, 2.0, 3.0]], seed=0)
    assert (few.median, few.p50.value, few.p50.samples_needed) == (2, None, 20)
    assert (few.p90.samples_needed, few.p95.samples_needed) == (100, 200)


def test_intervals_of_percentiles_hold_the_truth() -> None:
    """Starts that differ by a few per cent, and calls of an exponential tail: the truth is that of very many starts."""
    chance = np.random.default_rng(5)

    def starts(count: int) -> list[np.ndarray]:
        return [
            np.exp(0.03 * chance.standard_normal()) * (1 + 0.1 * chance.exponential(size=300)) for _ in range(count)
        ]

    truth = summarize([np.concatenate(starts(3000))], seed=0)
    held = {"p50": 0, "p99": 0}
    for seed in range(80):
        found = summarize(starts(8), seed=seed)
        for name in held:
            one, true = getattr(found, name), getattr(truth, name).value
            held[name] += one.low <= true <= one.high
            assert one.low <= one.value <= one.high
    assert min(held.values()) / 80 >= 0.9


def test_the_same_seed_gives_the_same_intervals() -> None:
    blocks = [np.random.default_rng(seed).exponential(size=500) for seed in range(4)]
    assert summarize(blocks, seed=1) == summarize(blocks, seed=1)
    assert summarize([[2.0] * 30] * 3, seed=0).p50.low == pytest.approx(2)


@given(st.floats(0.2, 5), st.integers(3, 12))
def test_speedup_is_the_ratio_where_there_is_no_noise(ratio: float, rounds: int) -> None:
    baseline = [[10.0, 10.0]] * rounds
    candidate = [[10.0 / ratio] * 2] * rounds
    found = speedup_of_rounds(baseline, candidate, seed=1)
    assert found.value == pytest.approx(ratio)
    assert found.low == pytest.approx(ratio)


def test_speedup_covers_the_truth_when_the_machine_drifts() -> None:
    chance = np.random.default_rng(3)
    covered = 0
    for seed in range(60):
        drift = 1 + 0.2 * chance.random(20)
        both = [[list(level * d * (1 + 0.02 * chance.standard_normal(30))) for d in drift] for level in (2.0, 1.0)]
        found = speedup_of_rounds(both[0], both[1], seed=seed)
        covered += (found.low or 0) <= 2 <= (found.high or 0)
    assert covered / 60 >= 0.9
