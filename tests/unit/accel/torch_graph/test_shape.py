"""Shapes: each form of the operators against ONNX Runtime, gradients, and what is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
import torch
from onnx import TensorProto, helper

from accel.errors import TrainingFailed, UnsupportedOperator
from accel.graph.torch_graph.graph import TorchGraph
from tests.one_node import gradients_agree, graph_of, run
from tests.onnxruntime_reference import assert_agrees

X = np.random.default_rng(0).standard_normal((2, 3, 4))
SINGLE = X.astype(np.float32)


def ints(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


@pytest.mark.parametrize("opset", [7, 13, 23])
@pytest.mark.parametrize("sizes", [(24,), (-1,), (0, -1), (6, 4), (0, 0, 2, 2), (4, -1, 3), (1, 0, -1)])
def test_reshape(sizes: tuple[int, ...], opset: int) -> None:
    assert_agrees("Reshape", [SINGLE, ints(*sizes)], opset=opset)
    assert_agrees("Reshape", [SINGLE, ints(*sizes)], opset=opset, fixed=[1])


def test_reshape_to_a_number_and_to_nothing() -> None:
    assert run("Reshape", [np.ones((1, 1)), ints()]).shape == ()
    assert run("Reshape", [np.ones((0, 3)), ints(3, 0, 7)], allowzero=1).shape == (3, 0, 7)
    assert run("Reshape", [np.ones((0, 3)), ints(0, 1, 3)]).shape == (0, 1, 3)


def test_reshape_by_an_attribute() -> None:
    assert run("Reshape", [X], opset=4, shape=[0, -1]).shape == (2, 12)


def test_a_shape_that_does_not_fit_is_said() -> None:
    with pytest.raises(TrainingFailed, match=r"The node 'node' \(Reshape\) could not be run in PyTorch: .*5, 5"):
        run("Reshape", [X, ints(5, 5)])


@pytest.mark.parametrize("opset", [7, 11, 23])
def test_flatten(opset: int) -> None:
    for axis in range(0 if opset < 11 else -3, 4):
        assert_agrees("Flatten", [SINGLE], opset=opset, axis=axis)
    assert_agrees("Flatten", [SINGLE[0, 0]], opset=opset)
    assert_agrees("Flatten", [np.ones((0, 3, 2), np.float32)], opset=opset, axis=2)


@pytest.mark.parametrize("axes", [(0,), (2,), (0, 2), (-1, 0), (-3,)])
def test_squeeze_and_unsqueeze_in_both_forms(axes: tuple[int, ...]) -> None:
    row = SINGLE[:1, :, :1]
    assert_agrees("Squeeze", [row, ints(*axes)], opset=13)
    assert_agrees("Squeeze", [row], opset=11, axes=list(axes))
    assert_agrees("Unsqueeze", [SINGLE, ints(*axes)], opset=13)
    assert_agrees("Unsqueeze", [SINGLE], opset=11, axes=list(axes))


@pytest.mark.parametrize("opset", [7, 13])
def test_squeeze_of_all_axes(opset: int) -> None:
    assert_agrees("Squeeze", [SINGLE[:1, :, :1]], opset=opset)
    assert_agrees("Squeeze", [SINGLE], opset=opset)


def test_an_axis_as_a_scalar() -> None:
    assert run("Unsqueeze", [X, np.array(1)]).shape == (2, 1, 3, 4)
    assert run("Squeeze", [X[:, :1], np.array(1)]).shape == (2, 4)


def test_an_axis_that_is_not_of_size_one_is_not_left_out() -> None:
    with pytest.raises(TrainingFailed, match=r"the axis 1 of the shape .* is not of size 1"):
        run("Squeeze", [X, ints(1)])


@pytest.mark.parametrize("order", [None, [0, 1, 2], [2, 0, 1], [1, 0, 2]])
def test_transpose(order: list[int] | None) -> None:
    assert_agrees("Transpose", [SINGLE], **({} if order is None else {"perm": order}))


@pytest.mark.parametrize("sizes", [(1,), (4,), (3, 1), (1, 1, 1), (2, 3, 4), (5, 1, 1, 4), (5, 2, 3, 1)])
def test_expand(sizes: tuple[int, ...]) -> None:
    assert_agrees("Expand", [SINGLE, ints(*sizes)])
    assert_agrees("Expand", [SINGLE[:, :1], ints(*sizes)])


@pytest.mark.parametrize("repeats", [(1, 1, 1), (2, 1, 3), (0, 2, 1)])
def test_tile(repeats: tuple[int, ...]) -> None:
    assert_agrees("Tile", [SINGLE, ints(*repeats)])


def test_tile_along_one_axis() -> None:
    found = run("Tile", [X, np.array(2.0), np.array(1.0)], opset=5)
    np.testing.assert_array_equal(found, np.tile(X, (1, 2, 1)))


@pytest.mark.parametrize("start", [-5, -3, -1, 0, 1, 3, 5])
@pytest.mark.parametrize("end", [None, -5, -2, 0, 2, 3, 9])
def test_a_part_of_a_shape(start: int, end: int | None) -> None:
    options: dict[str, Any] = {"start": start} if end is None else {"start": start, "end": end}
    found = run("Shape", [X], opset=19, **options)
    low, high = (min(max(place + 3 if place < 0 else place, 0), 3) for place in (start, 3 if end is None else end))
    assert found.tolist() == [2, 3, 4][low:high]
    assert found.dtype == torch.int64


def test_a_shape_before_it_had_parts() -> None:
    assert run("Shape", [X], opset=13).tolist() == [2, 3, 4]
    assert run("Size", [X], opset=13).tolist() == 24


@pytest.mark.parametrize(
    ("operator", "given", "options"),
    [
        ("Reshape", [X, ints(4, -1)], {}),
        ("Flatten", [X], {"axis": 2}),
        ("Squeeze", [X[:1]], {}),
        ("Unsqueeze", [X, ints(0, -1)], {}),
        ("Transpose", [X], {"perm": [2, 0, 1]}),
        ("Expand", [X[:, :1], ints(2, 1, 5, 1)], {}),
        ("Tile", [X, ints(1, 2, 2)], {}),
        ("ExpandDims", [X, np.array(1, np.int32)], {"domain": "com.microsoft"}),
    ],
)
def test_gradients(operator: str, given: list[np.ndarray], options: dict[str, Any]) -> None:
    assert gradients_agree(operator, given, **options)


@pytest.mark.parametrize("dtype", [np.uint16, np.uint32, np.uint64, np.bool_, np.float16, np.int8])
def test_each_type_moves(dtype: type) -> None:
    x = np.array([[3, 0, 250], [1, 2, 255]]).astype(dtype)
    np.testing.assert_array_equal(run("Transpose", [x]).numpy(), x.T)
    np.testing.assert_array_equal(run("Reshape", [x, ints(3, 2)]).numpy(), x.reshape(3, 2))
    np.testing.assert_array_equal(run("Expand", [x, ints(2, 1, 1)]).numpy(), np.stack([x, x]))
    np.testing.assert_array_equal(run("Tile", [x, ints(1, 2)]).numpy(), np.tile(x, (1, 2)))


def test_a_constant_of_a_shape_takes_no_memory_for_its_shape() -> None:
    value = helper.make_tensor("value", TensorProto.FLOAT, [1], [1.5])
    graph = graph_of("ConstantOfShape", [ints(2, 3)], value=value)
    found = graph({"x0": torch.tensor([1000, 1000, 1000])})["y0"]
    assert isinstance(found, torch.Tensor)
    assert found.shape == (1000, 1000, 1000)
    assert found.untyped_storage().nbytes() == 4
    assert graph({"x0": torch.zeros(0, dtype=torch.int64)})["y0"].tolist() == 1.5
    assert run("ConstantOfShape", [ints(2)]).dtype == torch.float32


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        ({"value_int": 3}, torch.tensor(3)),
        ({"value_ints": [3, 4]}, torch.tensor([3, 4])),
        ({"value_float": 0.5}, torch.tensor(0.5)),
        ({"value_floats": [0.5, 1.5]}, torch.tensor([0.5, 1.5])),
    ],
)
def test_constants_by_attributes(attributes: dict[str, Any], expected: torch.Tensor) -> None:
    torch.testing.assert_close(run("Constant", [], **attributes), expected, rtol=0, atol=0)


def test_a_text_is_refused() -> None:
    with pytest.raises(UnsupportedOperator, match=r"The node 'node' \(Constant\) cannot be run in PyTorch"):
        run("Constant", [], value_string="text")


def test_a_constant_that_is_trained_stays_the_one_that_is_trained() -> None:
    weight = helper.make_tensor("value", TensorProto.FLOAT, [2], [1.0, 2.0])
    nodes = [
        helper.make_node("Constant", [], ["w"], value=weight),
        helper.make_node("Concat", ["x", "w"], ["y"], axis=0),
    ]
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [size]) for name, size in (("x", 1), ("y", 3)))
    model = helper.make_model(helper.make_graph(nodes, "one", [x], [y]), opset_imports=[helper.make_opsetid("", 18)])
    graph = TorchGraph(ir.from_proto(model), lambda _: True)
    found = graph({"x": torch.zeros(1)})["y"]
    assert isinstance(found, torch.Tensor)
    found.sum().backward()
    [(_, trained)] = graph.trained()
    assert trained.grad is not None
    assert trained.grad.tolist() == [1, 1]
