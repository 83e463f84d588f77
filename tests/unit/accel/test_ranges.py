"""Ranges of activations: each method on distributions whose answer is known, and against a search by real quantization."""

from __future__ import annotations

from typing import get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from accel.numerics.histogram import Histogram
from accel.numerics.ranges import Method, Range, choose
from accel.numerics.scales import Scheme, dequantize, parameters, quantize

UNSIGNED = Scheme(8, signed=False, symmetric=False)
SIGNED = Scheme(8, signed=True, symmetric=True)
METHODS: tuple[Method, ...] = get_args(Method)


def counted(values: np.ndarray) -> Histogram:
    histogram = Histogram()
    histogram.add(values)
    return histogram


def bin_width(histogram: Histogram) -> float:
    return 2 * histogram.bound / len(histogram.counts)


def normal(outlier: float = 0.0, size: int = 200_000) -> np.ndarray:
    values = np.random.default_rng(1).standard_normal(size)
    if outlier:
        values[:20] = outlier * np.linspace(-1, 1, 20)
    return values.astype(np.float32)


def error(values: np.ndarray, found: Range, scheme: Scheme) -> float:
    """Mean squared error of quantizing with a range, measured by doing it."""
    used = parameters(*found, scheme)
    return float(np.square(dequantize(quantize(values, used, scheme), used) - values, dtype=np.float64).mean())


def best_error(values: np.ndarray, scheme: Scheme) -> float:
    """The smallest error of all ranges on a grid."""
    low, high = min(float(values.min()), 0.0), max(float(values.max()), 0.0)
    shares = np.geomspace(0.02, 1.0, 40)
    if scheme.symmetric:
        largest = max(-low, high)
        return min(error(values, (-largest * share, largest * share), scheme) for share in shares)
    highs = shares * high if high else [0.0]
    lows = shares * low if low else [0.0]
    # The error of one side depends on the other only through the step: search in turns, from several starts.
    found = np.inf
    for start in (1.0, 0.3):
        chosen = [low * start, high * start]
        for _ in range(2):
            chosen[1] = min(highs, key=lambda bound: error(values, (chosen[0], float(bound)), scheme))
            chosen[0] = min(lows, key=lambda bound: error(values, (float(bound), chosen[1]), scheme))
        found = min(found, error(values, (chosen[0], chosen[1]), scheme))
    return found


def test_minmax_takes_the_extremes() -> None:
    values = normal(outlier=50)
    assert choose(counted(values), "minmax", UNSIGNED) == (float(values.min()), float(values.max()))


def test_mse_and_entropy_cut_outliers() -> None:
    histogram = counted(normal(outlier=50, size=1_000_000))
    for method in ("mse", "entropy"):
        low, high = choose(histogram, method, UNSIGNED)
        assert -30 < low < -3, method
        assert 3 < high < 30, method


@pytest.mark.parametrize("scheme", [UNSIGNED, SIGNED], ids=["unsigned", "signed"])
def test_a_uniform_distribution_is_hardly_cut(scheme: Scheme) -> None:
    values = np.random.default_rng(2).uniform(-3, 5, 200_000).astype(np.float32)
    for method in METHODS:
        low, high = choose(counted(values), method, scheme)
        assert low == pytest.approx(-3, abs=0.1), method
        assert high == pytest.approx(5, abs=0.15), method


@pytest.mark.parametrize("method", METHODS)
def test_behind_a_relu_nothing_is_given_to_negative_values(method: Method) -> None:
    values = np.maximum(normal(), 0)
    low, high = choose(counted(values), method, UNSIGNED)
    assert low == 0
    assert 2 < high <= values.max()


@pytest.mark.parametrize("method", METHODS)
def test_only_negative_values_need_nothing_above_zero(method: Method) -> None:
    values = -np.abs(normal()) - 1
    low, high = choose(counted(values), method, UNSIGNED)
    assert high == 0
    assert values.min() <= low < -3


@pytest.mark.parametrize("percent", [99.999, 99.9, 99.0, 90.0, 100.0])
def test_percentile_is_numpy_s_within_a_bin(percent: float) -> None:
    values = normal()
    histogram = counted(values)
    low, high = choose(histogram, "percentile", UNSIGNED, percentile=percent)
    tail = (100 - percent) / 2
    expected = np.percentile(values, [tail, 100 - tail])
    # Between the two neighbours that NumPy interpolates, and within a bin.
    gaps = [
        np.percentile(values, q, method="lower") - np.percentile(values, q, method="higher") for q in (tail, 100 - tail)
    ]
    assert abs(low - expected[0]) <= bin_width(histogram) + abs(gaps[0])
    assert abs(high - expected[1]) <= bin_width(histogram) + abs(gaps[1])


def test_percentile_counts_the_zeros_too() -> None:
    values = np.maximum(normal(), 0)
    histogram = counted(values)
    low, high = choose(histogram, "percentile", UNSIGNED, percentile=98)
    assert low == 0
    assert high == pytest.approx(np.percentile(values, 99), abs=2 * bin_width(histogram))
    mostly = np.concatenate([np.zeros(10_000), [5.0]]).astype(np.float32)
    assert choose(counted(mostly), "percentile", UNSIGNED, percentile=99) == (0.0, 0.0)


def test_a_percentile_of_everything_is_the_extremes_within_a_bin() -> None:
    values = normal(outlier=30)
    histogram = counted(values)
    low, high = choose(histogram, "percentile", UNSIGNED, percentile=100)
    assert low == pytest.approx(values.min(), abs=bin_width(histogram))
    assert high == pytest.approx(values.max(), abs=bin_width(histogram))


