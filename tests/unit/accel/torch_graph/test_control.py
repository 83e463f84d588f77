"""Branches, loops and scans against ONNX Runtime, and gradients through them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from accel.graph.torch_graph.graph import TorchGraph, nothing

CHANCE = np.random.default_rng(21)
FLOAT, INT64, BOOL = TensorProto.FLOAT, TensorProto.INT64, TensorProto.BOOL
Sizes = list[int | str] | None


def info(name: str, kind: int, sizes: Sizes) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, sizes)


def values(*shape: int) -> np.ndarray:
    return CHANCE.standard_normal(shape).astype(np.float32)


def body_of(
    nodes: Sequence[onnx.NodeProto],
    inputs: Sequence[onnx.ValueInfoProto],
    outputs: Sequence[onnx.ValueInfoProto],
    held: Mapping[str, Any] | None = None,
) -> onnx.GraphProto:
    kept = [numpy_helper.from_array(np.asarray(value), name) for name, value in (held or {}).items()]
    return helper.make_graph(nodes, "body", inputs, outputs, kept)


def model_of(
    nodes: Sequence[onnx.NodeProto],
    given: Mapping[str, np.ndarray],
    outputs: int,
    held: Mapping[str, Any] | None = None,
    *,
    opset: int = 17,
) -> onnx.ModelProto:
    """A graph with the outputs ``y0``, ``y1`` and so on."""
    inputs = [
        info(name, helper.np_dtype_to_tensor_dtype(value.dtype), [f"{name}_{axis}" for axis in range(value.ndim)])
        for name, value in given.items()
    ]
    results = [helper.make_empty_tensor_value_info(f"y{place}") for place in range(outputs)]
    kept = [numpy_helper.from_array(np.asarray(value), name) for name, value in (held or {}).items()]
    graph = helper.make_graph(nodes, "control", inputs, results, kept)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)


def computed(model: onnx.ModelProto, given: Mapping[str, np.ndarray]) -> list[Any]:
    graph = TorchGraph(ir.from_proto(model), nothing)
    return list(graph({name: torch.from_numpy(value) for name, value in given.items()}).values())


def assert_agrees(model: onnx.ModelProto, given: Mapping[str, np.ndarray]) -> None:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    for found, expected in zip(computed(model, given), session.run(None, dict(given)), strict=True):
        torch.testing.assert_close(found, torch.from_numpy(np.asarray(expected)), rtol=1e-5, atol=1e-6)


def branching(opset: int) -> onnx.ModelProto:
    """Doubles what it reads of the graph around it, or computes with it and a weight of its own."""
    then = body_of(
        [helper.make_node("Add", ["x", "x"], ["twice"]), helper.make_node("Identity", ["x"], ["same"])],
        [],
        [info("twice", FLOAT, None), info("same", FLOAT, None)],
    )
    otherwise = body_of(
        [helper.make_node("Mul", ["x", "w"], ["scaled"]), helper.make_node("Sub", ["x", "w"], ["less"])],
        [],
        [info("scaled", FLOAT, None), info("less", FLOAT, None)],
        {"w": np.array([3, 4], np.float32)},
    )
    nodes = [helper.make_node("If", ["c"], ["y0", "y1"], then_branch=then, else_branch=otherwise)]
    return model_of(nodes, {"c": np.array(True), "x": values(2)}, 2, opset=opset)


@pytest.mark.parametrize("opset", [7, 11, 13, 21])
@pytest.mark.parametrize("condition", [True, False])
def test_branches(condition: bool, opset: int) -> None:
    assert_agrees(branching(opset), {"c": np.array(condition), "x": values(2)})


def test_gradients_reach_weights_of_a_branch() -> None:
    graph = TorchGraph(ir.from_proto(branching(17)), lambda _: True)
    [(candidate, weight)] = graph.trained()
    x = torch.tensor([5.0, 6.0])
    y = graph({"c": torch.tensor(data=False), "x": x})["y0"]
    assert isinstance(y, torch.Tensor)
    y.sum().backward()
    assert candidate.name == "w"
    assert weight.grad is not None
    assert weight.grad.tolist() == [5, 6]


def looping(*, trips: bool = True, condition: bool = True, opset: int = 17) -> onnx.ModelProto:
    """Adds the number of the run and a weight of the graph around it to what is carried, until that is 20 or more."""
    body = body_of(
        [
            helper.make_node("Cast", ["n"], ["number"], to=FLOAT),
            helper.make_node("Add", ["state", "number"], ["moved"]),
            helper.make_node("Add", ["moved", "w"], ["after"]),
            helper.make_node("ReduceMax", ["after"], ["most"], keepdims=0),
            helper.make_node("Less", ["most", "limit"], ["go"]),
            helper.make_node("Mul", ["after", "after"], ["square"]),
            helper.make_node("Add", ["n", "n"], ["even"]),
        ],
        [info("n", INT64, []), info("before", BOOL, []), info("state", FLOAT, [2])],
        [info("go", BOOL, []), info("after", FLOAT, [2]), info("square", FLOAT, [2]), info("even", INT64, [])],
        {"limit": np.array(20, np.float32)},
    )
    inputs = ["m" if trips else "", "c" if condition else "", "x"]
    given = {"m": np.array(3), "c": np.array(True), "x": values(2)}
    kept = {name: value for name, value in given.items() if name in inputs}
    nodes = [helper.make_node("Loop", inputs, ["y0", "y1", "y2"], body=body)]
    return model_of(nodes, kept, 3, {"w": np.array([0.5, -0.25], np.float32)}, opset=opset)


@pytest.mark.parametrize("opset", [7, 11, 13, 17, 21])
@pytest.mark.parametrize("trips", [0, 1, 4, 100])
@pytest.mark.parametrize("condition", [True, False])
def test_loops(condition: bool, trips: int, opset: int) -> None:
    given = {"m": np.array(trips), "c": np.array(condition), "x": values(2)}
    assert_agrees(looping(opset=opset), given)


@pytest.mark.parametrize(("trips", "condition"), [(True, False), (False, True), (False, False)])
def test_loops_without_a_count_or_a_condition(trips: bool, condition: bool) -> None:
    model = looping(trips=trips, condition=condition)
    given = {"m": np.array(9), "c": np.array(True), "x": values(2)}
    wanted = {value.name for value in model.graph.input}
    assert_agrees(model, {name: value for name, value in given.items() if name in wanted})


def test_gradients_pass_through_a_loop() -> None:
    graph = TorchGraph(ir.from_proto(looping()), lambda candidate: candidate.name == "w")
    [(_, weight)] = graph.trained()
    x = torch.tensor([1.0, 2.0], requires_grad=True)
    found = graph({"m": torch.tensor(3), "c": torch.tensor(data=True), "x": x})
    last, squares = found["y0"], found["y1"]
    assert isinstance(last, torch.Tensor)
    assert isinstance(squares, torch.Tensor)
    squares.sum().backward()
    states = squares.detach().sqrt()
    # each square of run k has seen the weight k + 1 times, and what was carried in once
    seen = torch.arange(1, 4).unsqueeze(1)
    torch.testing.assert_close(weight.grad, (2 * states * seen).sum(0))
    torch.testing.assert_close(x.grad, (2 * states).sum(0))


def test_a_loop_in_a_loop_reads_the_graph_around_both() -> None:
    inner = body_of(
        [helper.make_node("Add", ["sum", "x"], ["more"]), helper.make_node("Identity", ["go_in"], ["go"])],
        [info("k", INT64, []), info("go_in", BOOL, []), info("sum", FLOAT, [2])],
        [info("go", BOOL, []), info("more", FLOAT, [2])],
    )
    outer = body_of(
        [
            helper.make_node("Loop", ["n", "", "state"], ["added"], body=inner),
            helper.make_node("Identity", ["go_out"], ["go_on"]),
        ],
        [info("n", INT64, []), info("go_out", BOOL, []), info("state", FLOAT, [2])],
        [info("go_on", BOOL, []), info("added", FLOAT, [2])],
    )
    nodes = [helper.make_node("Loop", ["m", "", "x"], ["y0"], body=outer)]
    given = {"m": np.array(4), "x": values(2)}
    model = model_of(nodes, given, 1)
    assert_agrees(model, given)
    np.testing.assert_allclose(computed(model, given)[0], given["x"] * 7, rtol=1e-6)  # 1 + 0 + 1 + 2 + 3


def test_a_loop_that_collects_a_sequence() -> None:
    sequence = helper.make_tensor_sequence_value_info
    body = body_of(
        [
            helper.make_node("Cast", ["n"], ["number"], to=FLOAT),
            helper.make_node("Mul", ["x", "number"], ["part"]),
            helper.make_node("SequenceInsert", ["parts", "part"], ["more"]),
            helper.make_node("Identity", ["go_in"], ["go"]),
        ],
        [info("n", INT64, []), info("go_in", BOOL, []), sequence("parts", FLOAT, None)],
        [info("go", BOOL, []), sequence("more", FLOAT, None)],
    )
    nodes = [
        helper.make_node("SequenceEmpty", [], ["none"]),
        helper.make_node("Loop", ["m", "", "none"], ["all"], body=body),
        helper.make_node("ConcatFromSequence", ["all"], ["y0"], axis=0),
    ]
    given = {"m": np.array(3), "x": values(2)}
    assert_agrees(model_of(nodes, given, 1), given)


def scanning(opset: int, sizes: dict[str, list[int]], **options: Any) -> onnx.ModelProto:
    """A running sum of two tensors, which also gives their difference."""
    body = body_of(
        [
            helper.make_node("Add", ["a", "b"], ["both"]),
            helper.make_node("Add", ["state", "both"], ["after"]),
            helper.make_node("Sub", ["a", "state"], ["apart"]),
            helper.make_node("Identity", ["after"], ["kept"]),
        ],
        [info(name, FLOAT, [2, 3] if opset > 8 else [3]) for name in ("state", "a", "b")],
        [info(name, FLOAT, [2, 3] if opset > 8 else [3]) for name in ("after", "apart", "kept")],
    )
    inputs = ["s", "a", "b"] if opset > 8 else ["lengths" if "lengths" in sizes else "", "s", "a", "b"]
    node = helper.make_node("Scan", inputs, ["y0", "y1", "y2"], body=body, num_scan_inputs=2, **options)
    given = {name: np.zeros(shape, np.int64 if name == "lengths" else np.float32) for name, shape in sizes.items()}
    return model_of([node], given, 3, opset=opset)


@pytest.mark.parametrize("opset", [9, 11, 16, 21])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"scan_input_directions": [1, 0]},
        {"scan_output_directions": [0, 1]},
        {"scan_input_axes": [1, 0], "scan_output_axes": [2, 1]},
        {"scan_input_directions": [1, 1], "scan_input_axes": [1, 0], "scan_output_directions": [1, 0]},
    ],
)
def test_scans(options: dict[str, list[int]], opset: int) -> None:
    given = {"s": values(2, 3), "a": values(5, 2, 3), "b": values(5, 2, 3)}
    if "scan_input_axes" in options:
        given["a"] = given["a"].swapaxes(0, 1).copy()
    model = scanning(opset, {name: list(value.shape) for name, value in given.items()}, **options)
    assert_agrees(model, given)


def test_axes_from_the_back() -> None:
    given = {"s": values(2, 3), "a": values(2, 3, 5), "b": values(2, 5, 3)}
    sizes = {name: list(value.shape) for name, value in given.items()}
    assert_agrees(scanning(11, sizes, scan_input_axes=[-1, -2], scan_output_axes=[-1, -3]), given)


def test_a_scan_over_nothing() -> None:
    given = {"s": values(2, 3), "a": values(0, 2, 3), "b": values(0, 2, 3)}
    found = computed(scanning(17, {name: list(value.shape) for name, value in given.items()}), given)
    np.testing.assert_array_equal(found[0], given["s"])
    assert [tuple(value.shape) for value in found[1:]] == [(0, 2, 3), (0, 2, 3)]


@pytest.mark.parametrize("directions", [None, [1, 0], [1, 1]])
@pytest.mark.parametrize("lengths", [None, [4, 2], [1, 4]])
def test_the_first_form_of_scans(lengths: list[int] | None, directions: list[int] | None) -> None:
    given = {"s": values(2, 3), "a": values(2, 4, 3), "b": values(2, 4, 3)}
    if lengths is not None:
        given["lengths"] = np.array(lengths)
    options = {} if directions is None else {"directions": directions}
    model = scanning(8, {name: list(value.shape) for name, value in given.items()}, **options)
    assert_agrees(model, given)


def test_gradients_pass_through_a_scan() -> None:
    given = {"s": values(2, 3), "a": values(3, 2, 3), "b": values(3, 2, 3)}
    sizes = {name: list(value.shape) for name, value in given.items()}
    graph = TorchGraph(ir.from_proto(scanning(17, sizes, scan_input_directions=[1, 0])), nothing)
    leaves = [torch.from_numpy(value).double().requires_grad_() for value in given.values()]

    def run(*tensors: torch.Tensor) -> tuple[Any, ...]:
        return tuple(graph(dict(zip(given, tensors, strict=True))).values())

    assert torch.autograd.gradcheck(run, leaves)


def test_a_graph_for_each_part_of_a_sequence() -> None:
    body = body_of(
        [
            helper.make_node("Add", ["part", "x"], ["more"]),
            helper.make_node("Mul", ["part", "other"], ["product"]),
        ],
        [info(name, FLOAT, None) for name in ("part", "other", "same")],
        [info("more", FLOAT, None), info("product", FLOAT, None)],
    )
    nodes = [
        helper.make_node("SplitToSequence", ["a"], ["parts"], axis=0),
        helper.make_node("SplitToSequence", ["b"], ["others"], axis=0),
        helper.make_node("SequenceMap", ["parts", "others", "x"], ["sums", "products"], body=body),
        helper.make_node("ConcatFromSequence", ["sums"], ["y0"], axis=0),
        helper.make_node("ConcatFromSequence", ["products"], ["y1"], axis=0),
    ]
    given = {"a": values(3, 2), "b": values(3, 2), "x": values(2)}
    sums, products = computed(model_of(nodes, given, 2), given)
    np.testing.assert_allclose(sums, given["a"] + given["x"], rtol=1e-6)
    np.testing.assert_allclose(products, given["a"] * given["b"], rtol=1e-6)
