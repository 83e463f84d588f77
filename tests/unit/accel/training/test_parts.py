"""What is trained on, and what is judged by."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from accel.data.bind import Bound, bind
from accel.data.binding import Binding
from accel.data.dataset import Dataset, open_dataset
from accel.data.spec import DatasetSpec
from accel.errors import BadDataset
from accel.runtimes.sessions import Port
from accel.training.parts import Parts, divide
from accel.training.settings import TrainingSettings

FLOAT = np.dtype(np.float32)


def opened(tmp_path: Path, **arrays: np.ndarray) -> Dataset:
    np.savez(tmp_path / "d.npz", **arrays)
    return open_dataset(tmp_path / "d.npz", DatasetSpec(), tmp_path)


def divided(
    dataset: Dataset, tmp_path: Path, *, split: str = "train", group: str | None = None, **settings: object
) -> Parts:
    def bind_split(name: str) -> Bound:
        return bind([Port("x", FLOAT, ("n", 2))], [Port("s", FLOAT, ("n", 4))], dataset, name, Binding(group=group))

    return divide(dataset, bind_split, split, TrainingSettings(**settings), tmp_path)


def rows(count: int, shift: int = 0) -> np.ndarray:
    return np.stack([np.arange(count) + shift, np.zeros(count)], 1).astype(np.float32)


def seen(bound: Bound | None) -> set[int]:
    assert bound is not None
    return set(bound.feed(0, len(bound))["x"][:, 0].astype(int).tolist())


def test_a_tenth_is_held_out_of_each_class(tmp_path: Path) -> None:
    y = np.random.default_rng(0).choice(4, 1000, p=[0.7, 0.2, 0.08, 0.02])
    parts = divided(opened(tmp_path, x_train=rows(1000), y_train=y), tmp_path)
    train, held = seen(parts.train), seen(parts.validation)
    assert train | held == set(range(1000))
    assert not train & held
    assert len(held) == 100
    wanted = np.bincount(y) / 10
    assert (np.abs(np.bincount(y[sorted(held)], minlength=4) - wanted) <= 1).all()
    assert parts.validated_on == "train"
    assert "100 of the 1,000 rows of `train`" in parts.notes[0]


def test_another_seed_holds_others_out(tmp_path: Path) -> None:
    dataset = opened(tmp_path, x_train=rows(100), y_train=np.zeros(100, np.int64))
    first, same, other = (seen(divided(dataset, tmp_path, seed=seed).validation) for seed in (1, 1, 2))
    assert first == same != other


def test_groups_are_not_torn(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    groups, y = generator.integers(0, 60, 1000), generator.integers(0, 4, 1000)
    dataset = opened(tmp_path, x_train=rows(1000), y_train=y, who_train=groups)
    parts = divided(dataset, tmp_path, group="who", validation=0.2)
    held = seen(parts.validation)
    assert not set(groups[sorted(held)]) & set(groups[sorted(seen(parts.train))])
    assert 150 < len(held) < 250
    share = np.bincount(y[sorted(held)], minlength=4) / np.bincount(y)
    assert (np.abs(share - 0.2) < 0.06).all()


def test_of_two_large_groups_the_smaller_is_held_out(tmp_path: Path) -> None:
    groups = np.repeat([0, 1], [70, 30])
    dataset = opened(tmp_path, x_train=rows(100), y_train=np.zeros(100, np.int64), who_train=groups)
    assert len(seen(divided(dataset, tmp_path, group="who").validation)) == 30


def test_a_split_is_judged_by_where_there_is_one(tmp_path: Path) -> None:
    dataset = opened(
        tmp_path,
        **{f"x_{name}": rows(20, shift) for name, shift in (("train", 0), ("validation", 100), ("test", 200))},
        **{f"y_{name}": np.zeros(20, np.int64) for name in ("train", "validation", "test")},
    )
    parts = divided(dataset, tmp_path)
    assert parts.validated_on == "validation"
    assert seen(parts.validation) == set(range(100, 120))
    assert seen(parts.train) == set(range(20))
    by_share = divided(dataset, tmp_path, validation=0.5)
    assert by_share.validated_on == "train"
    assert len(seen(by_share.validation)) == 10
    by_test = divided(dataset, tmp_path, validation="test")
    assert "too good" in by_test.notes[0]
    nothing = divided(dataset, tmp_path, validation=0)
    assert nothing.validation is None


def test_numbers_that_are_no_classes_are_held_out_by_chance(tmp_path: Path) -> None:
    dataset = opened(tmp_path, x_train=rows(50), y_train=np.linspace(0, 1, 50, dtype=np.float32))
    assert len(seen(divided(dataset, tmp_path).validation)) == 5


@pytest.mark.parametrize(
    ("split", "settings", "said"),
    [
        ("learn", {}, "no split 'learn' to train on; it has train"),
        ("train", {"validation": "train"}, "cannot both be trained on and judged by"),
        ("train", {"validation": "dev"}, "no split 'dev' to judge by"),
        ("train", {"validation": 0.01}, "too few to hold out 1%"),
    ],
)
def test_what_cannot_be_divided_says_so(tmp_path: Path, split: str, settings: dict[str, object], said: str) -> None:
    dataset = opened(tmp_path, x_train=rows(10), y_train=np.zeros(10, np.int64))
    with pytest.raises(BadDataset, match=said) as caught:
        divided(dataset, tmp_path, split=split, **settings)
    assert caught.value.hint
