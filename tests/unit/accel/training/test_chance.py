"""Chance without a state: every draw depends on a key and a number alone."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from accel.training import chance


@given(rows=st.integers(1, 3000), seed=st.integers(0, 2**63 - 1))
def test_a_shuffled_order_has_every_number_once(rows: int, seed: int) -> None:
    assert sorted(chance.permuted(chance.key(seed, "order", 1), 0, rows, rows)) == list(range(rows))


@given(rows=st.integers(1, 200), cut=st.integers(9, 50))
def test_pieces_of_an_order_are_the_order(rows: int, cut: int) -> None:
    whole = chance.permuted(7, 0, rows, rows)
    pieces = [chance.permuted(7, start, min(start + cut, rows), rows) for start in range(0, rows, cut)]
    assert (np.concatenate(pieces) == whole).all()


def test_orders_of_four_are_all_alike_likely() -> None:
    found = np.array([chance.permuted(chance.key(seed, "order"), 0, 4, 4) for seed in range(4_800)])
    _, counts = np.unique(found, axis=0, return_counts=True)
    assert len(counts) == 24
    expected = 4_800 / 24
    assert ((counts - expected) ** 2 / expected).sum() < 49.7  # chi-squared of 23 degrees, p = 0.001


def test_an_order_does_not_follow_its_numbers() -> None:
    found = chance.permuted(chance.key(3, "order", 0), 0, 50_000, 50_000)
    other = chance.permuted(chance.key(3, "order", 1), 0, 50_000, 50_000)
    places = np.arange(50_000)
    for pair in ((found, places), (found, other), (found[:-1], found[1:])):
        assert abs(np.corrcoef(*pair)[0, 1]) < 0.02


def test_shares_are_even() -> None:
    found = chance.uniform(chance.key(0, "flip"), np.arange(100_000))
    assert found.min() >= 0
    assert found.max() < 1
    counts = np.histogram(found, 20, (0, 1))[0]
    assert ((counts - 5000) ** 2 / 5000).sum() < 43.8  # chi-squared of 19 degrees, p = 0.001
    assert abs(np.corrcoef(found[:-1], found[1:])[0, 1]) < 0.02


def test_whole_numbers_stay_below_their_bound() -> None:
    found = chance.integers(5, np.arange(1000), 9)
    assert set(found.tolist()) == set(range(9))


def test_normal_numbers_are_normal_and_of_their_number() -> None:
    found = chance.normal(1, 2, (10_000,))
    assert found.mean() == pytest.approx(0, abs=0.05)
    assert found.std() == pytest.approx(1, abs=0.05)
    assert (found == chance.normal(1, 2, (10_000,))).all()
    assert not (found == chance.normal(1, 3, (10_000,))).any()


def test_keys_differ_by_each_part() -> None:
    keys = [chance.key(seed, name, epoch) for seed in range(5) for name in ("a", "b") for epoch in range(5)]
    assert len(set(keys)) == len(keys)
