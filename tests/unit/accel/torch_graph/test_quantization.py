"""Quantizing and dequantizing: the integers of ONNX Runtime, and gradients as if nothing had been rounded."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor

from accel.errors import UnsupportedOperator
from accel.graph.torch_graph.graph import TorchGraph, nothing
from accel.graph.torch_graph.parameters import Candidate
from tests.one_node import run
from tests.onnxruntime_reference import assert_agrees
from tests.torch_kernels import kernels_of

Node = tuple[str, Sequence[str], str, dict[str, Any]]
CHANCE = np.random.default_rng(0)
INTEGERS = {
    TensorProto.INT8: (-128, 127),
    TensorProto.UINT8: (0, 255),
    TensorProto.INT16: (-32768, 32767),
    TensorProto.UINT16: (0, 65535),
    TensorProto.INT4: (-8, 7),
    TensorProto.UINT4: (0, 15),
}


def floats(*shape: int) -> np.ndarray:
    return CHANCE.standard_normal(shape).astype(np.float32)


def model(
    nodes: Sequence[Node],
    stored: dict[str, onnx.TensorProto | np.ndarray],
    shape: Sequence[int],
    *,
    opset: int = 21,
    dtype: int = TensorProto.FLOAT,
    outputs: Sequence[str] = ("y",),
) -> onnx.ModelProto:
    """A graph from ``x`` to ``y``; what is stored is known by its name."""
    constants = []
    for name, value in stored.items():
        constants.append(numpy_helper.from_array(value) if isinstance(value, np.ndarray) else value)
        constants[-1].name = name
    graph = helper.make_graph(
        [helper.make_node(operator, given, [made], **attributes) for operator, given, made, attributes in nodes],
        "graph",
        [helper.make_tensor_value_info("x", dtype, shape)],
        [helper.make_empty_tensor_value_info(name) for name in outputs],
        constants,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)


def pair(between: Sequence[Node] = (), **attributes: Any) -> list[Node]:
    """Quantized, something done with the integers, and dequantized by the same scale."""
    last = between[-1][2] if between else "q"
    return [
        ("QuantizeLinear", ("x", "scale", "zero"), "q", attributes),
        *between,
        ("DequantizeLinear", (last, "scale", "zero"), "y", attributes),
    ]


def scales(candidate: Candidate) -> bool:
    return candidate.role == "scale"


def graph_of(proto: onnx.ModelProto, choose: Any = nothing, inner: Sequence[str] = ()) -> TorchGraph:
    return TorchGraph(ir.from_proto(proto), choose, inner)


def operators(graph: TorchGraph) -> list[str]:
    return [step.node.operator for step in graph._plan.steps]


def runtime(proto: onnx.ModelProto, x: np.ndarray) -> np.ndarray:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 4
    plain = onnx.ModelProto()
    plain.CopyFrom(proto)
    plain.graph.output[0].type.tensor_type.elem_type = TensorProto.FLOAT
    session = onnxruntime.InferenceSession(plain.SerializeToString(), options, providers=["CPUExecutionProvider"])
    found: np.ndarray = session.run(None, {"x": x})[0]
    return found


@pytest.mark.parametrize("dtype", INTEGERS)
def test_a_pair_gives_the_bits_of_the_runtime_also_on_ties(dtype: int) -> None:
    low, high = INTEGERS[dtype]
    zero = helper.make_tensor("zero", dtype, [], [3])
    steps = np.concatenate([np.arange(-40, 40) / 2, CHANCE.uniform(2 * low - 9, 2 * high + 9, 500)])
    x = (steps * 0.25).astype(np.float32)
    proto = model(pair(), {"scale": np.array(0.25, np.float32), "zero": zero}, x.shape)
    expected = runtime(proto, x)
    graph = graph_of(proto)
    assert operators(graph) == ["DequantizeLinear"]
    for wanted in (False, True):  # with and without a gradient
        found = graph({"x": torch.from_numpy(x).requires_grad_(wanted)})["y"]
        np.testing.assert_array_equal(found.detach().numpy(), expected)


@pytest.mark.parametrize(
    ("shape", "attributes"),
    [((4,), {"axis": 1}), ((3,), {"axis": -1}), ((2, 2, 3), {"axis": 1, "block_size": 2})],
    ids=["channels", "last axis", "blocks"],
)
def test_channels_and_blocks_have_scales_of_their_own(shape: tuple[int, ...], attributes: dict[str, int]) -> None:
    x = floats(2, 4, 3) * 30
    stored = {
        "scale": CHANCE.uniform(0.1, 0.5, shape).astype(np.float32),
        "zero": CHANCE.integers(100, 150, shape).astype(np.uint8),
    }
    proto = model(pair(**attributes), stored, x.shape)
    np.testing.assert_array_equal(graph_of(proto)({"x": torch.from_numpy(x)})["y"].numpy(), runtime(proto, x))


def test_a_block_that_ends_beyond_the_axis_is_cut() -> None:
    x, scale = floats(2, 5), np.array([[0.5, 0.25, 1], [0.125, 2, 4]], np.float32)
    found = run("QuantizeLinear", [x, scale, np.zeros((2, 3), np.int8)], axis=1, block_size=2, fixed=(1, 2))
    expected = np.clip(np.rint(x / scale.repeat(2, 1)[:, :5]), -128, 127).astype(np.int8)
    np.testing.assert_array_equal(found.numpy(), expected)


def test_many_numbers_are_quantized_as_few_are() -> None:
    x = torch.from_numpy(floats(300, 1000))
    graph = graph_of(model(pair(), {"scale": np.array(0.013, np.float32), "zero": np.array(7, np.uint8)}, x.shape))
    expected = (torch.clamp(torch.round(x / torch.tensor(0.013)) + 7, 0, 255) - 7) * torch.tensor(0.013)
    assert torch.equal(graph({"x": x})["y"], expected)
    assert torch.equal(graph({"x": x.t()})["y"], expected.t())  # not in the order of memory


def test_a_pair_is_four_passes_over_its_input() -> None:
    proto = model(pair(), {"scale": np.array(0.5, np.float32), "zero": np.array(3, np.uint8)}, (8,))
    proto.graph.input[0].name = proto.graph.node[0].input[0] = "x0"
    arithmetic = [name for name in kernels_of(proto, [floats(8)]) if name not in {"aten::reshape", "aten::item"}]
    assert arithmetic == ["aten::div", "aten::round_", "aten::clamp_", "aten::mul_"]


def test_a_pair_is_two_nodes_where_its_integers_are_wanted_or_its_scales_differ() -> None:
    stored = {"scale": np.array(0.5, np.float32), "zero": np.array(3, np.uint8), "other": np.array(0.25, np.float32)}
    x = torch.linspace(-3, 3, 13)
    wanted = graph_of(model(pair(), stored, (13,), outputs=("y", "q")))
    assert operators(wanted) == ["QuantizeLinear", "DequantizeLinear"]
    integers = wanted({"x": x})["q"]
    assert integers.dtype == torch.uint8
    assert operators(graph_of(model(pair(), stored, (13,)), inner=["q"])) == ["QuantizeLinear", "DequantizeLinear"]
    nodes = pair()
    nodes[1] = ("DequantizeLinear", ("q", "other", "zero"), "y", {})
    graph = graph_of(model(nodes, stored, (13,)))
    assert operators(graph) == ["QuantizeLinear", "DequantizeLinear"]
    assert torch.equal(graph({"x": x})["y"], (integers.float() - 3) * 0.25)


def test_equal_constants_make_a_pair_unless_they_are_trained() -> None:
    stored = {name: np.array(0.5, np.float32) for name in ("scale", "again")} | {"zero": np.array(3, np.uint8)}
    nodes = pair()
    nodes[1] = ("DequantizeLinear", ("q", "again", "zero"), "y", {})
    assert operators(graph_of(model(nodes, stored, (3,)))) == ["DequantizeLinear"]
    assert operators(graph_of(model(nodes, stored, (3,)), scales)) == ["QuantizeLinear", "DequantizeLinear"]


BETWEEN: dict[str, tuple[list[Node], dict[str, np.ndarray]]] = {
    "nothing": ([], {}),
    "Reshape": ([("Reshape", ("q", "shape"), "r", {})], {"shape": np.array([-1, 4])}),
    "Transpose": ([("Transpose", ("q",), "t", {"perm": [0, 1, 3, 2]})], {}),
    "MaxPool": ([("MaxPool", ("q",), "p", {"kernel_shape": [2, 2], "pads": [1, 1, 1, 1]})], {}),
    "Relu and Clip": (
        [("Relu", ("q",), "r", {}), ("Clip", ("r", "least", "greatest"), "c", {})],
        {"least": np.array(1, np.int8), "greatest": np.array(90, np.int8)},
    ),
    "Concat": ([("Concat", ("q", "more"), "c", {"axis": 1})], {"more": np.ones((1, 1, 4, 4), np.int8)}),
    "Pad": ([("Pad", ("q", "pads", "zero"), "p", {})], {"pads": np.array([0, 0, 1, 0, 0, 0, 0, 1])}),
    "Slice": (
        [("Slice", ("q", "from", "to"), "s", {})],
        {"from": np.array([0, 1]), "to": np.array([1, 9])},
    ),
    "Split": ([("Split", ("q",), "s", {"axis": 3, "num_outputs": 1})], {}),
    "Gather": ([("Gather", ("q", "at"), "g", {"axis": 1})], {"at": np.array([1, 0, 1])}),
}


@pytest.mark.parametrize("between", BETWEEN)
def test_what_stands_between_computes_the_same_on_integers_and_on_floats_with_a_gradient(between: str) -> None:
    nodes, more = BETWEEN[between]
    stored = {"scale": np.array(0.03, np.float32), "zero": np.array(5, np.int8)} | more
    graph = graph_of(model(pair(nodes), stored, (1, 2, 4, 4)))
    x = torch.from_numpy(floats(1, 2, 4, 4)).requires_grad_()
    with torch.no_grad():
        expected = graph({"x": x})["y"]
    found = graph({"x": x})["y"]
    assert torch.equal(found, expected)
    found.sum().backward()
    assert x.grad is not None
    assert x.grad.abs().sum() > 0
    assert torch.isin(x.grad, torch.arange(5.0)).all()  # each element as often as it is read, where it is not cut


def expected_gradients(x: Tensor, scale: Tensor, zero: Tensor, limits: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Of the sum, to each number, and to the scale that each has: Esser et al. 2020, equation 3."""
    low, high = limits[0] - zero, limits[1] - zero
    steps = x / scale
    rounded = steps.round()
    inside = (rounded >= low) & (rounded <= high)
    by_scale = torch.where(inside, rounded - steps, torch.where(rounded < low, low, high).to(x.dtype))
    return inside.to(x.dtype), by_scale


