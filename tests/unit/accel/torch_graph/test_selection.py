"""Elements chosen by condition, order or kind, against ONNX Runtime and NumPy, and gradients."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from accel.graph.torch_graph.operators.selection import _SORTED
from tests.one_node import computed, gradients_agree, model_of, run
from tests.onnxruntime_reference import assert_agrees

CHANCE = np.random.default_rng(9)
X = CHANCE.standard_normal((3, 4, 5))
SINGLE = X.astype(np.float32)


def ints(*values: Any) -> np.ndarray:
    return np.array(values, np.int64)


@pytest.mark.parametrize("opset", [9, 11])
@pytest.mark.parametrize("axis", [None, 0, 1, 2])
@pytest.mark.parametrize("condition", [[True], [False, True, True], [False]])
def test_compress(condition: list[bool], axis: int | None, opset: int) -> None:
    options = {} if axis is None else {"axis": axis}
    assert_agrees("Compress", [SINGLE, np.array(condition)], opset=opset, **options)


def test_gradients_of_what_is_kept() -> None:
    for options in ({}, {"axis": 1}):
        assert gradients_agree("Compress", [X[0, :2], np.array([False, True, True])], **options)


@pytest.mark.parametrize("dtype", [np.float32, np.int64, np.uint8, np.bool_])
@pytest.mark.parametrize("opset", [9, 13])
def test_nonzero(opset: int, dtype: type) -> None:
    assert_agrees("NonZero", [(X > 0.3).astype(dtype)], opset=opset)
    assert run("NonZero", [np.array(3.0)]).shape == (0, 1)


@pytest.mark.parametrize("axis", [0, 1, -1])
@pytest.mark.parametrize("largest", [0, 1])
@pytest.mark.parametrize("dtype", [np.float32, np.int64, np.uint8])
def test_the_greatest(dtype: type, largest: int, axis: int) -> None:
    # with many equal elements, of which the first ones come first
    x = CHANCE.integers(0, 4, (3, 4, 5)).astype(dtype)
    assert_agrees("TopK", [x, ints(3)], opset=11, outputs=2, axis=axis, largest=largest)


def test_the_greatest_by_an_attribute() -> None:
    assert_agrees("TopK", [SINGLE], opset=9, outputs=2, k=3)
    assert_agrees("TopK", [SINGLE, ints(2)], opset=10, outputs=2, axis=1)


@pytest.mark.parametrize("largest", [0, 1])
@pytest.mark.parametrize("count", [1, 7, 2 * _SORTED, 0])
def test_the_greatest_of_many(count: int, largest: int) -> None:
    for x in (CHANCE.permutation(2 * _SORTED), CHANCE.integers(0, 50, 2 * _SORTED)):
        order = np.argsort(-x if largest else x, kind="stable")[:count]
        given = [x.astype(np.float32), ints(count)]
        values, places = computed(model_of("TopK", given, outputs=2, largest=largest), given)
        np.testing.assert_array_equal(places, order)
        np.testing.assert_array_equal(values, x[order])


@pytest.mark.parametrize("dtype", [np.uint16, np.uint32, np.uint64])
def test_the_greatest_of_unsigned_integers(dtype: type[np.integer]) -> None:
    most = np.iinfo(dtype).max
    given = [np.array([0, most, 1, most - 1, most], dtype), ints(3)]
    values, places = computed(model_of("TopK", given, opset=24, outputs=2), given)
    assert values.tolist() == [most, most, most - 1]
    assert places.tolist() == [1, 4, 3]


def test_gradients_of_the_greatest() -> None:
    assert gradients_agree("TopK", [X, ints(2)], outputs=2, axis=1)
    assert gradients_agree("TopK", [X, ints(2)], outputs=2, largest=0)


@pytest.mark.parametrize("ordered", [0, 1])
@pytest.mark.parametrize("axis", [None, 0, 1, -1])
def test_unique(axis: int | None, ordered: int) -> None:
    x = CHANCE.integers(0, 2, (4, 5, 2)).astype(np.float32)
    options = {} if axis is None else {"axis": axis}
    assert_agrees("Unique", [x], opset=11, outputs=4, sorted=ordered, **options)


def test_unique_passes_gradients_on() -> None:
    assert gradients_agree("Unique", [np.array([2.0, 1.0, 3.0])], outputs=4)


@pytest.mark.parametrize("axis", [0, 1, -1])
@pytest.mark.parametrize("dtype", [np.float32, np.int64, np.int32])
@pytest.mark.parametrize("opset", [9, 11])
def test_one_hot(opset: int, dtype: type, axis: int) -> None:
    numbers = np.array([[0, 2, 3], [4, 1, 9]] if opset == 9 else [[0, -1, 3], [-4, 5, -9]]).astype(dtype)
    depth = np.array([4], np.int64 if dtype is np.int64 else np.float32)  # types that the runtime has together
    assert_agrees("OneHot", [numbers, depth, np.array([0.5, 2.0], np.float32)], opset=opset, axis=axis)


def test_negative_numbers_were_out_of_range_once() -> None:
    given = [ints(-1), np.array(2), np.array([0.0, 1.0])]
    assert run("OneHot", given, opset=9).tolist() == [[0, 0]]
    assert run("OneHot", given, opset=11).tolist() == [[0, 1]]


def test_gradients_reach_both_values() -> None:
    assert gradients_agree("OneHot", [ints(0, 2), np.array(3), np.array([0.5, 2.0])])


def test_binarizer() -> None:
    assert_agrees("Binarizer", [SINGLE], opset=17, domain="ai.onnx.ml", threshold=0.25)
    assert_agrees("Binarizer", [np.array([[0.0, -1.0, 1.0]], np.float32)], opset=17, domain="ai.onnx.ml")


def boxes(count: int, *, centred: bool) -> np.ndarray:
    first, size = CHANCE.uniform(0, 5, (2, count, 2)), CHANCE.uniform(0.5, 4, (2, count, 2))
    return np.concatenate([first, size if centred else first + size], -1).astype(np.float32)


@pytest.mark.parametrize("centred", [0, 1])
@pytest.mark.parametrize("opset", [10, 11])
@pytest.mark.parametrize(("most", "overlap", "least"), [(3, 0.5, 0.2), (50, 0.3, 0.0), (50, 0.0, 0.7), (50, 1.0, 0.5)])
def test_the_best_of_boxes(most: int, overlap: float, least: float, opset: int, centred: int) -> None:
    scores = CHANCE.uniform(0, 1, (2, 3, 30)).astype(np.float32)
    thresholds = [np.array([most]), np.array([overlap], np.float32), np.array([least], np.float32)]
    given = [boxes(30, centred=bool(centred)), scores, *thresholds]
    assert_agrees("NonMaxSuppression", given, opset=opset, center_point_box=centred)


def test_boxes_that_lie_the_wrong_way_round_and_without_area() -> None:
    first = boxes(20, centred=False)
    turned = first[:, :, [2, 1, 0, 3]]
    flat = np.concatenate([turned, turned[:, :5, [0, 1, 0, 3]]], 1)
    scores = CHANCE.uniform(0, 1, (2, 1, 25)).astype(np.float32)
    for overlap in (0.0, 0.4):
        assert_agrees("NonMaxSuppression", [flat, scores, ints(25), np.array([overlap], np.float32)])
    assert run("NonMaxSuppression", [flat, scores]).shape == (0, 3)
    found = run("NonMaxSuppression", [flat, scores, ints(2)])
    assert found.dtype == torch.int64
    assert found[:, 0].tolist() == [0, 0, 1, 1]
