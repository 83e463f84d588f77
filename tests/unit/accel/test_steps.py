"""The steps of a binding against the plainest code that does the same."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from accel.data.binding import Cast, Normalize, Pad, Reshape, Scale, Transpose
from accel.data.steps import apply_step

DTYPES = st.sampled_from([np.uint8, np.int16, np.int64, np.float32, np.float64])
SIDES = st.integers(1, 5)
NUMBERS = st.floats(-4, 4, width=32)


def batch(seed: int, dtype: type, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 100, shape).astype(dtype)


@given(st.integers(0, 99), DTYPES, SIDES, SIDES, NUMBERS, NUMBERS)
def test_scale(seed: int, dtype: type, rows: int, width: int, multiply: float, add: float) -> None:
    given_batch = batch(seed, dtype, rows, width)
    found = apply_step(Scale(multiply=multiply, add=add), given_batch)
    assert found.dtype == np.float32
    for i in range(rows):
        for j in range(width):
            assert found[i, j] == pytest.approx(float(given_batch[i, j]) * multiply + add, rel=1e-5, abs=1e-4)


@given(st.integers(0, 99), DTYPES, SIDES, st.lists(st.tuples(NUMBERS, st.floats(0.5, 4)), min_size=2, max_size=4))
def test_normalize_each_channel(seed: int, dtype: type, rows: int, channels: list[tuple[float, float]]) -> None:
    given_batch = batch(seed, dtype, rows, len(channels), 3)
    step = Normalize(mean=tuple(m for m, _ in channels), std=tuple(s for _, s in channels))
    found = apply_step(step, given_batch)
    last = apply_step(step.model_copy(update={"axis": 2}), given_batch.transpose(0, 2, 1))
    for i in range(rows):
        for c, (mean, std) in enumerate(channels):
            for j in range(3):
                expected = (float(given_batch[i, c, j]) - mean) / std
                assert found[i, c, j] == pytest.approx(expected, rel=1e-4, abs=1e-4)
                assert last[i, j, c] == found[i, c, j]


@given(st.integers(0, 99), DTYPES, SIDES, SIDES, SIDES, st.tuples(*[st.integers(0, 3)] * 4), st.integers(0, 9))
def test_pad(
    seed: int, dtype: type, rows: int, high: int, wide: int, by: tuple[int, int, int, int], value: int
) -> None:
    given_batch = batch(seed, dtype, rows, high, wide)
    found = apply_step(Pad(widths=((by[0], by[1]), (by[2], by[3])), value=value), given_batch)
    assert found.dtype == given_batch.dtype
    assert found.shape == (rows, high + by[0] + by[1], wide + by[2] + by[3])
    for place in np.ndindex(found.shape):
        i, y, x = place[0], place[1] - by[0], place[2] - by[2]
        inside = 0 <= y < high and 0 <= x < wide
        assert found[place] == (given_batch[i, y, x] if inside else value)


@given(st.integers(0, 99), SIDES, SIDES, SIDES, st.permutations([0, 1, 2]))
def test_transpose_and_back(seed: int, first: int, second: int, third: int, axes: list[int]) -> None:
    given_batch = batch(seed, np.int16, 2, first, second, third)
    there = apply_step(Transpose(axes=tuple(axes)), given_batch)
    for place in np.ndindex(there.shape[1:]):
        back = [0, 0, 0]
        for to, axis in enumerate(axes):
            back[axis] = place[to]
        assert there[(0, *place)] == given_batch[(0, *back)]
    again = apply_step(Transpose(axes=tuple(int(i) for i in np.argsort(axes))), there)
    np.testing.assert_array_equal(again, given_batch)


@given(st.integers(0, 99), SIDES, SIDES, SIDES)
def test_reshape_never_mixes_rows(seed: int, rows: int, first: int, second: int) -> None:
    given_batch = batch(seed, np.int16, rows, first, second)
    found = apply_step(Reshape(shape=(second, -1)), given_batch)
    for i in range(rows):
        np.testing.assert_array_equal(found[i].ravel(), given_batch[i].ravel())
    with pytest.raises(ValueError, match="reshape"):
        apply_step(Reshape(shape=(first * second + 1,)), given_batch)


@given(st.integers(0, 99), DTYPES)
def test_cast(seed: int, dtype: type) -> None:
    given_batch = batch(seed, dtype, 3, 4)
    for name in ("float32", "int64", "uint8"):
        assert apply_step(Cast(dtype=name), given_batch).tolist() == given_batch.tolist()
