"""Rows for calibrating, for choosing and for judging."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from accel.data.bind import Bound, Feed, bind
from accel.data.dataset import Dataset, open_dataset
from accel.data.division import Division, divide
from accel.data.spec import DatasetSpec
from accel.errors import BadDataset
from accel.runtimes.sessions import Port

INPUT = Port("x", np.dtype(np.float32), ("n", 1))
OUTPUT = Port("y", np.dtype(np.float32), ("n", 2))


def dataset(folder: Path, **rows: int) -> Dataset:
    """Splits of so many rows, each row with a number of its own."""
    first, arrays = 0, {}
    for split, count in rows.items():
        arrays[f"x_{split}"] = np.arange(first, first + count, dtype=np.float32)[:, None]
        first += count
    path = folder / "data.npz"
    np.savez(path, **arrays)
    return open_dataset(path, DatasetSpec(), folder)


def divided(data: Dataset, *, samples: int = 10, choosing: bool = True, seed: int = 0) -> Division:
    """Divide a dataset for a model of one input."""
    return divide(
        data,
        lambda split: bind((INPUT,), (OUTPUT,), data, split, None),
        samples=samples,
        choosing=choosing,
        seed=seed,
    )


def numbers(bound: Bound | None) -> set[int]:
    """Which rows these are."""
    if bound is None or not len(bound):
        return set()
    (feed,) = bound.feeds
    assert isinstance(feed, Feed)
    return {int(value) for value in feed.batch(0, len(bound)).ravel()}


@pytest.mark.parametrize("samples", [1, 10, 500])
@pytest.mark.parametrize(
    "rows",
    [
        {"train": 100, "test": 50},
        {"train": 100, "validation": 20, "test": 50},
        {"test": 40},
        {"train": 40},
        {"validation": 30, "test": 8},
        {"train": 9, "test": 5},
    ],
)
def test_no_row_serves_two_purposes(rows: dict[str, int], samples: int, tmp_path: Path) -> None:
    found = divided(dataset(tmp_path, **rows), samples=samples)
    judged, calibration, selection = map(numbers, (found.judged, found.calibration, found.selection))
    assert judged
    assert calibration
    assert selection
    assert not judged & calibration
    assert not judged & selection
    if calibration & selection:
        assert any("chosen by as well" in note for note in found.notes), found.notes
    if len(rows) > 1 and samples == 10:
        assert len(calibration) == min(10, rows.get("train", rows.get("validation", 0)))
        assert len(judged) == rows["test"], "a split of its own is judged on whole"


def test_a_single_split_is_divided_and_that_is_said(tmp_path: Path) -> None:
    found = divided(dataset(tmp_path, test=40), samples=10)
    assert [len(numbers(part)) for part in (found.calibration, found.selection, found.judged)] == [10, 10, 20]
    assert "10 of its 40 rows are calibrated on, 10 chosen by, and the other 20 judged on" in found.notes[0]


def test_nothing_is_taken_where_nothing_is_calibrated(tmp_path: Path) -> None:
    found = divided(dataset(tmp_path, test=40), samples=0, choosing=False)
    assert len(found.judged) == 40
    assert found.selection is None
    assert found.notes == ()


@pytest.mark.parametrize("rows", [1, 2, 3])
def test_too_few_rows_serve_all_and_that_is_said(rows: int, tmp_path: Path) -> None:
    found = divided(dataset(tmp_path, test=rows))
    assert len(found.judged) == len(found.calibration) == rows
    assert f"has {rows} row" in found.notes[0]


def test_no_rows_at_all(tmp_path: Path) -> None:
    empty = dataset(tmp_path, test=3)
    empty.splits["test"] = {name: column.select(np.empty(0, np.int64)) for name, column in empty.splits["test"].items()}
    with pytest.raises(BadDataset):
        divided(empty)


@given(rows=st.integers(4, 200), samples=st.integers(1, 300), seed=st.integers(0, 5))
def test_any_single_split(rows: int, samples: int, seed: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("division")
    data = dataset(folder, train=rows)
    found = divided(data, samples=samples, seed=seed)
    parts = [numbers(part) for part in (found.judged, found.calibration, found.selection)]
    assert set.union(*parts) == set(range(rows))
    assert sum(map(len, parts)) == rows
    assert len(parts[0]) >= rows // 2
    again = divided(data, samples=samples, seed=seed)
    assert numbers(again.calibration) == parts[1], "the same seed draws the same rows"


@pytest.mark.parametrize(
    ("rows", "samples", "choosing", "used"),
    [
        ({"train": 9, "validation": 9, "test": 9}, 5, True, ("train", "validation", "test")),
        ({"train": 9, "test": 9}, 5, True, ("train", "train", "test")),
        ({"train": 9, "test": 9}, 5, False, ("train", None, "test")),
        ({"train": 9, "test": 9}, 0, False, (None, None, "test")),
        ({"test": 9}, 5, True, ("test", "test", "test")),
        ({"test": 9}, 0, False, (None, None, "test")),
        ({"test": 2}, 5, True, ("test", "test", "test")),
    ],
)
def test_which_splits_were_used_is_said(
    rows: dict[str, int], samples: int, *, choosing: bool, used: tuple[str | None, ...], tmp_path: Path
) -> None:
    splits = divided(dataset(tmp_path, **rows), samples=samples, choosing=choosing).splits
    assert (splits.calibrated_on, splits.chosen_by, splits.judged_on) == used
