"""Activations, softmax and dropout: gradients, older forms, and ONNX Runtime's own operators against it."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch
from onnx import helper

from accel.errors import UnsupportedOperator
from accel.graph.torch_graph.graph import TorchGraph, nothing
from tests import models
from tests.one_node import computed, gradients_agree, model_of, run

X = np.random.default_rng(0).uniform(-5, 5, (3, 4, 6))
"""None of these is where a function has a corner."""
MICROSOFT = "com.microsoft"
ACTIVATIONS: list[tuple[str, dict[str, Any]]] = [
    ("Relu", {}),
    ("LeakyRelu", {}),
    ("LeakyRelu", {"alpha": 0.3}),
    ("Elu", {}),
    ("Elu", {"alpha": 0.4}),
    ("Selu", {}),
    ("Selu", {"alpha": 1.2, "gamma": 0.7}),
    ("Celu", {}),
    ("Celu", {"alpha": 2.5}),
    ("Sigmoid", {}),
    ("HardSigmoid", {}),
    ("HardSigmoid", {"alpha": 1 / 6}),
    ("HardSigmoid", {"alpha": 0.3, "beta": 0.4}),
    ("HardSwish", {}),
    ("Softplus", {}),
    ("Softsign", {}),
    ("Tanh", {}),
    ("ThresholdedRelu", {}),
    ("ThresholdedRelu", {"alpha": 0.25}),
    ("Shrink", {}),
    ("Shrink", {"lambd": 1.5, "bias": 0.5}),
    ("Gelu", {}),
    ("Gelu", {"approximate": "tanh"}),
    ("Mish", {}),
]


@pytest.mark.parametrize(("name", "attributes"), ACTIVATIONS)
def test_activations_are_those_of_onnx_runtime(name: str, attributes: dict[str, Any]) -> None:
    x = np.concatenate([X.ravel(), [-120.0, -30.0, 0.0, 30.0, 120.0]]).astype(np.float32)
    model = model_of(name, [x], opset=20, **attributes)
    expected = models.run(model, {"x0": x})["y0"]
    np.testing.assert_allclose(computed(model, [x])[0].numpy(), expected, rtol=2e-6, atol=2e-6)


@pytest.mark.parametrize(
    ("name", "attributes"),
    [*ACTIVATIONS, ("Swish", {}), ("Swish", {"alpha": 1.5}), ("Softmax", {}), ("LogSoftmax", {})],
)
def test_gradients(name: str, attributes: dict[str, Any]) -> None:
    assert gradients_agree(name, [X[0, :2]], opset=25, **attributes)


def test_gradients_of_two_inputs() -> None:
    gate, value = X[0], X[1]
    assert gradients_agree("SwiGLU", [gate, value], opset=28, alpha=0.8)
    assert gradients_agree("BiasGelu", [gate, value[0]], domain=MICROSOFT)


@pytest.mark.parametrize("shape", [(), (1,), (4, 1), (1, 4, 1), (6,), (3, 1, 1), (3, 4, 6)])
def test_slopes_broadcast_and_are_trained(shape: tuple[int, ...]) -> None:
    slope = np.random.default_rng(1).uniform(-1, 1, shape)
    np.testing.assert_allclose(run("PRelu", [X, slope]).numpy(), np.where(X < 0, X * slope, X))
    assert gradients_agree("PRelu", [X, slope])


def test_slopes_of_channels_that_are_as_many_as_columns_belong_to_the_columns() -> None:
    x, slope = X[:, :, :4], np.array([0.1, 0.2, 0.3, 0.4])
    np.testing.assert_allclose(run("PRelu", [x, slope]).numpy(), np.where(x < 0, x * slope, x))
    before = np.where(x < 0, x * slope[:, None], x)
    np.testing.assert_allclose(run("PRelu", [x, slope], opset=6).numpy(), before)


def test_slopes_of_integers() -> None:
    x = np.array([-3, 0, 5], np.int32)
    assert run("PRelu", [x, np.array([2], np.int32)]).tolist() == [-6, 0, 5]


def test_softplus_is_exact_beyond_where_its_exponential_is_large() -> None:
    x = np.array([19.0, 25.0, 39.9, 41.0, 800.0])
    np.testing.assert_allclose(run("Softplus", [x]).numpy(), np.logaddexp(x, 0), rtol=1e-16)


def test_shrink_of_integers() -> None:
    x = np.array([-3, -1, 0, 1, 4], np.int16)
    assert run("Shrink", [x], lambd=1.5, bias=1.0).tolist() == [-2, 0, 0, 0, 3]


@pytest.mark.parametrize(
    ("name", "places", "attributes"),
    [
        ("Gelu", 1, {}),
        ("FastGelu", 1, {}),
        ("FastGelu", 2, {}),
        ("BiasGelu", 2, {}),
        ("QuickGelu", 1, {}),
        ("QuickGelu", 1, {"alpha": 1.0}),
    ],
)
def test_onnx_runtimes_own_activations(name: str, places: int, attributes: dict[str, Any]) -> None:
    given = [X.astype(np.float32), X[0, 0].astype(np.float32)][:places]
    model = model_of(name, given, domain=MICROSOFT, **attributes)
    expected = models.run(model, {f"x{place}": value for place, value in enumerate(given)})["y0"]
    np.testing.assert_allclose(computed(model, given)[0].numpy(), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("attributes", [{}, {"limit": 2.0, "activation_alpha": 1.702, "activation_beta": 1.0}])
@pytest.mark.parametrize("places", [1, 2])
def test_onnx_runtimes_own_swiglu(places: int, attributes: dict[str, float]) -> None:
    given = [X.astype(np.float32), X[::-1].astype(np.float32)][:places]
    gate, value = given if places == 2 else np.split(given[0], 2, axis=-1)
    if "limit" in attributes:
        gate, value = np.minimum(gate, 2), np.clip(value, -2, 2)
    slope, shift = attributes.get("activation_alpha", 1.0), attributes.get("activation_beta", 0.0)
    expected = gate / (1 + np.exp(-slope * gate)) * (value + shift)
    np.testing.assert_allclose(run("SwiGLU", given, domain=MICROSOFT, **attributes).numpy(), expected, rtol=1e-5)


def test_an_approximation_that_is_unknown_is_refused() -> None:
    with pytest.raises(UnsupportedOperator, match="its approximation 'sine' is unknown"):
        run("Gelu", [X], approximate="sine")


@pytest.mark.parametrize("opset", [9, 11, 13])
@pytest.mark.parametrize("axis", [None, 0, 1, 2, -1, -2])
@pytest.mark.parametrize("name", ["Softmax", "LogSoftmax", "Hardmax"])
def test_softmax_is_over_one_axis_or_over_all_behind_it(name: str, axis: int | None, opset: int) -> None:
    x = X.astype(np.float32)
    x[1, 2] = x[1, 2, 0]  # the first of equal ones takes all
    attributes = {} if axis is None else {"axis": axis}
    if opset < 11 and axis is not None and axis < 0:
        attributes = {"axis": axis + 3}  # the older ones count from the front
    model = model_of(name, [x], opset=opset, **attributes)
    expected = models.run(model, {"x0": x})["y0"]
    np.testing.assert_allclose(computed(model, [x])[0].numpy(), expected, rtol=1e-5, atol=1e-7)


def dropping(opset: int, *inputs: str, outputs: int = 1, **attributes: Any) -> TorchGraph:
    constants = {"ratio": np.array(0.25, np.float32), "on": np.array(True), "off": np.array(False)}
    names = ["y", "mask"][:outputs]
    graph = helper.make_graph(
        [helper.make_node("Dropout", ["x", *inputs], names, **attributes)],
        "one",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["rows"])],
        [helper.make_empty_tensor_value_info(name) for name in names],
        [onnx.numpy_helper.from_array(constants[name], name) for name in inputs if name],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
    return TorchGraph(ir.from_proto(model), nothing)


FORMS: list[tuple[int, tuple[str, ...], dict[str, float]]] = [
    (7, (), {"ratio": 0.25}),
    (10, (), {"ratio": 0.25}),
    (13, ("ratio",), {}),
    (22, ("ratio", "off"), {}),
]


@pytest.mark.parametrize(("opset", "inputs", "attributes"), FORMS)
def test_dropout_drops_while_a_graph_is_trained(
    opset: int, inputs: tuple[str, ...], attributes: dict[str, float]
) -> None:
    x = torch.arange(1.0, 4001.0)
    graph = dropping(opset, *inputs, outputs=2, **attributes)
    kept = graph({"x": x})
    assert torch.equal(kept["y"], x)
    assert kept["mask"].dtype == (torch.float32 if opset < 10 else torch.bool)
    assert bool(kept["mask"].all())
    graph.train()
    graph.mode.generator = torch.Generator().manual_seed(3)
    found = graph({"x": x})
    y, mask = found["y"], found["mask"].bool()
    assert torch.equal(y, torch.where(mask, x / 0.75, 0.0))
    assert abs(mask.float().mean().item() - 0.75) < 0.03
    assert not torch.equal(graph({"x": x})["y"], y)
    graph.mode.generator.manual_seed(3)
    assert torch.equal(graph({"x": x})["y"], y)


@pytest.mark.parametrize(("opset", "inputs", "attributes"), FORMS)
def test_dropout_without_a_mask(opset: int, inputs: tuple[str, ...], attributes: dict[str, float]) -> None:
    x = torch.ones(4000, requires_grad=True)
    graph = dropping(opset, *inputs, **attributes).train()
    torch.manual_seed(0)
    y = graph({"x": x})["y"]
    y.sum().backward()
    assert set(y.tolist()) == {0.0, 1 / 0.75} or torch.allclose(y.unique(), torch.tensor([0.0, 1 / 0.75]))
    assert torch.equal(x.grad, y.detach())
    assert torch.equal(graph.eval()({"x": x})["y"], x)


def test_dropout_drops_where_its_input_says_so() -> None:
    x = torch.ones(1000)
    assert not torch.equal(dropping(13, "", "on")({"x": x})["y"], x)
    assert 0.4 < dropping(13, "", "on", outputs=2)({"x": x})["mask"].float().mean().item() < 0.6


def test_dropout_of_everything() -> None:
    graph = dropping(10, ratio=1.0).train()
    assert not graph({"x": torch.ones(20)})["y"].any()
    graph.mode.generator = torch.Generator().manual_seed(0)
    assert not graph({"x": torch.ones(20)})["y"].any()