@pytest.mark.parametrize("together", [True, False], ids=["one node", "two nodes"])
@pytest.mark.parametrize(
    ("shape", "attributes"),
    [((), {}), ((4,), {"axis": 1}), ((2, 2, 3), {"axis": 1, "block_size": 2})],
    ids=["tensor", "channels", "blocks"],
)
def test_gradients_stop_at_the_limits_and_a_scale_learns(
    shape: tuple[int, ...], attributes: dict[str, int], *, together: bool
) -> None:
    stored = {
        "scale": np.asarray(CHANCE.uniform(0.01, 0.02, shape), np.float32),
        "zero": np.asarray(CHANCE.integers(90, 110, shape), np.uint8),
    }
    proto = model(pair(**attributes), stored, (2, 4, 3), outputs=("y",) if together else ("y", "q"))
    graph = graph_of(proto, scales)
    assert len(operators(graph)) == (1 if together else 2)
    x = torch.from_numpy(floats(2, 4, 3) * 2).requires_grad_()
    found = graph({"x": x})
    if not together:
        assert found["q"].dtype == torch.float32
        assert torch.equal(found["q"], found["q"].round())
    weights = torch.from_numpy(floats(2, 4, 3))
    (found["y"] * weights).sum().backward()
    ((_, scale),) = graph.trained()
    spread = (
        torch.from_numpy(stored["scale"]).reshape((4, 1) if shape == (4,) else shape),
        torch.from_numpy(stored["zero"]).int().reshape((4, 1) if shape == (4,) else shape),
    )
    if len(shape) > 1:
        spread = (spread[0].repeat_interleave(2, 1), spread[1].repeat_interleave(2, 1))
    to_x, to_scale = expected_gradients(x.detach(), *spread, (0, 255))
    assert 0 < int(to_x.sum()) < to_x.numel()
    torch.testing.assert_close(x.grad, to_x * weights)
    parts = to_scale * weights
    if len(shape) > 1:
        parts = parts.reshape(2, 2, 2, 3).sum(2)
    expected = parts.sum((0, 2)) if shape == (4,) else parts.sum() if shape == () else parts
    torch.testing.assert_close(scale.grad, expected, rtol=1e-4, atol=1e-4)


