"""Weights that are stored as integers and trained as floats: where they begin, what they learn, what is written back."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from accel.errors import UnsupportedOperator
from accel.graph.torch_graph.graph import TorchGraph
from accel.graph.torch_graph.parameters import Candidate

CHANCE = np.random.default_rng(2)
TYPES = {
    TensorProto.INT8: (-128, 127),
    TensorProto.UINT8: (0, 255),
    TensorProto.INT16: (-32768, 32767),
    TensorProto.UINT16: (0, 65535),
    TensorProto.INT4: (-8, 7),
    TensorProto.UINT4: (0, 15),
    TensorProto.INT2: (-2, 1),
    TensorProto.UINT2: (0, 3),
}


def latents(candidate: Candidate) -> bool:
    return candidate.role == "latent"


def with_scales(candidate: Candidate) -> bool:
    return candidate.role in {"latent", "scale"}


def product(
    integers: np.ndarray,
    scale: np.ndarray,
    dtype: int = TensorProto.INT8,
    *,
    zero: int = 0,
    constant: bool = False,
    **attributes: Any,
) -> ir.Model:
    """``x`` times a matrix of integers that is dequantized, in a node of its own or as an initialiser."""
    stored = helper.make_tensor("w", dtype, integers.shape, integers.flatten().tolist())
    shift = helper.make_tensor("zero", dtype, scale.shape, np.full(scale.shape, zero).flatten().tolist())
    nodes = [
        helper.make_node("DequantizeLinear", ["w", "scale", "zero"], ["floats"], **attributes),
        helper.make_node("MatMul", ["x", "floats"], ["y"]),
    ]
    if constant:
        nodes.insert(0, helper.make_node("Constant", [], ["w"], value=stored))
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, integers.shape[0]])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [*([] if constant else [stored]), numpy_helper.from_array(scale, "scale"), shift],
    )
    return ir.from_proto(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 25)], ir_version=13))


def stored(model: ir.Model) -> np.ndarray:
    value = model.graph[-2].inputs[0]
    assert value is not None
    assert value.const_value is not None
    return np.asarray(value.const_value.numpy()).astype(np.int64)


@pytest.mark.parametrize("dtype", TYPES)
def test_every_integer_comes_back_as_it_was(dtype: int) -> None:
    low, high = TYPES[dtype]
    integers = np.unique(np.linspace(low, high, 240).round()).astype(np.int64).repeat(2)[:, None]
    scale = np.array([0.0137], np.float32)
    model = product(integers, scale, dtype, zero=(low + high) // 2, axis=1)
    graph = TorchGraph(model, latents)
    ((_, weight),) = graph.trained()
    expected = (integers - (low + high) // 2).astype(np.float32) * scale
    np.testing.assert_array_equal(weight.detach().numpy(), expected)
    eye = torch.eye(len(integers))
    np.testing.assert_allclose(graph({"x": eye})["y"].detach().numpy(), expected, rtol=1e-6)
    graph.write_back()
    np.testing.assert_array_equal(stored(model), integers)


@pytest.mark.parametrize(
    ("shape", "attributes"),
    [((), {}), ((3,), {"axis": 1}), ((4,), {"axis": -2}), ((2, 3), {"axis": 0, "block_size": 2})],
    ids=["tensor", "columns", "rows", "blocks"],
)
@pytest.mark.parametrize("constant", [False, True], ids=["initialiser", "Constant"])
def test_what_is_written_back_computes_what_was_trained(
    shape: tuple[int, ...], attributes: dict[str, int], *, constant: bool
) -> None:
    integers = CHANCE.integers(-100, 100, (4, 3))
    scale = np.asarray(CHANCE.uniform(0.01, 0.02, shape), np.float32)
    model = product(integers, scale, zero=5, constant=constant, **attributes)
    graph = TorchGraph(model, latents)
    ((_, weight),) = graph.trained()
    x = torch.from_numpy(CHANCE.standard_normal((5, 4)).astype(np.float32))
    for _ in range(5):
        (gradient,) = torch.autograd.grad(graph({"x": x})["y"].square().sum(), weight)
        with torch.no_grad():
            weight -= 0.03 * gradient
    trained = graph({"x": x})["y"].detach()
    graph.write_back()
    assert not np.array_equal(stored(model), integers)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 4
    # Optimised, it would round the input to eight bits in front of such a product.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(
        ir.to_proto(model).SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    np.testing.assert_allclose(session.run(None, {"x": x.numpy()})[0], trained.numpy(), rtol=1e-5, atol=1e-5)


def test_a_weight_gets_the_gradient_of_its_floats_until_it_is_beyond_the_limits() -> None:
    graph = TorchGraph(product(np.array([[127, -128], [5, 6]]), np.array(0.1, np.float32)), latents)
    ((_, weight),) = graph.trained()
    with torch.no_grad():
        weight[0, 0] += 0.06
        weight[1, 1] += 0.03
    x = torch.tensor([[2.0, 3.0]])
    graph({"x": x})["y"].sum().backward()
    assert weight.grad is not None
    assert weight.grad.tolist() == [[0, 2], [3, 3]]
    with torch.no_grad():
        expected = (torch.tensor([[127, -128], [5, 6]]).float() * torch.tensor(0.1)).T @ x[0]
        torch.testing.assert_close(graph({"x": x})["y"][0], expected)


def test_its_scale_learns_and_is_the_one_that_it_is_written_back_by() -> None:
    integers = CHANCE.integers(-100, 100, (4, 3))
    scale = np.array([0.01, 0.02, 0.03], np.float32)
    model = product(integers, scale, axis=1)
    graph = TorchGraph(model, with_scales)
    held = {candidate.role: weight for candidate, weight in graph.trained()}
    with torch.no_grad():
        held["latent"] += torch.from_numpy(CHANCE.uniform(-0.004, 0.004, (4, 3)).astype(np.float32))
    graph({"x": torch.eye(4)})["y"].sum().backward()
    steps = held["latent"].detach() / torch.from_numpy(scale)
    torch.testing.assert_close(held["scale"].grad, (steps.round() - steps).sum(0), rtol=1e-3, atol=1e-4)
    with torch.no_grad():
        held["scale"] *= 2
    graph.write_back()
    np.testing.assert_array_equal(
        stored(model), (held["latent"].detach() / torch.from_numpy(scale * 2)).round().numpy()
    )


@pytest.mark.parametrize("other", [{"axis": 0}, {"axis": 1, "scale": "again"}])
def test_integers_with_two_meanings_are_refused(other: dict[str, Any]) -> None:
    model = ir.to_proto(product(np.ones((2, 2), np.int64), np.array([0.1, 0.2], np.float32), axis=1))
    model.graph.initializer.append(numpy_helper.from_array(np.array([0.3, 0.4], np.float32), "again"))
    given = ["w", other.get("scale", "scale"), "zero"]
    model.graph.node.insert(0, helper.make_node("DequantizeLinear", given, ["second"], axis=other["axis"]))
    with pytest.raises(UnsupportedOperator, match="'w' have no scale of their own"):
        TorchGraph(ir.from_proto(model), latents)
