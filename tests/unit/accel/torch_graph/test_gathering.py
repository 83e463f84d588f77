"""Values read from and written to places: each form against ONNX Runtime, every type, and gradients."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
import torch
from onnx import TensorProto, helper

from accel.errors import TrainingFailed, UnsupportedOperator
from accel.graph.torch_graph.graph import TorchGraph, nothing
from tests.one_node import computed, gradients_agree, model_of, run
from tests.onnxruntime_reference import assert_agrees
from tests.torch_kernels import kernels_of

CHANCE = np.random.default_rng(5)
X = CHANCE.standard_normal((4, 3, 5))
SINGLE = X.astype(np.float32)
MANY = [np.uint8, np.uint16, np.uint32, np.uint64, np.int8, np.int16, np.int64, np.bool_, np.float16, np.float64]


def ints(*values: Any) -> np.ndarray:
    return np.array(values, np.int64)


PLACES = [np.array(2), np.array(-1), ints(), ints(0, 2, 2), ints(-1, 0), ints([[0, -3], [1, 2]]), ints([[[1]]])]


@pytest.mark.parametrize("dtype", [np.int32, np.int64])
@pytest.mark.parametrize("places", PLACES)
@pytest.mark.parametrize("axis", [0, 1, -1])
def test_gather(axis: int, places: np.ndarray, dtype: type) -> None:
    for opset in (7, 13) if places.min(initial=0) >= 0 else (11, 13):
        assert_agrees("Gather", [SINGLE, places.astype(dtype)], opset=opset, axis=axis)


def test_rows_of_a_table_are_picked_by_one_kernel() -> None:
    table, words = SINGLE[0], ints(1, 0, 2)
    # besides turning numbers from the back
    kernels = kernels_of(model_of("Gather", [table, words]), [table, words])
    assert [name for name in kernels if name not in {"aten::lt", "aten::add", "aten::where"}] == ["aten::index_select"]


@pytest.mark.parametrize("places", [np.array(7), ints(0, 7), ints(-8)])
def test_a_place_beyond_the_axis_is_said(places: np.ndarray) -> None:
    with pytest.raises(TrainingFailed, match=r"The node 'node' \(Gather\) could not be run in PyTorch: .*out of"):
        run("Gather", [X, places])


@pytest.mark.parametrize("axis", [0, 1, -1])
@pytest.mark.parametrize("opset", [11, 13])
def test_gather_elements(opset: int, axis: int) -> None:
    places = CHANCE.integers(-3, 3, (2, 2, 4))
    assert_agrees("GatherElements", [SINGLE, places], opset=opset, axis=axis)
    assert_agrees("GatherElements", [SINGLE, places.astype(np.int32)], opset=opset, axis=axis)


ND = [
    (ints([0, 1], [-1, -2]), 0),
    (ints([3, 2, 1]), 0),
    (ints([[1], [-1]], [[0], [0]]), 0),
    (ints([[-1, 1]], [[0, 4]], [[2, 0]], [[1, 3]]), 1),
    (ints([1], [0], [-1], [2]), 1),
    (CHANCE.integers(-5, 5, (4, 3, 2, 1)), 2),
]


@pytest.mark.parametrize(("places", "batch_axes"), ND)
def test_gather_nd(places: np.ndarray, batch_axes: int) -> None:
    assert_agrees("GatherND", [SINGLE, places], batch_dims=batch_axes, opset=12)
    assert gradients_agree("GatherND", [X, places], batch_dims=batch_axes)
    if not batch_axes:
        assert_agrees("GatherND", [SINGLE, places], opset=11)
        assert_agrees("GatherND", [SINGLE, places], opset=17, domain="com.microsoft")


def test_features_by_their_numbers() -> None:
    assert_agrees("ArrayFeatureExtractor", [SINGLE[0], ints(4, 0, 0)], opset=17, domain="ai.onnx.ml")
    assert_agrees("ArrayFeatureExtractor", [SINGLE[0, 0], ints([1, 3])], opset=17, domain="ai.onnx.ml")


@pytest.mark.parametrize("axis", [0, -1])
def test_gradients_of_gathering(axis: int) -> None:
    for places in PLACES:
        if places.size:
            assert gradients_agree("Gather", [X[:3, 0, :3], places], axis=axis)
    assert gradients_agree("GatherElements", [X[:3], CHANCE.integers(-3, 3, (2, 2, 4))], axis=axis)


REDUCTIONS = ["none", "add", "mul", "max", "min"]


def distinct(*shape: int) -> np.ndarray:
    """Places along the last axis, none of which comes twice in a row of it."""
    rows = int(np.prod(shape[:-1]))
    return np.stack([CHANCE.permutation(5)[: shape[-1]] for _ in range(rows)]).reshape(shape) - 5 * (
        np.arange(shape[-1]) % 2
    )


@pytest.mark.parametrize(
    ("opset", "reduction"),
    [(11, "none"), (13, "none"), *((16, name) for name in REDUCTIONS[:3]), *((18, name) for name in REDUCTIONS)],
)
def test_scatter_elements(opset: int, reduction: str) -> None:
    options = {} if reduction == "none" else {"reduction": reduction}
    places = distinct(2, 3, 4) if reduction == "none" else CHANCE.integers(-5, 5, (2, 3, 4))
    values = CHANCE.standard_normal(places.shape).astype(np.float32)
    assert_agrees("ScatterElements", [SINGLE, places, values], opset=opset, axis=-1, **options)
    for dtype in (np.int32, np.int64, np.uint8):
        given = [(SINGLE * 30).astype(dtype), places.astype(np.int32), (values * 20).astype(dtype)]
        assert_agrees("ScatterElements", given, opset=opset, axis=2, **options)


def test_scatter_before_it_was_renamed() -> None:
    places = CHANCE.permutation(4)[:, None, None]
    assert_agrees("Scatter", [SINGLE, places, np.ones((4, 1, 1), np.float32)], opset=9)


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize(("places", "batch_axes"), ND[:3])
def test_scatter_nd(places: np.ndarray, batch_axes: int, reduction: str) -> None:
    assert batch_axes == 0
    values = CHANCE.standard_normal((*places.shape[:-1], *X.shape[places.shape[-1] :])).astype(np.float32)
    if reduction == "none":
        places = places if places.ndim == 2 else ints([[1], [-1]])
        values = values if places.ndim == 2 else values[:1]
        for opset in (11, 13):
            assert_agrees("ScatterND", [SINGLE, places, values], opset=opset)
    assert_agrees("ScatterND", [SINGLE, places, values], opset=18, reduction=reduction)


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_gradients_of_scattering(reduction: str) -> None:
    places = distinct(2, 3, 2) if reduction == "none" else CHANCE.integers(-5, 5, (2, 3, 2))
    values = CHANCE.standard_normal(places.shape)
    assert gradients_agree("ScatterElements", [X[:2], places, values], axis=-1, reduction=reduction)
    rows = ints([0], [-1]) if reduction == "none" else ints([0], [-1], [3])
    values = CHANCE.standard_normal((len(rows), 5))
    assert gradients_agree("ScatterND", [X[:, 0], rows, values], reduction=reduction)


def test_a_reduction_that_is_unknown_is_refused() -> None:
    with pytest.raises(UnsupportedOperator, match="its reduction 'mean' is unknown"):
        run("ScatterElements", [X, ints(0), X], reduction="mean")


@pytest.mark.parametrize("dtype", MANY)
def test_each_type_moves(dtype: type) -> None:
    limit = 1 if np.issubdtype(dtype, np.floating) or dtype is np.bool_ else np.iinfo(dtype).max
    x = np.array([[1, 0, 1], [0, 1, 1]]).astype(dtype) * np.array(limit, dtype)
    places = ints([2, 0], [1, 1])
    picked = np.take_along_axis(x, places, 1)
    np.testing.assert_array_equal(run("GatherElements", [x, places], axis=1).numpy(), picked)
    np.testing.assert_array_equal(run("Gather", [x, ints(-1, 0)], axis=1).numpy(), x[:, [-1, 0]])
    np.testing.assert_array_equal(run("GatherND", [x, ints([1, 0], [0, 2])]).numpy(), x[[1, 0], [0, 2]])
    written = x.copy()
    written[:, [0, 2]] = x[:, [1, 1]]
    found = run("ScatterElements", [x, ints([0, 2], [0, 2]), x[:, [1, 1]]], axis=1)
    np.testing.assert_array_equal(found.numpy(), written)


@pytest.mark.parametrize("dtype", [np.uint16, np.uint32, np.uint64])
def test_unsigned_integers_are_reduced(dtype: type[np.integer]) -> None:
    most = np.iinfo(dtype).max
    x, places, values = np.array([most, 1, 5], dtype), ints(0, 0, 1), np.array([2, 1, most - 1], dtype)
    with np.errstate(over="ignore"):
        wanted = {
            "add": [x[0] + dtype(3), most, 5],
            "mul": [x[0] * dtype(2), most - 1, 5],
            "max": [most, most - 1, 5],
            "min": [1, 1, 5],
        }
    for reduction, expected in wanted.items():
        found = run("ScatterElements", [x, places, values], reduction=reduction)
        assert found.tolist() == [int(value) for value in expected], reduction


def test_what_is_written_into_stays_as_it_was() -> None:
    x = X.copy()
    for reduction in REDUCTIONS:
        given = [x, ints([[0]]), np.ones((1, 1, 1))]
        computed(model_of("ScatterElements", given, reduction=reduction), given)
        given = [x, ints([0]), np.ones((1, 3, 5))]
        computed(model_of("ScatterND", given, reduction=reduction), given)
    np.testing.assert_array_equal(x, X)


@pytest.mark.parametrize("axis", [1, -2, 2])
def test_a_cache_is_written(axis: int) -> None:
    cache, update, starts = X, CHANCE.standard_normal((4, 2, 5) if axis != 2 else (4, 3, 2)), ints(0, 1, 1, 0)
    expected = cache.copy()
    for row, start in enumerate(starts):
        for step in range(2):
            along = (row, start + step) if axis != 2 else (row, slice(None), start + step)
            expected[along] = update[row, step] if axis != 2 else update[row, :, step]
    np.testing.assert_array_equal(run("TensorScatter", [cache, update, starts], opset=24, axis=axis), expected)
    assert gradients_agree("TensorScatter", [cache, update, starts], opset=24, axis=axis)


def test_a_cache_in_the_round() -> None:
    cache, update = np.zeros((2, 3, 1)), np.array([[[1.0], [2.0]], [[3.0], [4.0]]])
    found = run("TensorScatter", [cache, update, ints(2, 7)], opset=24, mode="circular")
    assert found[..., 0].tolist() == [[2, 0, 1], [0, 3, 4]]
    assert run("TensorScatter", [cache, update], opset=24)[..., 0].tolist() == [[1, 2, 0], [3, 4, 0]]
    with pytest.raises(TrainingFailed, match="out of bounds"):
        run("TensorScatter", [cache, update, ints(2, 0)], opset=24)


def test_a_small_float_moves() -> None:
    value = helper.make_tensor("value", TensorProto.FLOAT8E4M3FN, [3], [1.0, 2.0, 4.0])
    nodes = [
        helper.make_node("Constant", [], ["x"], value=value),
        helper.make_node("GatherElements", ["x", "places"], ["y"]),
    ]
    given = helper.make_tensor_value_info("places", TensorProto.INT64, [2])
    graph = helper.make_graph(nodes, "one", [given], [helper.make_empty_tensor_value_info("y")])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 23)])
    found = TorchGraph(ir.from_proto(model), nothing)({"places": torch.tensor([2, 0])})["y"]
    assert isinstance(found, torch.Tensor)
    assert found.dtype == torch.float8_e4m3fn
    assert found.float().tolist() == [4, 1]