def test_many_numbers_have_the_gradients_that_few_have() -> None:
    stored = {"scale": np.array(0.013, np.float32), "zero": np.array(107, np.uint8)}
    graph = graph_of(model(pair(), stored, (300, 1000)), scales)
    x = torch.from_numpy(floats(300, 1000)).requires_grad_()
    weights = torch.from_numpy(floats(300, 1000))
    (graph({"x": x})["y"] * weights).sum().backward()
    ((_, scale),) = graph.trained()
    to_x, to_scale = expected_gradients(x.detach(), torch.tensor(0.013), torch.tensor(107), (0, 255))
    torch.testing.assert_close(x.grad, to_x * weights)
    torch.testing.assert_close(scale.grad, (to_scale * weights).double().sum().float(), rtol=1e-3, atol=1e-2)


def test_a_number_on_the_limit_is_not_lost_to_a_last_digit() -> None:
    scale = np.float32(0.1)
    x = torch.tensor([127 * scale * np.float32(1.0000002), 129 * scale]).requires_grad_()
    assert float(x.detach()[0] / scale) > 127
    graph = graph_of(model(pair(), {"scale": np.array(scale), "zero": np.array(0, np.int8)}, (2,)))
    graph({"x": x})["y"].sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [1, 0]


def test_an_input_of_no_gradient_is_quantized_to_real_integers() -> None:
    stored = {"scale": np.array(0.5, np.float32), "zero": np.array(3, np.uint8)}
    graph = graph_of(model(pair(), stored, (2,), outputs=("q",)))
    x = torch.tensor([1.0, -9.0], requires_grad=True)
    assert graph({"x": x.detach()})["q"].dtype == torch.uint8
    with torch.no_grad():
        assert graph({"x": x})["q"].tolist() == [5, 0]
    assert graph({"x": x})["q"].tolist() == [5, 0]


