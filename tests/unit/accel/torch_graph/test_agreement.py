"""The proof against ONNX Runtime: what agrees, and at which node something else begins."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from accel.errors import RuntimeFailed, TrainingFailed
from accel.graph.torch_graph import agreement
from accel.graph.torch_graph.agreement import prove
from accel.graph.torch_graph.closeness import BFLOAT16, FLOAT16, FLOAT32, ROUNDED, apart, rounded_apart, tolerance
from accel.graph.torch_graph.executable import executable
from accel.graph.torch_graph.graph import TorchGraph
from tests import models
from tests.one_network import network, random, value

BRANCHES = {"then_branch": "then", "else_branch": "else"}


def feed_of(proto: onnx.ModelProto) -> dict[str, np.ndarray]:
    return models.inputs_of(proto, rows=4)


def perturbed(graph: TorchGraph, name: str, by: float = 0.02) -> TorchGraph:
    """The graph with a little more in one weight than its model has."""
    weight = next(weight for candidate, weight in graph.trained() if candidate.name == name)
    with torch.no_grad():
        weight.add_(by)
    return graph


@pytest.mark.parametrize("name", sorted(models.FACTORY))
def test_what_is_made_of_a_model_agrees(name: str, tmp_path: Path) -> None:
    proto = models.FACTORY[name]()
    model = executable(ir.from_proto(proto))
    found = prove(TorchGraph(model), model, feed_of(proto), tmp_path)
    assert [one.value for one in found.outputs] == [output.name for output in proto.graph.output]
    assert found.largest is not None
    assert found.largest.share < 1e-5
    assert found.node is None
    assert found.describe().startswith(f"PyTorch computes what ONNX Runtime does: {found.largest.value!r} differs by")
    assert not list(tmp_path.iterdir())


def test_where_all_agrees_each_runs_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    proto = models.convnet()
    model = ir.from_proto(proto)
    opened: list[ir.Model] = []
    open_one = agreement.opened
    monkeypatch.setattr(agreement, "opened", lambda *given: (opened.append(given[0]), open_one(*given))[1])
    prove(TorchGraph(model), model, feed_of(proto), tmp_path)
    assert opened == [model]  # not even a copy of it


@pytest.mark.parametrize(
    ("weight", "node"),
    [("conv_w", "conv"), ("conv_b", "conv"), ("hidden_w", "hidden"), ("out_b", "out")],
)
def test_a_difference_is_found_at_its_node(weight: str, node: str, tmp_path: Path) -> None:
    proto = models.convnet()
    model = ir.from_proto(proto)
    kind = "Conv" if node == "conv" else "Gemm"
    with pytest.raises(TrainingFailed) as caught:
        prove(perturbed(TorchGraph(model), weight), model, feed_of(proto), tmp_path)
    said = caught.value.message
    assert said.startswith("PyTorch and ONNX Runtime do not agree: 'scores' differs by ")
    assert "where 1e-04 is allowed" in said
    assert f"It begins at the node {node!r} ({kind}): " in said
    assert not list(tmp_path.iterdir())


def test_a_difference_within_a_quantized_graph_is_found(tmp_path: Path) -> None:
    proto = network()
    model = ir.from_proto(proto)
    feed = feed_of(proto)
    assert prove(TorchGraph(model), model, feed, tmp_path).node is None
    with pytest.raises(TrainingFailed, match=r"It begins at the node 'norm' \(BatchNormalization\)"):
        prove(perturbed(TorchGraph(model), "scale", 0.5), model, feed, tmp_path)
    with pytest.raises(TrainingFailed, match=r"It begins at the node 'weights' \(DequantizeLinear\)"):
        prove(perturbed(TorchGraph(model), "stored", 0.5), model, feed, tmp_path)


def test_a_constant_that_is_computed_ahead_is_compared_too(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Neg", ["c"], ["negative"], "negate"),
        helper.make_node("Mul", ["x", "negative"], ["y"], "multiply"),
    ]
    proto = models.assemble(nodes, [value("x", ["n", 3])], [value("y", ["n", 3])], {"c": random(3)})
    other = ir.from_proto(proto)
    other.graph.initializers["c"].const_value = ir.tensor(random(3, seed=9))
    with pytest.raises(TrainingFailed, match=r"It begins at the node 'negate' \(Neg\)"):
        prove(TorchGraph(other), ir.from_proto(proto), feed_of(proto), tmp_path)


def nested(weight: np.ndarray) -> onnx.ModelProto:
    """A layer in a branch of a branch, beside branches that use the same names."""

    def inner(name: str, factor: np.ndarray) -> onnx.GraphProto:
        nodes = [
            helper.make_node("MatMul", ["h", "w"], ["m"], f"{name}_product"),
            helper.make_node("Relu", ["m"], [f"{name}_y"], f"{name}_relu"),
        ]
        return helper.make_graph(nodes, name, [], [value(f"{name}_y")], [numpy_helper.from_array(factor, "w")])

    deep = helper.make_node(
        "If", ["yes"], ["deep"], "deep", then_branch=inner("a", weight), else_branch=inner("b", -weight)
    )
    twice = helper.make_node("Add", ["x", "x"], ["h"], "twice")
    outer = helper.make_graph([twice, deep], "outer", [], [value("deep")])
    same = helper.make_graph([helper.make_node("Identity", ["x"], ["same"], "pass")], "same", [], [value("same")])
    nodes = [
        helper.make_node("ReduceSum", ["x"], ["sum"], "sum", keepdims=0),
        helper.make_node("LessOrEqual", ["sum", "bound"], ["yes"], "compare"),
        helper.make_node("If", ["yes"], ["y"], "choose", then_branch=outer, else_branch=same),
    ]
    return models.assemble(nodes, [value("x", ["n", 3])], [value("y", ["n", 3])], {"bound": np.float32(1e9)})


def test_a_difference_within_branches_is_found_at_its_node(tmp_path: Path) -> None:
    proto, feed = nested(random(3, 3)), {"x": random(4, 3, seed=1)}
    model = ir.from_proto(proto)
    assert prove(TorchGraph(model), model, feed, tmp_path).largest is not None
    said = agreement._suspect(TorchGraph(model), model, feed, tmp_path)
    assert not said.difference.is_too_large
    with pytest.raises(
        TrainingFailed, match=r"It begins at the node 'choose' \(If\)"
    ):  # its weight is not in the model
        prove(TorchGraph(ir.from_proto(nested(random(3, 3, seed=5)))), model, feed, tmp_path)


def test_an_operator_that_is_wrong_is_found_within_branches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from accel.graph.torch_graph import registry

    proto, feed = nested(random(3, 3)), {"x": random(4, 3, seed=1)}
    model = ir.from_proto(proto)
    TorchGraph(model)  # registers the operators
    monkeypatch.setitem(registry._KNOWN, ("", "Relu"), [(1, lambda _: lambda x: torch.relu(x) * 1.01)])
    with pytest.raises(TrainingFailed, match=r"It begins at the node 'a_relu' \(Relu\): '\w+' differs by 1.0e-02"):
        prove(TorchGraph(model), model, feed, tmp_path)


def ill_conditioned() -> onnx.ModelProto:
    """The mean of squares less the square of the mean, of large numbers that hardly differ: little of it is left."""
    nodes = [
        helper.make_node("Add", ["x", "far"], ["a"], "add"),
        helper.make_node("Mul", ["a", "a"], ["squares"], "square"),
        helper.make_node("ReduceMean", ["squares"], ["m2"], "mean_of_squares", axes=[1]),
        helper.make_node("ReduceMean", ["a"], ["m"], "mean", axes=[1]),
        helper.make_node("Mul", ["m", "m"], ["mm"], "square_of_mean"),
        helper.make_node("Sub", ["m2", "mm"], ["variance"], "subtract"),
    ]
    return models.assemble(nodes, [value("x", ["n", 4096])], [value("variance", ["n", 1])], {"far": np.float32(300)})


def test_a_model_that_makes_much_of_rounding_agrees_node_by_node(tmp_path: Path) -> None:
    proto, feed = ill_conditioned(), {"x": random(8, 4096)}
    model = ir.from_proto(proto)
    found = prove(TorchGraph(model), model, feed, tmp_path)
    assert found.largest is not None
    assert found.largest.is_too_large
    assert found.node is not None
    assert found.node.share < FLOAT32
    assert found.describe().startswith("Each node computes in PyTorch what it does in ONNX Runtime: at most, ")


def test_the_graph_is_left_as_it_was(tmp_path: Path) -> None:
    proto = network()
    model = ir.from_proto(proto)
    graph = TorchGraph(model).train()
    graph.mode.batch_norm = "train"
    before = {name: tensor.clone() for name, tensor in graph.get_extra_state().items()}
    prove(graph, model, feed_of(proto), tmp_path)
    assert graph.training
    assert graph.mode.training
    assert graph.mode.batch_norm == "train"
    assert all(torch.equal(tensor, before[name]) for name, tensor in graph.get_extra_state().items())
    assert all(weight.grad is None for weight in graph.parameters())


def test_what_depends_on_chance_is_left_out(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("RandomNormalLike", ["x"], ["noise"], "draw"),
        helper.make_node("Add", ["x", "noise"], ["noisy"], "add"),
        helper.make_node("Relu", ["x"], ["clean"], "relu"),
    ]
    proto = models.assemble(nodes, [value("x", ["n", 3])], [value("noisy", ["n", 3]), value("clean", ["n", 3])])
    model = ir.from_proto(proto)
    found = prove(TorchGraph(model), model, feed_of(proto), tmp_path)
    assert [one.value for one in found.outputs] == ["clean"]
    assert found.left_out == ("noisy",)
    del proto.graph.output[1]
    model = ir.from_proto(proto)
    said = prove(TorchGraph(model), model, feed_of(proto), tmp_path).describe()
    assert said == "PyTorch and ONNX Runtime were not compared: 'noisy' depends on chance, or is no tensor."


def test_types_that_numpy_lacks_are_compared(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "step", "zero"], ["q"], "quantize", axis=1),
        helper.make_node("Cast", ["x"], ["half"], "cast", to=TensorProto.BFLOAT16),
    ]
    stored = [
        numpy_helper.from_array(np.float32(0.25), "step"),
        helper.make_tensor("zero", TensorProto.INT4, [], [1]),
    ]
    outputs = [value("q", ["n", 3], TensorProto.INT4), value("half", ["n", 3], TensorProto.BFLOAT16)]
    graph = helper.make_graph(nodes, "g", [value("x", ["n", 3])], outputs, stored)
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    model = ir.from_proto(proto)
    found = prove(TorchGraph(model), model, feed_of(proto), tmp_path)
    assert {one.value: one.share for one in found.outputs} == {"q": 0, "half": 0}


def test_a_model_that_the_runtime_refuses_is_said(tmp_path: Path) -> None:
    proto = models.convnet()
    model = ir.from_proto(proto)
    with pytest.raises(RuntimeFailed):
        prove(TorchGraph(model), model, {"image": random(1, 1, 9, 9)}, tmp_path)


def test_tolerances_follow_from_the_graph() -> None:
    assert tolerance(ir.from_proto(models.convnet())) == FLOAT32
    assert tolerance(ir.from_proto(models.quantized())) == ROUNDED
    for dtype, share in ((TensorProto.FLOAT16, FLOAT16), (TensorProto.BFLOAT16, BFLOAT16)):
        port = [value("x", ["n"], dtype)], [value("y", ["n"], dtype)]
        assert tolerance(ir.from_proto(models.assemble([helper.make_node("Relu", ["x"], ["y"])], *port))) == share


def test_how_far_apart_two_values_are() -> None:
    def of(expected: list[float], found: list[float], dtype: type = np.float32) -> float:
        return apart(np.array(expected, dtype), torch.from_numpy(np.array(found, dtype)))

    inf, nan = np.inf, np.nan
    assert of([1, -4], [1.02, -4]) == pytest.approx(0.005)
    assert of([inf, nan, 2], [inf, nan, 1]) == pytest.approx(0.5)
    assert of([inf, 2], [-inf, 2]) == inf
    assert of([1, 2], [nan, 2]) == inf
    assert of([1, 2], [1, 2, 3]) == inf
    assert of([0, 1e-7], [0, 0]) == pytest.approx(1e-5)  # as if the largest value were a hundredth
    assert of([], []) == 0
    assert of([1, 2, 3, 4], [1, 2, 3, 5], np.int64) == pytest.approx(0.25)
    assert apart(np.zeros(2, np.float32), None) == inf
    assert rounded_apart(np.array([1, 2, 3, 4]), torch.tensor([1, 3, 3, 4]), 1.0) == pytest.approx(0.25)
    assert rounded_apart(np.array([1, 2]), torch.tensor([1, 4]), 1.0) == inf
