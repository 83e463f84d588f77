"""A graph as a module: what of it is trained, what is written back, and what is said where it cannot be run."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from accel.errors import TrainingFailed, UnsupportedOperator
from accel.graph.torch_graph.executable import executable
from accel.graph.torch_graph.graph import TorchGraph, nothing
from accel.graph.torch_graph.parameters import Candidate
from tests import models
from tests.one_network import network, random, value

ROLES = {
    "conv_w": "weight", "conv_b": "bias", "scale": "normalization", "shift": "normalization", "mean": "statistic",
    "variance": "statistic", "half": "constant", "step": "scale", "stored": "latent", "stored_step": "scale", "b": "bias",
}  # fmt: skip


def trained_of(graph: TorchGraph) -> dict[str, torch.nn.Parameter]:
    return {candidate.name: weight for candidate, weight in graph.trained()}


def bytes_of(model: ir.Model) -> bytes:
    return ir.to_proto(model).SerializeToString(deterministic=True)


def stored_in(model: ir.Model) -> dict[str, bytes]:
    """The bytes of every initialiser and every Constant node, by name."""
    proto = ir.to_proto(model)
    found = {tensor.name: numpy_helper.to_array(tensor).tobytes() for tensor in proto.graph.initializer}
    for node in proto.graph.node:
        if node.op_type == "Constant":
            found[node.output[0]] = numpy_helper.to_array(node.attribute[0].t).tobytes()
    return found


def test_every_value_has_a_role_and_layers_are_trained() -> None:
    model = ir.from_proto(network())
    seen: dict[str, str] = {}

    def look(candidate: Candidate) -> bool:
        seen[candidate.name] = candidate.role
        return False

    assert not trained_of(TorchGraph(model, look))
    assert seen == ROLES
    assert trained_of(TorchGraph(model)).keys() == {"conv_w", "conv_b", "scale", "shift", "stored", "b"}
    chosen = TorchGraph(model, lambda candidate: candidate.role == "scale")
    assert trained_of(chosen).keys() == {"step", "stored_step"}


def test_what_is_trained_is_a_parameter_of_the_module_and_gets_a_gradient() -> None:
    graph = TorchGraph(ir.from_proto(network()))
    graph({"x": torch.from_numpy(random(5, 1, 6, 6))})["scores"].square().sum().backward()
    for name, weight in trained_of(graph).items():
        assert any(weight is parameter for parameter in graph.parameters())
        assert weight.grad is not None, name
        assert weight.grad.abs().sum() > 0, name


def test_what_was_not_changed_is_written_back_to_the_same_bytes() -> None:
    model = ir.from_proto(network())
    before = bytes_of(model)
    TorchGraph(model, lambda _: True).write_back()
    assert bytes_of(model) == before


def test_only_what_was_changed_is_written_back_and_computes_the_same() -> None:
    model = ir.from_proto(network())
    graph, before = TorchGraph(model), stored_in(model)
    feed = random(5, 1, 6, 6)
    with torch.no_grad():
        trained_of(graph)["conv_w"].mul_(1.25)
        trained_of(graph)["stored"].add_(0.05)
        expected = graph({"x": torch.from_numpy(feed)})["scores"]
    assert stored_in(model) == before
    graph.write_back()
    after = stored_in(model)
    assert {name for name in before if before[name] != after[name]} == {"conv_w", "stored"}
    steps = np.frombuffer(after["stored"], np.int8).astype(int) - np.frombuffer(before["stored"], np.int8)
    assert set(steps) <= {2, 3}  # 0.05 is two and a half steps
    again = TorchGraph(model, nothing)({"x": torch.from_numpy(feed)})["scores"]
    assert torch.equal(again, expected)
    np.testing.assert_allclose(models.run(ir.to_proto(model), {"x": feed})["scores"], expected, rtol=1e-4, atol=1e-5)


def test_a_value_keeps_the_type_that_it_has_in_the_graph() -> None:
    half = random(4, 3).astype(np.float16)
    node = helper.make_node("MatMul", ["x", "w"], ["y"], "product")
    model = ir.from_proto(
        models.assemble(
            [node], [value("x", ["n", 4], TensorProto.FLOAT16)], [value("y", None, TensorProto.FLOAT16)], {"w": half}
        )
    )
    graph = TorchGraph(model).float()
    with torch.no_grad():
        trained_of(graph)["w"].add_(0.125)
        assert graph({"x": torch.ones(1, 4)})["y"].dtype == torch.float32
    graph.write_back()
    assert model.graph.initializers["w"].dtype == ir.DataType.FLOAT16
    np.testing.assert_array_equal(np.frombuffer(stored_in(model)["w"], np.float16), (half + np.float16(0.125)).ravel())


def test_a_weight_in_a_constant_node_or_behind_an_identity_is_trained() -> None:
    nodes = [
        helper.make_node("Constant", [], ["w1"], value=numpy_helper.from_array(random(4, 3, seed=1), "inside")),
        helper.make_node("Identity", ["w2"], ["w2_same"], "same"),
        helper.make_node("Transpose", ["w2_same"], ["w2_turned"], "turn"),
        helper.make_node("MatMul", ["x", "w1"], ["h"], "first"),
        helper.make_node("MatMul", ["h", "w2_turned"], ["y"], "second"),
    ]
    model = ir.from_proto(models.assemble(nodes, [value("x", ["n", 4])], [value("y")], {"w2": random(2, 3, seed=2)}))
    graph, before = TorchGraph(model), stored_in(model)
    weights = trained_of(graph)
    assert weights.keys() == {"w1", "w2"}
    x = torch.from_numpy(random(5, 4))
    graph({"x": x})["y"].sum().backward()
    w1, w2 = weights["w1"].detach(), weights["w2"].detach()
    torch.testing.assert_close(weights["w1"].grad, x.sum(0)[:, None] * w2.sum(0)[None, :])
    torch.testing.assert_close(weights["w2"].grad, (x @ w1).sum(0).expand(2, 3))
    with torch.no_grad():
        weights["w1"].neg_()
    graph.write_back()
    after = stored_in(model)
    assert after["w2"] == before["w2"]
    assert np.array_equal(np.frombuffer(after["w1"], np.float32), -np.frombuffer(before["w1"], np.float32))
    assert [node.op_type for node in model.graph] == [node.op_type for node in nodes]


def test_a_weight_within_a_branch_is_trained_when_the_branch_is_taken() -> None:
    def branch(name: str, seed: int) -> onnx.GraphProto:
        weight = numpy_helper.from_array(random(4, 2, seed=seed), f"{name}_w")
        node = helper.make_node("MatMul", ["x", f"{name}_w"], [f"{name}_y"], f"{name}_product")
        return helper.make_graph([node], name, [], [value(f"{name}_y")], [weight])

    node = helper.make_node("If", ["yes"], ["y"], "choose", then_branch=branch("a", 1), else_branch=branch("b", 2))
    inputs = [value("x", ["n", 4]), value("yes", [], TensorProto.BOOL)]
    model = ir.from_proto(models.assemble([node], inputs, [value("y")]))
    graph = TorchGraph(model)
    weights = trained_of(graph)
    assert weights.keys() == {"a_w", "b_w"}
    x = torch.from_numpy(random(3, 4))
    graph({"x": x, "yes": torch.tensor(data=False)})["y"].sum().backward()
    assert weights["a_w"].grad is None
    torch.testing.assert_close(weights["b_w"].grad, x.sum(0)[:, None].expand(4, 2))
    with torch.no_grad():
        weights["b_w"].zero_()
    graph.write_back()
    again = TorchGraph(model, nothing)
    assert not again({"x": x, "yes": torch.tensor(data=False)})["y"].any()
    assert again({"x": x, "yes": torch.tensor(data=True)})["y"].any()


def test_the_state_holds_weights_and_running_statistics() -> None:
    model = ir.from_proto(network())
    graph, x = TorchGraph(model), torch.from_numpy(random(5, 1, 6, 6)) * 3 + 1
    before = graph({"x": x})["scores"]
    graph.mode.batch_norm = "train"
    graph({"x": x})
    graph.mode.batch_norm = "hold"
    with torch.no_grad():
        trained_of(graph)["b"].add_(1)
    learned = graph({"x": x})["scores"]
    assert not torch.allclose(before + 1, learned)
    other = TorchGraph(ir.from_proto(network()))
    assert torch.equal(other({"x": x})["scores"], before)
    other.load_state_dict(graph.state_dict())
    assert torch.equal(other({"x": x})["scores"], learned)
    untouched = stored_in(model)
    graph.write_back()
    after = stored_in(model)
    assert {name for name in after if after[name] != untouched[name]} == {"b", "mean", "variance"}
    assert torch.equal(TorchGraph(model, nothing)({"x": x})["scores"], learned)


def test_dropout_drops_in_training_alone() -> None:
    model = ir.from_proto(
        models.assemble([helper.make_node("Dropout", ["x"], ["y"])], [value("x", ["n"])], [value("y", ["n"])])
    )
    graph, x = TorchGraph(model), torch.ones(1000)
    assert torch.equal(graph({"x": x})["y"], x)
    graph.train()
    graph.mode.generator = torch.Generator().manual_seed(3)
    dropped = graph({"x": x})["y"]
    assert 400 < int((dropped == 0).sum()) < 600
    graph.mode.generator.manual_seed(3)
    assert torch.equal(graph({"x": x})["y"], dropped)
    assert torch.equal(graph.eval()({"x": x})["y"], x)


def test_inner_values_are_given_behind_the_outputs() -> None:
    graph = TorchGraph(ir.from_proto(network()), inner=("r", "scores", "r"))
    found = graph({"x": torch.from_numpy(random(2, 1, 6, 6))})
    assert list(found) == ["scores", "r"]
    assert found["r"].shape == (2, 3, 4, 4)
    assert (found["r"] >= 0).all()
    with pytest.raises(TrainingFailed, match="no inner value 'gone'") as caught:
        TorchGraph(ir.from_proto(network()), inner=("gone",))
    assert "scores" in caught.value.hint


def test_nodes_can_be_computed_each_for_itself() -> None:
    graph = TorchGraph(ir.from_proto(network()), nothing)
    x = torch.from_numpy(random(2, 1, 6, 6))
    found = graph.apart({"x": x, "n": torch.full((2, 3, 4, 4), -1.0), "p": torch.ones(2, 3, 1, 1)})
    assert not found["r"].any()  # of the given n
    assert not found["m"].any()  # of the r that was computed
    assert torch.equal(found["f"], torch.ones(2, 3))  # of the given p
    assert found["n"].any()  # of x


def test_an_input_that_is_not_given_is_named() -> None:
    with pytest.raises(TrainingFailed, match="input 'x' is not given"):
        TorchGraph(ir.from_proto(network()))({"y": torch.zeros(1)})


def test_a_node_that_cannot_be_run_is_named() -> None:
    with pytest.raises(TrainingFailed, match=r"The node 'conv' \(Conv\) could not be run in PyTorch: .*channels"):
        TorchGraph(ir.from_proto(network()))({"x": torch.zeros(1, 2, 6, 6)})


def test_an_operator_that_is_not_covered_is_named_with_what_still_works() -> None:
    node = helper.make_node("Mystery", ["x"], ["y"], "strange", domain="com.microsoft")
    model = models.assemble([node], [value("x", ["n"])], [value("y")], domains=("com.microsoft",))
    with pytest.raises(UnsupportedOperator, match=r"'strange' \(com.microsoft.Mystery\) cannot be run") as caught:
        TorchGraph(ir.from_proto(model))
    assert "quantize_static" in caught.value.hint


def with_function() -> onnx.ModelProto:
    """A function of the model's own, called twice."""
    body = [helper.make_node("MatMul", ["a", "b"], ["h"], "product"), helper.make_node("Relu", ["h"], ["c"], "relu")]
    function = helper.make_function("local", "Layer", ["a", "b"], ["c"], body, [helper.make_opsetid("", 17)])
    nodes = [
        helper.make_node("Layer", ["x", "w1"], ["h"], "one", domain="local"),
        helper.make_node("Layer", ["h", "w2"], ["y"], "two", domain="local"),
    ]
    weights = {"w1": random(4, 3, seed=1), "w2": random(3, 2, seed=2)}
    return models.assemble(
        nodes, [value("x", ["n", 4])], [value("y", ["n", 2])], weights, domains=("local",), functions=(function,)
    )


def test_functions_are_written_out_for_it() -> None:
    proto = with_function()
    with pytest.raises(UnsupportedOperator, match="functions of its own") as caught:
        TorchGraph(ir.from_proto(proto))
    assert "executable" in caught.value.hint
    model = ir.from_proto(proto)
    ready = executable(model)
    assert len(model.functions) == 1  # the one that was given stays as it was
    graph, x = TorchGraph(ready), random(3, 4)
    assert trained_of(graph).keys() == {"w1", "w2"}
    expected = models.run(proto, {"x": x})["y"]
    np.testing.assert_allclose(graph({"x": torch.from_numpy(x)})["y"].detach(), expected, rtol=1e-5, atol=1e-6)


def test_weights_that_are_inputs_too_are_weights() -> None:
    proto = models.convnet()
    proto.ir_version = 3
    proto.graph.input.extend(value(tensor.name, list(tensor.dims)) for tensor in proto.graph.initializer)
    ready = executable(ir.from_proto(proto))
    assert [port.name for port in ready.graph.inputs] == ["image"]
    graph = TorchGraph(ready)
    assert graph.inputs == ("image",)
    assert trained_of(graph).keys() == {tensor.name for tensor in proto.graph.initializer}
