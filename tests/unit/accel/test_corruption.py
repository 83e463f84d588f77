"""Corrupted samples: the same for every model, as strong as they should be, and of the column's own type."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from accel.data.bind import Bound, bind
from accel.data.binding import Binding, ColumnInput
from accel.data.corrupted import corrupted
from accel.data.corruption import Corruption, CorruptionName
from accel.data.damage import Damage, Facts, spatial
from accel.data.dataset import open_dataset
from accel.data.spec import DatasetSpec
from accel.errors import BindingMismatch
from accel.runtimes.sessions import Port

OUTPUT = Port("y", np.dtype(np.float32), ("n", 4))
IMAGES: tuple[CorruptionName, ...] = ("gaussian_noise", "blur", "brightness", "occlusion")


def bound_to(folder: Path, column: np.ndarray, dtype: str | None = None) -> Bound:
    """A split of one column, fed as it is."""
    np.savez(folder / "d.npz", x_test=column)
    port = Port("x", np.dtype(dtype or column.dtype), ("n", *column.shape[1:]))
    dataset = open_dataset(folder / "d.npz", DatasetSpec(), folder)
    binding = Binding.model_validate(
        {"inputs": {"x": {"column": "x", "steps": [{"step": "cast", "dtype": dtype}] if dtype else []}}}
    )
    return bind([port], [OUTPUT], dataset, "test", binding)


def fed(bound: Bound, size: int) -> np.ndarray:
    return np.concatenate([batch["x"] for batch in bound.batches(len(bound), size)])


def images(dtype: type, rows: int = 12, *shape: int) -> np.ndarray:
    values = np.random.default_rng(3).random((rows, *(shape or (16, 12))))
    return (values * (1 if np.dtype(dtype).kind == "f" else 255)).astype(dtype)


def damage(name: CorruptionName, severity: int, facts: Facts, seed: int = 0) -> Damage:
    return Damage(Corruption(corruption=name, severity=severity), seed, "x", facts)


@pytest.mark.parametrize("name", [*IMAGES, "audio_noise", "missing"])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.float16, np.int16])
def test_batches_seed_and_selection_do_not_change_a_row(tmp_path: Path, name: CorruptionName, dtype: type) -> None:
    if (name in IMAGES and dtype is np.int16) or (name == "audio_noise" and dtype is np.uint8):
        return
    column = images(dtype) if name in IMAGES else images(dtype, 12, 200)
    bound = bound_to(tmp_path, column, "float32" if name == "missing" else None)
    asked = Corruption(corruption=name, severity=4)
    whole = fed(corrupted(bound, asked, seed=1), 12)
    assert whole.dtype == (np.float32 if name == "missing" else dtype)
    assert np.isfinite(whole).all()
    assert not np.array_equal(whole, column)
    for size in (1, 5):
        np.testing.assert_array_equal(fed(corrupted(bound, asked, seed=1), size), whole)
    index = np.array([7, 2, 9])
    np.testing.assert_array_equal(fed(corrupted(bound, asked, seed=1).select(index), 2), whole[index])
    other = fed(corrupted(bound, asked, seed=2), 12)
    assert np.array_equal(other, whole) == (name in {"blur", "brightness"})


@given(st.sampled_from(IMAGES), st.integers(1, 5), st.integers(0, 9), st.sampled_from([0.0, -3.0]))
def test_pixels_stay_within_the_range(name: CorruptionName, severity: int, seed: int, low: float) -> None:
    floats = (images(np.float32) * 5 + low).astype(np.float32)
    facts = Facts(low=float(floats.min()), high=float(floats.max()))
    found = damage(name, severity, facts, seed).apply(floats, np.arange(len(floats)))
    assert found.dtype == np.float32
    assert found.min() >= facts.low - 1e-5
    assert found.max() <= facts.high + 1e-5


def test_noise_is_as_loud_as_in_the_paper() -> None:
    grey = np.full((64, 32, 32), 127, np.uint8)
    facts = Facts(low=0, high=255)
    for name, shares in (("small", (0.04, 0.06, 0.08, 0.09, 0.10)), ("large", (0.08, 0.12, 0.18, 0.26, 0.38))):
        batch = grey if name == "small" else np.full((8, 96, 96, 3), 127, np.uint8)
        for severity, share in enumerate(shares, 1):
            found = damage("gaussian_noise", severity, facts).apply(batch, np.arange(len(batch)))
            clipped = np.clip(127 / 255 + np.random.default_rng(0).standard_normal(100_000) * share, 0, 1).std()
            assert found.std() / 255 == pytest.approx(clipped, rel=0.02)


def test_blur_is_scipys_on_the_image_axes_only() -> None:
    batch = images(np.float32, 3, 3, 20, 24)
    found = damage("blur", 5, Facts()).apply(batch, np.arange(3))
    plain = np.stack([[ndimage.gaussian_filter(c.astype(np.float64), 1.0) for c in row] for row in batch])
    np.testing.assert_allclose(found, plain, rtol=1e-5)


def test_where_the_image_is() -> None:
    assert spatial((28, 28)) == (1, 2)
    assert spatial((3, 28, 28)) == (2, 3)
    assert spatial((28, 28, 3)) == (1, 2)
    assert spatial((2, 5, 28, 28)) == (3, 4)


def test_occlusion_is_one_square() -> None:
    batch = np.zeros((20, 30, 40, 3), np.uint8)
    found = damage("occlusion", 3, Facts(low=0, high=255)).apply(batch, np.arange(20))
    places = set()
    for row in found:
        down, across = np.nonzero(row[..., 0])
        assert set(row[down, across].reshape(-1)) == {128}
        assert (np.ptp(down) + 1, np.ptp(across) + 1, len(down)) == (12, 12, 144)
        places.add((int(down[0]), int(across[0])))
    assert len(places) > 10


def test_brightness_adds_and_stops_at_white() -> None:
    batch = np.array([[[0, 100, 250, 255]] * 2], np.uint8)
    found = damage("brightness", 5, Facts(low=0, high=255)).apply(batch, np.arange(1))
    assert found[0, 0].tolist() == [76, 176, 255, 255]


def test_audio_noise_is_measured_against_the_split(tmp_path: Path) -> None:
    tone = np.sin(np.arange(8000) / 10).astype(np.float32)
    column = np.stack([tone, np.zeros_like(tone)])  # power of the split: a quarter
    for severity, snr_db in enumerate((30, 20, 15, 10, 5), 1):
        found = fed(
            corrupted(bound_to(tmp_path, column), Corruption(corruption="audio_noise", severity=severity), seed=0), 1
        )
        noise = ((found - column) ** 2).mean(1)
        assert noise == pytest.approx([0.25 * 10 ** (-snr_db / 10)] * 2, rel=0.1)


def test_missing_values_are_the_mean_of_what_is_there(tmp_path: Path) -> None:
    column = np.random.default_rng(0).normal(5, 2, (2000, 3)).astype(np.float32)
    column[0] = np.nan
    found = fed(corrupted(bound_to(tmp_path, column), Corruption(corruption="missing", severity=3), seed=0), 64)
    changed = ~np.isclose(found[1:], column[1:])
    assert changed.mean() == pytest.approx(0.2, abs=0.02)
    for place in range(3):
        assert found[1:][changed[:, place], place] == pytest.approx(np.nanmean(column[:, place]), rel=1e-5)


@pytest.mark.parametrize(
    ("name", "column"),
    [
        ("blur", np.zeros((4, 16), np.float32)),
        ("gaussian_noise", np.zeros((4, 8, 8), np.int64)),
        ("occlusion", np.zeros((4, 1, 16), np.float32)),
        ("audio_noise", np.zeros((4, 8, 8), np.float32)),
        ("audio_noise", np.zeros((4, 80), np.int64)),
        ("missing", np.zeros((4, 8, 8), np.float32)),
        ("missing", np.zeros((4, 8), np.int64)),
    ],
)
def test_what_does_not_fit_is_refused(tmp_path: Path, name: CorruptionName, column: np.ndarray) -> None:
    with pytest.raises(BindingMismatch, match=rf"{name} fits no column.*'x' has rows of {column.dtype}") as caught:
        corrupted(bound_to(tmp_path, column), Corruption(corruption=name), seed=0)
    assert "It is of" in caught.value.hint


def test_the_second_of_each_pair_is_damaged_too(tmp_path: Path) -> None:
    x = np.ones((6, 4), np.float32) * np.arange(6, dtype=np.float32)[:, None]
    np.savez(tmp_path / "d.npz", x_test=x, other_test=x + 1)
    dataset = open_dataset(tmp_path / "d.npz", DatasetSpec(), tmp_path)
    binding = Binding.model_validate(
        {
            "inputs": {"x": {"column": "x"}},
            "decoder": {"decoder": "embedding", "second": {"x": ColumnInput(column="other").model_dump()}},
        }
    )
    bound = bind([Port("x", np.dtype(np.float32), ("n", 4))], [OUTPUT], dataset, "test", binding)
    first, second = corrupted(bound, Corruption(corruption="missing", severity=5), seed=0).runs(0, 6)
    assert set(np.unique(first["x"])) == {0, 1, 2, 3, 4, 5, 2.5}
    assert set(np.unique(second["x"])) == {1, 2, 3, 4, 5, 6, 3.5}
    assert not np.array_equal(first["x"] == 2.5, second["x"] == 3.5)
