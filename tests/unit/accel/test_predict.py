"""The pass over a split: what is kept of outputs, and batches that are taken in together."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from accel.data.bind import Bound
from accel.evaluation.predict import FirstRows, _together

BOUND = Bound((), None, "y", None)


def test_first_rows_stop_at_their_bound(tmp_path: Path) -> None:
    first = FirstRows(tmp_path, most_bytes=100)
    whole = np.arange(60, dtype=np.float32).reshape(20, 3)
    for start in range(0, 20, 4):
        if first.wanted:
            first.add(
                {"y": whole[start : start + 4], "half": whole[start : start + 4, :1].astype(np.float16)}, BOUND, 4
            )
    assert not first.wanted
    found = first.arrays()
    np.testing.assert_array_equal(found["y"], whole[:7])  # 7 rows of 14 bytes
    np.testing.assert_array_equal(found["half"], whole[:7, :1])
    assert (first.form("y").shape, first.form("y").floats) == ((3,), True)


def test_outputs_that_change_their_shape_are_kept_as_far_as_they_do_not(tmp_path: Path) -> None:
    first = FirstRows(tmp_path)
    for width in (5, 5, 7, 5):
        first.add({"y": np.zeros((2, width)), "z": np.ones((2, 1)), "state": np.ones((3, 2))}, BOUND, 2)
    found = first.arrays()
    assert {name: array.shape for name, array in found.items()} == {"y": (4, 5), "z": (8, 1)}


def test_an_output_whose_rows_are_beyond_the_bound(tmp_path: Path) -> None:
    first = FirstRows(tmp_path, most_bytes=10)
    first.add({"y": np.zeros((2, 5))}, BOUND, 2)
    assert not first.wanted
    assert first.arrays() == {}
    assert first.form("y").shape == (5,)


@pytest.mark.parametrize("shapes", [[(4, 3)] * 9 + [(2, 3)], [(1, 2), (1, 5), (1, 5), (1, 2)], [(4, 40_000)] * 3])
def test_batches_are_joined_where_they_are_alike(shapes: list[tuple[int, int]]) -> None:
    chance = np.random.default_rng(0)
    batches = [(chance.random(shape), chance.random(shape)) for shape in shapes]
    joined = list(_together(iter(batches)))
    assert len(joined) == {10: 1, 4: 3, 3: 3}[len(shapes)]
    for place in (0, 1):
        rows = [row.tolist() for batch in batches for row in batch[place]]
        assert [row.tolist() for batch in joined for row in batch[place]] == rows
