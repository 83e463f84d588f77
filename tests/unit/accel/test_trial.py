"""Which rows a part of a trial has."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from accel.evaluation.trial import spread


@given(st.integers(1, 300), st.integers(0, 300))
def test_a_part_has_other_rows_each_in_their_order(rows: int, others: int) -> None:
    found = spread(rows + others, rows)
    assert len(found) == rows
    assert (np.diff(found) > 0).all()
    assert found[0] == 0
    assert found[-1] < rows + others
    assert rows < 4 or found[-1] == rows + others - 1


@pytest.mark.parametrize("rows", [16, 32, 512])
def test_a_part_sees_all_of_a_sorted_file_and_keeps_neighbours_together(rows: int) -> None:
    found = spread(4000, rows)
    assert len({int(row) * 4 // 4000 for row in found}) == 4
    assert np.mean(np.diff(found) == 1) > 0.7