@pytest.mark.parametrize("dtype", [TensorProto.FLOAT8E4M3FN, TensorProto.FLOAT8E5M2])
def test_floats_of_eight_bits_are_rounded_with_a_gradient(dtype: int) -> None:
    zero = helper.make_tensor("zero", dtype, [], [0.0])
    x = torch.tensor([0.3, -7.7, 1e6], requires_grad=True)
    graph = graph_of(model(pair(), {"scale": np.array(2, np.float32), "zero": zero}, (3,)))
    with torch.no_grad():
        expected = graph({"x": x})["y"]
    found = graph({"x": x})["y"]
    assert torch.equal(found, expected)
    assert not torch.equal(found[:2], x[:2])
    found.sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [1, 1, 0]


def test_halves_are_divided_in_halves() -> None:
    x = np.linspace(-20, 20, 301).astype(np.float16)
    stored = {"scale": np.array(0.3, np.float16), "zero": np.array(100, np.uint8)}
    proto = model(pair(), stored, x.shape, dtype=TensorProto.FLOAT16)
    steps = np.clip(np.rint(x / stored["scale"]).astype(np.int32) + 100, 0, 255) - 100
    expected = (steps.astype(np.float32) * np.float32(stored["scale"])).astype(np.float16)
    for outputs in (("y",), ("y", "q")):
        proto = model(pair(), stored, x.shape, dtype=TensorProto.FLOAT16, outputs=outputs)
        np.testing.assert_array_equal(graph_of(proto)({"x": torch.from_numpy(x)})["y"].numpy(), expected)


