"""What augmentations do to inputs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from accel.data.bind import Bound, bind
from accel.data.dataset import open_dataset
from accel.data.spec import DatasetSpec
from accel.errors import BindingMismatch
from accel.runtimes.sessions import Port
from accel.training.augment import Augmenter
from accel.training.augmentation import AnyAugmentation, Crop, Cutout, Flip, Mixup, Noise, Shift

NUMBERS = np.arange(200)


def bound(tmp_path: Path, rows: np.ndarray, *, batch: int | str = "n") -> Bound:
    np.savez(tmp_path / "d.npz", x_train=rows)
    dataset = open_dataset(tmp_path / "d.npz", DatasetSpec(), tmp_path)
    return bind(
        [Port("x", rows.dtype, (batch, *rows.shape[1:]))], [Port("y", rows.dtype, ("n", 1))], dataset, "train", None
    )


def changed(augmentation: AnyAugmentation, rows: np.ndarray, *, epoch: int = 0) -> np.ndarray:
    augmenter = Augmenter((augmentation,), 1, ("x",))
    return augmenter.applied({"x": rows}, NUMBERS[: len(rows)], epoch)["x"]


def images(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal((200, *shape)).astype(np.float32)


@pytest.mark.parametrize("shape", [(3, 8, 6), (8, 6, 3), (8, 6)])
@pytest.mark.parametrize("direction", ["horizontal", "vertical"])
def test_some_images_are_flipped(shape: tuple[int, ...], direction: str) -> None:
    rows = images(*shape)
    axis = {(3, 8, 6): 2, (8, 6, 3): 1, (8, 6): 1}[shape] + (direction == "horizontal")
    found = changed(Flip(direction=direction), rows)
    flipped = np.array([np.array_equal(one, np.flip(two, axis - 1)) for one, two in zip(found, rows, strict=True)])
    same = np.array([np.array_equal(one, two) for one, two in zip(found, rows, strict=True)])
    assert (flipped ^ same).all()
    assert 70 < flipped.sum() < 130
    assert np.array_equal(rows, images(*shape))  # what is given stays as it was


@pytest.mark.parametrize("fill", ["edge", "reflect", "zero"])
@pytest.mark.parametrize("shape", [(2, 7, 9), (7, 9, 2)])
def test_images_are_cropped_to_their_size(shape: tuple[int, ...], fill: str) -> None:
    rows = images(*shape)
    found = changed(Crop(padding=2, fill=fill), rows)
    assert found.shape == rows.shape
    mode = {"edge": "edge", "reflect": "symmetric", "zero": "constant"}[fill]
    first = shape == (2, 7, 9)
    padded = np.pad(rows, ((0, 0), (0, 0), (2, 2), (2, 2)) if first else ((0, 0), (2, 2), (2, 2), (0, 0)), mode=mode)
    places = set()
    for one, big in zip(found, padded, strict=True):
        (place,) = {
            (top, left)
            for top in range(5)
            for left in range(5)
            if np.array_equal(
                one, big[:, top : top + 7, left : left + 9] if first else big[top : top + 7, left : left + 9]
            )
        }
        places.add(place)
    assert len(places) == 25


def test_a_square_is_covered_with_the_mean() -> None:
    rows = images(1, 8, 8)
    found = changed(Cutout(side=0.25), rows)
    assert ((found != rows).sum((1, 2, 3)) == 4).all()
    assert np.allclose(found[0][found[0] != rows[0]], rows[0].mean())


def test_noise_has_the_power_that_was_asked_for() -> None:
    rows = images(4000)
    found = changed(Noise(snr_db=(20.0, 20.0), probability=0.5), rows)
    noisy = (found != rows).any(1)
    assert 70 < noisy.sum() < 130
    ratio = (rows[noisy] ** 2).mean() / ((found - rows)[noisy] ** 2).mean()
    assert 10 * np.log10(ratio) == pytest.approx(20, abs=0.2)


def test_sequences_are_shifted_and_filled_with_zeros() -> None:
    rows = np.ones((200, 2, 100), np.float32)
    found = changed(Shift(share=0.1), rows)
    gone = (found == 0).sum(2)
    assert gone.max() == 10
    assert gone.min() == 0
    assert (found[:, 0, 0] == 0).any()
    assert (found[:, 0, -1] == 0).any()


@pytest.mark.parametrize("augmentation", [Flip(), Crop(), Cutout(), Noise(), Shift()])
def test_what_happens_to_a_row_depends_on_its_number_and_the_epoch_alone(augmentation: AnyAugmentation) -> None:
    rows = images(1, 8, 8)
    augmenter = Augmenter((augmentation,), 1, ("x",))
    whole = augmenter.applied({"x": rows}, NUMBERS, 3)["x"]
    some = NUMBERS[[17, 4, 99]]
    assert np.array_equal(augmenter.applied({"x": rows[some]}, some, 3)["x"], whole[some])
    assert not np.array_equal(augmenter.applied({"x": rows}, NUMBERS, 4)["x"], whole)
    assert not np.array_equal(Augmenter((augmentation,), 2, ("x",)).applied({"x": rows}, NUMBERS, 3)["x"], whole)


def test_rows_that_fill_a_batch_up_stay() -> None:
    rows = images(1, 8, 8)[:4]
    found = Augmenter((Noise(),), 1, ("x",)).applied({"x": rows}, NUMBERS[:3], 0)["x"]
    assert np.array_equal(found[3], rows[3])
    assert not np.array_equal(found[2], rows[2])


def test_an_augmentation_without_anything_to_change_is_named(tmp_path: Path) -> None:
    table = bound(tmp_path, images(5))
    for augmentation in (Flip(), Crop(), Cutout()):
        with pytest.raises(BindingMismatch, match=rf"{augmentation.augmentation} fits no input.*float32 \[5\]"):
            Augmenter.of([augmentation], table, 0)
    whole = bound(tmp_path, np.arange(20).reshape(10, 2))
    with pytest.raises(BindingMismatch, match="noise fits no input"):
        Augmenter.of([Noise()], whole, 0)
    with pytest.raises(BindingMismatch, match="twice"):
        Augmenter.of([Mixup(), Mixup()], table, 0)
    with pytest.raises(BindingMismatch, match="insists on batches of 4"):
        Augmenter.of([Mixup()], bound(tmp_path, images(5), batch=4), 0)
