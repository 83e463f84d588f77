"""Parts of tensors: slices in every direction, splits and joins against NumPy and ONNX Runtime, and gradients."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from accel.errors import TrainingFailed
from tests.one_node import computed, gradients_agree, graph_of, model_of, run
from tests.onnxruntime_reference import assert_agrees

X = np.random.default_rng(0).standard_normal((5, 6, 4))
SINGLE = X.astype(np.float32)
FIRST, LAST = np.iinfo(np.int64).min, np.iinfo(np.int64).max


def ints(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


def test_slices_are_those_of_numpy() -> None:
    chance = np.random.default_rng(1)
    places = [FIRST, -20, -5, -3, -1, 0, 1, 2, 4, 5, 6, 20, LAST]
    graph = graph_of("Slice", [SINGLE, ints(0, 0), ints(0, 0), ints(0, 0), ints(1, 1)])
    for _ in range(150):
        axes, ends = chance.permutation(3)[:2], chance.choice(places[:-1], 2)
        starts = chance.choice(places[3:], 2)  # backwards, NumPy takes what lies before the first for nothing
        steps = chance.choice([1, 1, 2, 3, -1, -2, -4, LAST], 2)
        chosen = [slice(None)] * 3
        for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
            chosen[axis] = slice(int(start), int(end), int(step))
        given = [starts, ends, axes - 3 * chance.integers(0, 2), steps]
        feeds = {f"x{place + 1}": torch.from_numpy(value) for place, value in enumerate(given)}
        found = graph({"x0": torch.from_numpy(SINGLE)} | feeds)["y0"]
        np.testing.assert_array_equal(found, SINGLE[tuple(chosen)], err_msg=str(given))


@pytest.mark.parametrize("steps", [(1, 1), (2, 1), (-1, 1), (-2, -1)])
@pytest.mark.parametrize("starts", [(0, 1), (-2, 3), (4, -1), (-20, 20)])
@pytest.mark.parametrize("ends", [(5, 6), (-1, 1), (FIRST, LAST), (2, -20)])
def test_slices_agree(starts: tuple[int, ...], ends: tuple[int, ...], steps: tuple[int, ...]) -> None:
    assert_agrees("Slice", [SINGLE, ints(*starts), ints(*ends), ints(1, -1), ints(*steps)])


def test_slices_by_attributes() -> None:
    assert_agrees("Slice", [SINGLE], opset=9, starts=[1, -3], ends=[LAST, -1])
    assert_agrees("Slice", [SINGLE], opset=9, starts=[1, -3], ends=[3, 20], axes=[2, 1])
    assert_agrees("Slice", [SINGLE, ints(1), ints(3)], opset=10)
    assert_agrees("Slice", [SINGLE, *(ints(n).astype(np.int32) for n in (1, 3, 2))], opset=11)


def test_a_slice_of_step_one_is_a_view() -> None:
    x = torch.from_numpy(SINGLE)
    feeds = {f"x{place}": torch.tensor([value]) for place, value in enumerate((0, 1, 3, 1))} | {"x0": x}
    found = graph_of("Slice", [SINGLE, ints(1), ints(3), ints(1)])(feeds)["y0"]
    assert isinstance(found, torch.Tensor)
    assert found.data_ptr() == x[:, 1:3].data_ptr()


def test_equal_parts() -> None:
    for opset in (7, 11, 13):
        assert_agrees("Split", [SINGLE], opset=opset, axis=1, outputs=3)
    assert_agrees("Split", [SINGLE], opset=18, axis=-2, outputs=3, num_outputs=3)
    assert_agrees("Split", [SINGLE], opset=18, outputs=2, num_outputs=2)
    with pytest.raises(TrainingFailed, match="the size 5 of the axis 0 is no multiple of 2"):
        run("Split", [X], opset=13, outputs=2)


def test_parts_of_given_sizes() -> None:
    assert_agrees("Split", [SINGLE], opset=11, axis=1, outputs=3, split=[1, 0, 5])
    for opset in (13, 18):
        assert_agrees("Split", [SINGLE, ints(1, 0, 5)], opset=opset, axis=1, outputs=3)
    assert_agrees("Split", [SINGLE, ints(5)], opset=13)
    with pytest.raises(TrainingFailed, match=r"The node 'node' \(Split\)"):
        run("Split", [X, ints(1, 2)], axis=1, outputs=2)


def test_parts_laid_end_to_end() -> None:
    assert_agrees("Concat", [SINGLE, SINGLE[:, :1], SINGLE[:, 2:2]], axis=-2)
    np.testing.assert_array_equal(run("Concat", [X, X], opset=3), np.concatenate([X, X], 1))


@pytest.mark.parametrize("upper", [0, 1])
@pytest.mark.parametrize("diagonal", [None, -7, -1, 0, 2, 7])
@pytest.mark.parametrize("dtype", [np.float32, np.int64, np.bool_])
def test_triangles(dtype: type, diagonal: int | None, upper: int) -> None:
    given = [(SINGLE * 9).astype(dtype), *([] if diagonal is None else [np.array(diagonal)])]
    assert_agrees("Trilu", given, upper=upper)
    if dtype is not np.bool_:
        assert_agrees("Trilu", given, upper=upper, opset=17, domain="com.microsoft")


def test_triangles_of_unsigned_integers() -> None:
    x = np.array([[1, 2**64 - 1], [2**63, 3]], np.uint64)
    np.testing.assert_array_equal(run("Trilu", [x]).numpy(), np.triu(x))


@pytest.mark.parametrize("axes", [(0, 1), (1, 0)])
def test_sequences_backwards(axes: tuple[int, int]) -> None:
    lengths = ints(*([1, 5, 2, 3, 4, 5] if axes[0] == 0 else [6, 1, 2, 3, 5]))
    given = [SINGLE, lengths]
    assert_agrees("ReverseSequence", given, opset=10, time_axis=axes[0], batch_axis=axes[1])


@pytest.mark.parametrize(
    ("operator", "given", "options"),
    [
        ("Slice", [X, ints(-1, 1), ints(FIRST, 3), ints(0, 1), ints(-2, 1)], {}),
        ("Slice", [X, ints(1), ints(LAST), ints(1), ints(2)], {}),
        ("Split", [X, ints(2, 4)], {"axis": 1, "outputs": 2}),
        ("Concat", [X, X[:, :1]], {"axis": 1}),
        ("Trilu", [X[0], np.array(-1)], {}),
        ("ReverseSequence", [X[..., 0], ints(1, 5, 2, 3, 4, 5)], {}),
    ],
)
def test_gradients(operator: str, given: list[np.ndarray], options: dict[str, Any]) -> None:
    assert gradients_agree(operator, given, **options)


def test_what_is_given_stays_as_it_was() -> None:
    x = X.copy()
    for operator, given, options in (
        ("Trilu", [x], {}),
        ("ReverseSequence", [x, ints(1, 5, 2, 3, 4, 5)], {}),
        ("Concat", [x], {"axis": 0}),
    ):
        computed(model_of(operator, given, **options), given)
    np.testing.assert_array_equal(x, X)
