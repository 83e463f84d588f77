from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from accel.data.dataset import open_dataset
from accel.data.spec import DatasetSpec, Splits
from accel.errors import BadDataset


def opened(tmp_path: Path, spec: DatasetSpec | None = None, **arrays: np.ndarray):
    path = tmp_path / "d.npz"
    np.savez_compressed(path, **arrays)
    work = tmp_path / "work"
    work.mkdir(exist_ok=True)
    return open_dataset(path, spec or DatasetSpec(), work)


def test_splits_come_from_the_names(tmp_path: Path) -> None:
    data = opened(
        tmp_path,
        x_train=np.zeros((5, 3), np.float32),
        y_train=np.arange(5),
        x_test=np.ones((2, 3), np.float32),
        y_test=np.array([0, 7]),
        class_names=np.array(["a", "b"]),
        scale=np.float32(2),
    )
    assert data.summary.splits == {"train": 5, "test": 2}
    assert (data.summary.target, data.summary.task, data.summary.classes) == ("y", "classification", 8)
    assert data.summary.class_names == ("a", "b")
    assert any("'scale'" in note for note in data.summary.notes)
    np.testing.assert_array_equal(data.split("test")["x"].take(1, 2), np.ones((1, 3)))
    with pytest.raises(BadDataset, match="no split 'dev'") as caught:
        data.split("dev")
    assert "train, test" in caught.value.hint


def test_arrays_without_a_split_are_one_table(tmp_path: Path) -> None:
    data = opened(tmp_path, x=np.zeros((6, 2)), y=np.linspace(0, 1, 6), feature_names=np.array(["a", "b"]))
    assert data.summary.splits == {"test": 6}
    assert data.summary.task == "regression"
    assert [column.name for column in data.summary.columns] == ["x", "y"]


def test_fractions_are_seeded_and_stratified(tmp_path: Path) -> None:
    y = np.repeat([0, 1], [80, 20])
    arrays = {"x": np.arange(100, dtype=np.float32)[:, None], "y": y}
    spec = DatasetSpec(splits=Splits(fractions={"train": 0.75, "test": 0.25}, seed=3, stratify="y"))
    data = opened(tmp_path, spec, **arrays)
    assert data.summary.splits == {"train": 75, "test": 25}
    train, test = (data.split(name)["x"].take(0, 100)[:, 0] for name in ("train", "test"))
    assert sorted([*train, *test]) == list(range(100))
    assert (data.split("test")["y"].take(0, 25) == 1).sum() == 5
    np.testing.assert_array_equal(opened(tmp_path, spec, **arrays).split("train")["x"].take(0, 100)[:, 0], train)


def test_a_column_of_one_number_a_row_stratifies_too(tmp_path: Path) -> None:
    spec = DatasetSpec(splits=Splits(fractions={"train": 0.5, "test": 0.5}, stratify="y"))
    data = opened(tmp_path, spec, x=np.arange(8.0)[:, None], y=np.repeat([0, 1], 4)[:, None])
    assert data.split("test")["y"].take(0, 4).sum() == 2


@pytest.mark.parametrize(
    ("arrays", "spec", "says"),
    [
        ({"x_test": np.zeros((3, 1)), "y_test": np.zeros(2)}, DatasetSpec(), "differ in length"),
        ({"x_test": np.float32(1)}, DatasetSpec(), "single value"),
        ({"x": np.float32(1)}, DatasetSpec(), "no array with rows"),
        ({"x_test": np.zeros((3, 1))}, DatasetSpec(target="label"), "no column 'label'"),
        (
            {"x_test": np.zeros((3, 1))},
            DatasetSpec(splits=Splits(fractions={"test": 1.0})),
            "split by their names already",
        ),
        (
            {"x": np.zeros((3, 1))},
            DatasetSpec(splits=Splits(fractions={"test": 1.0}, stratify="z")),
            "no column 'z' to stratify",
        ),
        (
            {"x": np.zeros((3, 1)), "y": np.zeros((3, 4), np.int64)},
            DatasetSpec(splits=Splits(fractions={"train": 0.5, "test": 0.5}, stratify="y")),
            r"Rows of 'y' have the shape \[4\].*one value a row",
        ),
    ],
)
def test_what_does_not_fit_is_refused(tmp_path: Path, arrays: dict, spec: DatasetSpec, says: str) -> None:
    with pytest.raises(BadDataset, match=says):
        opened(tmp_path, spec, **arrays)


def test_fractions_must_add_up() -> None:
    with pytest.raises(ValueError, match="add up to 1"):
        Splits(fractions={"train": 0.5, "test": 0.6})