def laplace(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).laplace(size=40_000).astype(np.float32)


def gelu(x: np.ndarray) -> np.ndarray:
    return x * (0.5 + 0.5 * np.tanh(0.8 * (x + 0.0447 * x**3)))


DISTRIBUTIONS = {
    "normal": normal(size=40_000),
    "outliers": normal(outlier=20, size=40_000),
    "laplace": laplace(3),
    "relu": np.maximum(normal(size=40_000), 0),
    "gelu": gelu(normal(size=40_000)),
    "shifted": normal(size=40_000) + 3,
    "exponential": np.abs(laplace(4)),
    "heavy": (np.random.default_rng(6).standard_t(3, 40_000)).astype(np.float32),
}


@pytest.mark.parametrize("scheme", [UNSIGNED, SIGNED, Scheme(4, signed=False, symmetric=False)], ids=["u8", "s8", "u4"])
@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_mse_is_near_the_best_of_a_search_by_real_quantization(name: str, scheme: Scheme) -> None:
    values = DISTRIBUTIONS[name]
    found = error(values, choose(counted(values), "mse", scheme), scheme)
    assert found <= 1.1 * best_error(values, scheme)
    assert found <= error(values, choose(counted(values), "minmax", scheme), scheme) * 1.001


def test_symmetric_ranges_are_cut_on_both_sides_alike() -> None:
    histogram = counted(normal(outlier=50, size=1_000_000))
    for method in ("mse", "entropy"):
        low, high = choose(histogram, method, SIGNED)
        assert low == pytest.approx(-high), method
        assert 3 < high < 30, method


def test_a_symmetric_range_of_one_sided_values_stays_one_sided() -> None:
    low, high = choose(counted(np.maximum(normal(), 0)), "mse", SIGNED)
    assert low == 0
    assert high > 2


def test_moving_average_takes_the_smoothed_extremes_that_it_is_given() -> None:
    histogram = counted(normal())
    assert choose(histogram, "moving_average", UNSIGNED, average=(-1.5, 2.5)) == (-1.5, 2.5)
    assert choose(histogram, "moving_average", UNSIGNED, average=(0.5, 2.5)) == (0.0, 2.5)
    assert choose(histogram, "moving_average", UNSIGNED) == (histogram.low, histogram.high)


@given(
    st.lists(
        st.floats(-(2**60), 2**60, width=32) | st.sampled_from([0.0, 1.0, -1.0, 1e-40, -1e-40]), min_size=1, max_size=60
    ),
    st.sampled_from(METHODS),
    st.sampled_from(
        [UNSIGNED, SIGNED, Scheme(4, signed=False, symmetric=False), Scheme(16, signed=True, symmetric=False)]
    ),
    st.sampled_from([99.999, 90.0, 100.0, 50.0]),
)
def test_ranges_contain_zero_and_stay_within_the_extremes(
    values: list[float], method: Method, scheme: Scheme, percent: float
) -> None:
    array = np.array(values, np.float32)
    low, high = choose(counted(array), method, scheme, percentile=percent)
    assert min(float(array.min()), 0.0) <= low <= 0 <= high <= max(float(array.max()), 0.0)
    assert np.isfinite(parameters(low, high, scheme).scale)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (np.zeros(0, np.float32), (0, 0)),
        (np.zeros(5, np.float32), (0, 0)),
        (np.full(5, 3.0, np.float32), (0, 3)),
        (np.full(5, -3.0, np.float32), (-3, 0)),
        (np.float32([2.0]), (0, 2)),
        (np.float32([0, 0, 0, 1]), (0, 1)),
    ],
    ids=["nothing", "zeros", "constant", "negative", "one", "almost"],
)
def test_degenerate_histograms(values: np.ndarray, expected: Range, method: Method) -> None:
    low, high = choose(counted(values), method, UNSIGNED)
    assert low == pytest.approx(expected[0], rel=0.01)
    assert high == pytest.approx(expected[1], rel=0.01)


@pytest.mark.parametrize("method", ["mse", "entropy"])
@pytest.mark.parametrize("lower", np.linspace(0.2, 0.9, 29).tolist())
def test_two_values_of_equal_weight_are_both_kept(method: Method, lower: float) -> None:
    values = np.repeat(np.float32([lower, 1.0]), 500)
    low, high = choose(counted(values), method, UNSIGNED)
    assert low == 0
    assert high == pytest.approx(1.0, rel=0.03)


@pytest.mark.parametrize("method", METHODS)
def test_extremes_without_values_between_them(method: Method) -> None:
    # Sampling may miss all that lies between the extremes.
    histogram = Histogram()
    histogram.extend(-2.0, 6.0)
    low, high = choose(histogram, method, UNSIGNED)
    assert -2 <= low <= 0 <= high <= 6


@pytest.mark.parametrize("method", ["mse", "entropy", "percentile"])
def test_the_choice_scales_with_the_values(method: Method) -> None:
    values = normal(outlier=30)
    low, high = choose(counted(values), method, UNSIGNED)
    scaled = choose(counted(values * np.float32(2**13)), method, UNSIGNED)
    assert scaled == pytest.approx((low * 2**13, high * 2**13))


@pytest.mark.parametrize("bits", [2, 4])
def test_more_bits_leave_a_wider_range(bits: int) -> None:
    histogram = counted(laplace(5))
    narrow = choose(histogram, "mse", Scheme(bits, signed=True, symmetric=True))[1]
    wide = choose(histogram, "mse", Scheme(bits + 2, signed=True, symmetric=True))[1]
    assert narrow < wide