def test_the_attribute_precision_decides_what_is_divided_in() -> None:
    x, scale = np.array([0.35, 1.05, 2.45], np.float32), np.array(0.7, np.float16)
    given = [x, scale, np.array(0, np.uint8)]
    wide = run("QuantizeLinear", given, precision=TensorProto.FLOAT, fixed=(2,))
    assert wide.tolist() == np.rint(x / np.float32(scale)).tolist()
    narrow = run("QuantizeLinear", given, fixed=(2,))
    assert narrow.tolist() == np.rint(x.astype(np.float16) / scale).tolist()


@pytest.mark.parametrize("opset", [10, 13, 19, 21])
def test_older_versions(opset: int) -> None:
    x, scale, zero = floats(3, 4), np.array(0.02, np.float32), np.array(9, np.int8)
    assert_agrees("QuantizeLinear", [x, scale, zero], opset=opset, fixed=(1, 2))
    assert_agrees("QuantizeLinear", [x, scale], opset=opset, fixed=(1,))
    integers = CHANCE.integers(-128, 128, (3, 4)).astype(np.int8)
    assert_agrees("DequantizeLinear", [integers, scale, zero], opset=opset, fixed=(1, 2))
    sums = CHANCE.integers(-(2**30), 2**30, (3, 4)).astype(np.int32)
    assert_agrees("DequantizeLinear", [sums, scale], opset=opset, fixed=(1,))
    if opset > 10:
        each = np.array([0.1, 0.2, 0.3], np.float32)
        assert_agrees("DequantizeLinear", [sums, each], opset=opset, fixed=(1,), axis=0)


@pytest.mark.parametrize("dtype", [np.int16, np.uint16, np.int8])
def test_operators_of_the_runtime_itself(dtype: type) -> None:
    x, scale, zero = floats(3, 4), np.array([0.1, 0.02, 1e-4, 1], np.float32), np.full(4, 7, dtype)
    options = {"domain": "com.microsoft", "axis": 1, "fixed": (1, 2)}
    found = run("QuantizeLinear", [x, scale, zero], **options)
    assert_agrees("DequantizeLinear", [found.numpy(), scale, zero], **options)
    limits = np.iinfo(dtype)
    expected = np.clip(np.rint(x / scale) + 7, limits.min, limits.max).astype(dtype)
    np.testing.assert_array_equal(found.numpy(), expected)


def test_ranges_of_a_run_with_a_gradient() -> None:
    x = torch.tensor([-1.0, 0.5, 3.0], requires_grad=True)
    nodes: list[Node] = [
        ("Cast", ("q",), "f", {"to": TensorProto.FLOAT}),
        ("Cast", ("zero",), "z", {"to": TensorProto.FLOAT}),
        ("Sub", ("f", "z"), "s", {}),
        ("Mul", ("s", "scale"), "y", {}),
    ]
    proto = model(nodes, {}, (3,))
    proto.graph.node.insert(0, helper.make_node("DynamicQuantizeLinear", ["x"], ["q", "scale", "zero"]))
    graph = graph_of(proto)
    with torch.no_grad():
        expected = graph({"x": x})["y"]
    found = graph({"x": x})["y"]
    assert torch.equal(found, expected)
    torch.testing.assert_close(found, x, rtol=0, atol=4 / 255 / 2)
    found.sum().backward()
    assert x.grad is not None
    torch.testing.assert_close(x.grad, torch.ones(3), rtol=0, atol=0.05)
    assert graph({"x": torch.zeros(2)})["y"].tolist() == [0, 0]


def test_a_zero_point_of_unknown_type_is_refused() -> None:
    nodes: list[Node] = [("Neg", ("w",), "zero", {}), ("QuantizeLinear", ("x", "scale", "zero"), "y", {})]
    proto = model(nodes, {"scale": np.array(1, np.float32), "w": np.array(1, np.int8)}, (2,))
    with pytest.raises(UnsupportedOperator, match="zero point"):
        graph_of(proto)
