"""Sums of two products at 16 bits: bounds and emulation, against loops."""

from __future__ import annotations

from itertools import pairwise, permutations, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from accel.numerics.saturation import Pairs, Window, pairs_at_risk, safe_in_any_order, saturating_product
from accel.numerics.scales import Granularity, Scheme, quantize_tensor


def clipped(value: int) -> int:
    return max(-32768, min(32767, value))


def by_loops(inputs: np.ndarray, weights: np.ndarray) -> list[list[int]]:
    """Two products at a time into 16 bits, these into 32 bits."""
    rows = []
    for row in inputs.tolist():
        sums = []
        for column in weights.T.tolist():
            total = 0
            for k in range(0, len(row), 2):
                pair = row[k] * column[k]
                if k + 1 < len(row):
                    pair += row[k + 1] * column[k + 1]
                total += clipped(pair)
            sums.append(total)
        rows.append(sums)
    return rows


def extreme_bytes(seed: int, shape: tuple[int, ...]) -> tuple[np.ndarray, np.random.Generator]:
    chance = np.random.default_rng(seed)
    values = chance.integers(0, 256, shape).astype(np.uint8)
    values[chance.random(shape) < 0.6] = 255
    return values, chance


def extreme_weights(chance: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    weights = chance.integers(-128, 128, shape).astype(np.int8)
    weights[chance.random(shape) < 0.3] = 127
    weights[chance.random(shape) < 0.2] = -128
    return weights


@pytest.mark.parametrize(
    ("inputs", "weights", "expected"),
    [
        ([255, 255], [127, 127], 32767),  # 64,770 in 32 bits
        ([255, 255], [-128, -128], -32768),  # -65,280
        ([255, 255], [64, 64], 32640),
        ([255, 255], [65, 64], 32767),  # 32,895
        ([255, 255], [-64, -65], -32768),
        ([255, 255], [127, -128], -255),
        ([255, 255, 255, 255], [127, 127, -128, -128], -1),  # each pair by itself
        ([255, 255, 255, 255], [127, 0, 127, 0], 64770),
        ([255, 255, 255], [100, 100, 127], 32767 + 32385),  # the last one is alone
        ([200, 100], [127, 90], 32767),
        ([200, 81], [127, 90], 200 * 127 + 81 * 90),
    ],
)
def test_pairs_saturate_as_by_hand(inputs: list[int], weights: list[int], expected: int) -> None:
    found = saturating_product(np.array([inputs], np.uint8), np.array(weights, np.int8)[:, None])
    assert found.tolist() == [[expected]]


@settings(deadline=None, max_examples=60)
@given(rows=st.integers(0, 4), products=st.integers(1, 11), out=st.integers(1, 5), seed=st.integers(0, 2**32))
def test_the_emulation_equals_loops(rows: int, products: int, out: int, seed: int) -> None:
    inputs, chance = extreme_bytes(seed, (rows, products))
    weights = extreme_weights(chance, (products, out))
    found = saturating_product(inputs, weights)
    assert found.dtype == np.int32
    assert found.tolist() == by_loops(inputs, weights)


def test_large_products_are_computed_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    inputs, chance = extreme_bytes(3, (7, 40))
    weights = extreme_weights(chance, (40, 30))
    whole = saturating_product(inputs, weights)
    monkeypatch.setattr("accel.numerics.saturation._ELEMENTS", 70)
    assert np.array_equal(saturating_product(inputs, weights), whole)
    assert whole.tolist() == by_loops(inputs, weights)


@settings(deadline=None, max_examples=60)
@given(st.lists(st.integers(-128, 127), min_size=2, max_size=6))
def test_pairs_at_risk_are_those_that_some_input_saturates(weights: list[int]) -> None:
    def saturates(left: int, right: int) -> bool:
        sums = [a * left + b * right for a, b in product((0, 255), repeat=2)]  # linear: the worst is at a corner
        return any(clipped(value) != value for value in sums)

    expected = [k for k in range(0, len(weights) - 1, 2) if saturates(weights[k], weights[k + 1])]
    array = np.array([weights], np.int8)
    assert pairs_at_risk(array).product.tolist() == expected
    assert safe_in_any_order(array) == (not any(saturates(order[0], order[1]) for order in permutations(weights, 2)))


@pytest.mark.parametrize("products", [1, 2, 9])
def test_weights_of_7_bits_are_always_safe(products: int) -> None:
    assert Scheme(7).high == 63
    assert 255 * 2 * Scheme(7).high <= 32767
    for sign in (1, -1):
        worst = np.full((3, products), sign * Scheme(7).high, np.int8)
        assert not len(pairs_at_risk(worst))
        assert safe_in_any_order(worst)
    floats = np.random.default_rng(0).standard_normal((16, products)).astype(np.float32)
    integers, _ = quantize_tensor(floats, Scheme(7), Granularity(0))
    assert safe_in_any_order(integers.astype(np.int8))


def test_the_order_can_make_a_channel_safe() -> None:
    weights = np.array([[127, -127, 127, -127]], np.int8)
    assert not len(pairs_at_risk(weights))
    assert not safe_in_any_order(weights)


def test_parts_keep_channels_together_and_cover_all() -> None:
    channel = np.array([0, 0, 2, 2, 2, 3, 7], np.int32)
    pairs = Pairs(channel, channel, channel, channel)
    for limit in range(1, 9):
        parts = list(pairs.parts(limit))
        assert [index for part in parts for index in range(part.start, part.stop)] == list(range(7))
        for part in parts:
            assert part.stop - part.start <= limit or len(set(channel[part])) == 1
        assert all(channel[a.stop - 1] != channel[b.start] for a, b in pairwise(parts))
    nothing = np.zeros(0, np.int32)
    assert not list(Pairs(nothing, nothing, nothing, nothing).parts(4))


@settings(deadline=None, max_examples=40)
@given(
    kernel=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    strides=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    dilations=st.tuples(st.integers(1, 2), st.integers(1, 2)),
    pads=st.tuples(*[st.integers(0, 2)] * 4),
    size=st.tuples(st.integers(5, 8), st.integers(5, 8)),
)
def test_columns_are_what_each_place_of_a_window_sees(
    kernel: tuple[int, ...],
    strides: tuple[int, ...],
    dilations: tuple[int, ...],
    pads: tuple[int, ...],
    size: tuple[int, ...],
) -> None:
    inputs, _ = extreme_bytes(0, (2, 3, *size))
    window = Window(kernel, strides, dilations, pads)
    places = [(row, column, channel) for row in range(kernel[0]) for column in range(kernel[1]) for channel in (2, 0)]
    found = window.columns(
        inputs,
        np.array([row * kernel[1] + column for row, column, _ in places]),
        np.array([channel for *_, channel in places]),
        9,
    )
    height, width = window.size(size)
    for line, (row, column, channel) in zip(found, places, strict=True):
        expected = []
        for sample, y, x in product(range(2), range(height), range(width)):
            at = (
                y * strides[0] + row * dilations[0] - pads[0],
                x * strides[1] + column * dilations[1] - pads[1],
            )
            inside = 0 <= at[0] < size[0] and 0 <= at[1] < size[1]
            expected.append(int(inputs[sample, channel, at[0], at[1]]) if inside else 9)
        assert line.tolist() == expected
