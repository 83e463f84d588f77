"""Histograms that grow and merge: parts of the data, in any order, give what all of it gives."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from accel.numerics.histogram import Histogram

FINITE = st.floats(-(2**100), 2**100, width=32) | st.sampled_from([0.0, -0.0, 1.0, -1.0, 2.0, 0.5, -4.0, 1e-44, -1e-44])
ARRAYS = st.lists(FINITE, min_size=1, max_size=40).map(lambda values: np.array(values, np.float32))


def counted(*parts: np.ndarray) -> Histogram:
    histogram = Histogram()
    for part in parts:
        histogram.add(part)
    return histogram


def assert_same(left: Histogram, right: Histogram) -> None:
    assert (left.low, left.high, left.zeros, left.bound) == (right.low, right.high, right.zeros, right.bound)
    np.testing.assert_array_equal(left.counts, right.counts)


def assert_counts_like_numpy(histogram: Histogram, values: np.ndarray) -> None:
    some = values[values != 0].astype(np.float64)
    edges = np.linspace(-histogram.bound, histogram.bound, len(histogram.counts) + 1)
    np.testing.assert_array_equal(histogram.counts, np.histogram(some, edges)[0])
    assert histogram.zeros == int((values == 0).sum())
    assert histogram.total == values.size
    assert (histogram.low, histogram.high) == (values.min(), values.max())


@given(ARRAYS)
def test_it_counts_what_numpy_counts(values: np.ndarray) -> None:
    assert_counts_like_numpy(counted(values), values)


@pytest.mark.parametrize("scale", [1e-30, 1e-3, 1.0, 7.0, 1e30])
def test_it_counts_many_values_like_numpy(scale: float) -> None:
    values = (np.random.default_rng(1).standard_normal(50_000) * scale).astype(np.float32)
    values[::3] = 0
    assert_counts_like_numpy(counted(values), values)


@settings(max_examples=50)
@given(ARRAYS, st.lists(st.integers(0, 40), max_size=5), st.randoms(use_true_random=False))
def test_parts_in_any_order_count_like_the_whole(values: np.ndarray, cuts: list[int], order: object) -> None:
    whole = counted(values)
    parts = [part for part in np.split(values, sorted(cuts)) if part.size]
    order.shuffle(parts)
    assert_same(counted(*parts), whole)
    merged = Histogram()
    for part in parts:
        merged.merge(counted(part))
    assert_same(merged, whole)


@settings(max_examples=25)
@given(ARRAYS, ARRAYS, ARRAYS)
def test_merging_is_associative_and_commutative(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> None:
    left = counted(a)
    left.merge(counted(b))
    left.merge(counted(c))
    inner = counted(c)
    inner.merge(counted(b))
    right = counted(a)
    right.merge(inner)
    assert_same(left, right)


@pytest.mark.parametrize("first", [1.0, -1.0, 0.5, 2.0**-20])
def test_a_value_on_the_bound_is_counted_where_it_would_be_later(first: float) -> None:
    # Sigmoid, Softmax and Clip give exact powers of two.
    values = np.array([first, 3.0], np.float32)
    assert_same(counted(values[:1], values[1:]), counted(values))
    assert_same(counted(values[::-1]), counted(values))


@given(ARRAYS, st.integers(0, 60))
def test_doubling_loses_nothing(values: np.ndarray, doublings: int) -> None:
    histogram = counted(values)
    before = histogram.bound
    histogram.extend(0.0, before * 2.0**doublings * 0.75)
    assert histogram.bound >= before
    assert histogram.total == values.size
    some = values[values != 0].astype(np.float64)
    edges = np.linspace(-histogram.bound, histogram.bound, len(histogram.counts) + 1)
    np.testing.assert_array_equal(histogram.counts, np.histogram(some, edges)[0])


def test_the_bound_is_a_power_of_two_that_holds_the_extremes() -> None:
    histogram = counted(np.float32([-3.0, 5.0]))
    assert histogram.bound == 8
    assert counted(np.float32([-9.0, 5.0])).bound == 16
    assert np.log2(counted(np.float32([1e-10])).bound) % 1 == 0


def test_a_merge_leaves_the_other_as_it_was() -> None:
    other = counted(np.float32([1e-3, 2e-3]))
    same = counted(np.float32([1e-3, 2e-3]))
    histogram = counted(np.float32([100.0]))
    histogram.merge(other)
    histogram.add(np.float32([1e-3]))
    assert_same(other, same)


def test_merging_with_one_that_saw_nothing_changes_nothing() -> None:
    values = np.float32([1, -2, 0, 0.25])
    histogram = counted(values)
    histogram.merge(Histogram())
    assert_same(histogram, counted(values))
    empty = Histogram()
    empty.merge(counted(values))
    assert_same(empty, counted(values))


def test_merging_two_that_saw_nothing_leaves_room_for_what_comes() -> None:
    histogram = Histogram()
    histogram.merge(Histogram())
    histogram.add(np.float32([0.5, -0.25]))
    assert_same(histogram, counted(np.float32([0.5, -0.25])))


def test_extremes_count_as_seen() -> None:
    histogram = counted(np.float32([0.5, -0.5]))
    histogram.extend(-3.0, 100.0)
    assert (histogram.low, histogram.high, histogram.bound) == (-3.0, 100.0, 128.0)
    assert histogram.total == 2


@pytest.mark.parametrize(
    "values",
    [
        np.float32([-1, -2, -2.5]),
        np.float32([1, 2, 2.5]),
        np.float32([3, 3, 3]),
        np.float32([-0.75]),
        np.float32([-4, 0, 0, 4]),
        np.float32([1e30, -1e-30]),
        np.random.default_rng(2).standard_normal(1000).astype(np.float32),
    ],
    ids=["negative", "positive", "constant", "one", "bounds", "wide", "normal"],
)
def test_density_holds_every_value_but_the_zeros(values: np.ndarray) -> None:
    histogram = counted(values)
    centres, counts = histogram.density()
    some = values[values != 0]
    assert len(centres) == len(counts)
    assert counts.sum() == some.size
    assert (np.diff(centres) >= 0).all()
    assert values.min() <= centres[0]
    assert centres[-1] <= values.max()
    width = histogram.bound / (len(histogram.counts) / 2)
    drawn = np.repeat(centres, counts.astype(int))
    assert (np.abs(drawn - np.sort(some.astype(np.float64))) <= width).all()


def test_zeros_alone() -> None:
    histogram = counted(np.zeros(7, np.float32), np.float32([-0.0]))
    assert (histogram.low, histogram.high, histogram.zeros, histogram.total) == (0, 0, 8, 8)
    assert not histogram.counts.any()
    assert histogram.density()[1].sum() == 0


def test_nothing_at_all() -> None:
    histogram = counted(np.zeros(0, np.float32))
    assert histogram.total == 0
    centres, counts = histogram.density()
    assert counts.sum() == 0
    assert len(centres) == len(counts)


def test_values_of_any_shape_and_width_count_alike() -> None:
    values = np.random.default_rng(3).standard_normal((4, 5, 6)).astype(np.float16)
    assert_same(counted(values), counted(values.ravel().astype(np.float32)))
    assert_same(counted(values), counted(values.astype(np.float64)))
    assert_same(counted(values.T), counted(values))
