"""How long a benchmark is, and how often its intervals are right: by simulation."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from accel.benchmark.starts import PILOT, Length, centre_of, ratio, starts_needed

RUNS = 400
Draw = Callable[[np.random.Generator], float]

HOSTS: dict[str, Draw] = {
    "quiet": lambda chance: 0.005 * chance.standard_normal(),
    "restless": lambda chance: 0.02 * chance.standard_normal(),
    "heavy tails": lambda chance: 0.01 * chance.standard_t(2),
    # A start of either candidate in twenty is far too slow.
    "hiccups": lambda chance: (
        0.01 * chance.standard_normal() + 0.3 * (int(chance.random() < 0.05) - int(chance.random() < 0.05))
    ),
    # Each start of either is in one of two states that differ by a fifth.
    "two states": lambda chance: (
        0.01 * chance.standard_normal() + 0.2 * (int(chance.random() < 0.5) - int(chance.random() < 0.5))
    ),
}


def simulated(draw: Draw, *, slower: float = 0.0, most: int = 20, seed: int = 0) -> list[list[float]]:
    """Benchmarks of as many starts as were needed, a second each."""
    chance = np.random.default_rng(seed)
    length = Length(precision=0.02, budget_s=most, asked=None)
    found = []
    for _ in range(RUNS):
        values: list[float] = []
        while True:
            values.append(draw(chance) - slower)
            if length.stopped([values], len(values), float(len(values))):
                break
        found.append(values)
    return found


def misses(found: list[list[float]], truth: float) -> float:
    """Share of intervals that leave the truth out."""
    return float(np.mean([abs(centre - truth) > half for centre, half in map(centre_of, found)]))


@pytest.mark.parametrize("host", HOSTS)
@pytest.mark.parametrize("most", [4, 8, 20])
def test_intervals_hold_the_truth_on_every_kind_of_host(host: str, most: int) -> None:
    assert misses(simulated(HOSTS[host], most=most), 0.0) <= 0.05


@pytest.mark.parametrize(("host", "told"), [("quiet", 1.0), ("restless", 0.95), ("heavy tails", 0.9), ("hiccups", 0.9)])
def test_five_per_cent_are_told(host: str, told: float) -> None:
    found = simulated(HOSTS[host], slower=np.log(1.05), most=30, seed=1)
    assert np.mean([centre + half < 0 for centre, half in map(centre_of, found)]) >= told


def test_a_quiet_host_needs_the_pilot_only_and_a_restless_one_more() -> None:
    assert {len(values) for values in simulated(HOSTS["quiet"])} == {PILOT}
    assert np.mean([len(values) for values in simulated(HOSTS["restless"], most=40)]) > PILOT + 1


def test_wild_starts_do_not_decide() -> None:
    calm = list(0.005 * np.random.default_rng(3).standard_normal(PILOT))
    wild = [*calm[:-2], 0.5, 0.4]
    assert abs(centre_of(wild)[0] - centre_of(calm)[0]) < 0.01
    assert centre_of(wild)[1] < 0.02


def test_why_it_stops() -> None:
    calm, loose = [0.001 * place for place in range(PILOT)], [0.2 * (-1) ** place for place in range(PILOT)]
    length = Length(precision=0.02, budget_s=60, asked=None)
    assert length.stopped([calm[:3]], 3, 3) is None  # narrow already, but three do not tell the spread
    assert length.stopped([calm], PILOT, 20) == "precise"
    assert length.stopped([calm, loose], PILOT, 20) is None
    assert length.stopped([calm, loose], PILOT, 59) == "budget"
    assert length.stopped([calm[:2]], 2, 1000) is None  # three at least, however long they take
    assert length.stopped([calm[:3]], 3, 1000) == "budget"
    asked = Length(precision=0.02, budget_s=60, asked=5)
    assert asked.stopped([calm[:4]], 4, 20) is None
    assert asked.stopped([calm[:5]], 5, 20) == "fixed"
    assert asked.stopped([calm[:4]], 4, 58) == "budget"
    assert Length(precision=0.02, budget_s=60, asked=1).stopped([calm[:1]], 1, 1) == "fixed"


def test_the_plan_follows_the_pilot_and_the_budget() -> None:
    loose = [0.03 * (-1) ** place for place in range(PILOT)]
    needed = starts_needed(loose, 0.02)
    length = Length(precision=0.02, budget_s=1e4, asked=None)
    assert length.planned([], 0, 0.0) == PILOT
    assert length.planned([loose], PILOT, 20.0) == needed > PILOT
    assert Length(precision=0.02, budget_s=30, asked=None).planned([loose], PILOT, 20.0) == 15
    assert Length(precision=0.02, budget_s=1, asked=None).planned([loose], PILOT, 20.0) == PILOT + 1


@given(st.floats(0.1, 10), st.integers(3, 30))
def test_a_ratio_without_noise_is_itself(value: float, starts: int) -> None:
    found = ratio([float(np.log(value))] * starts)
    assert found.value == pytest.approx(value)
    assert found.low == pytest.approx(value)
    assert ratio([0.0] * 2).low is None
