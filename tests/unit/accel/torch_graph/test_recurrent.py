"""Recurrent layers: each form against ONNX Runtime, gradients, and PyTorch's kernels where they compute the same."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch

from accel.errors import UnsupportedOperator
from tests.one_node import Given, computed, graph_of, model_of
from tests.onnxruntime_reference import assert_agrees, reference
from tests.torch_kernels import kernels_of

CHANCE = np.random.default_rng(3)
TIME, BATCH, INPUTS, HIDDEN = 6, 3, 4, 5
GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
OUTPUTS = {"LSTM": 3, "GRU": 2, "RNN": 2}
DIRECTIONS = {"forward": 1, "reverse": 1, "bidirectional": 2}
OTHERS = {"LSTM": ["HardSigmoid", "Tanh", "LeakyRelu"], "GRU": ["HardSigmoid", "ScaledTanh"], "RNN": ["Affine"]}
ALPHAS = {"LSTM": [0.3, 0.1], "GRU": [0.3, 0.8], "RNN": [0.4]}
BETAS = {"LSTM": [0.4], "GRU": [0.6, 0.9], "RNN": [0.1]}
KERNELS = {"LSTM": "aten::lstm", "GRU": "aten::gru", "RNN": "aten::rnn_tanh"}


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Threads that share such small products only wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def floats(*shape: int) -> np.ndarray:
    return (CHANCE.standard_normal(shape) * 0.7).astype(np.float32)


def inputs(
    operator: str, directions: int, lengths: list[int] | None = None, *, full: bool = True, peepholes: bool = False
) -> list[Given]:
    """Input, weights, and if ``full`` biases and states."""
    gates = GATES[operator] * HIDDEN
    given: list[Given] = [
        floats(TIME, BATCH, INPUTS),
        floats(directions, gates, INPUTS),
        floats(directions, gates, HIDDEN),
    ]
    given.append(floats(directions, 2 * gates) if full else None)
    given.append(None if lengths is None else np.array(lengths, np.int32))
    given += [floats(directions, BATCH, HIDDEN) if full else None for _ in range(OUTPUTS[operator] - 1)]
    if peepholes:
        given.append(floats(directions, 3 * HIDDEN))
    while given[-1] is None:
        given.pop()
    return given


def options(operator: str, direction: str, **more: Any) -> dict[str, Any]:
    return {"opset": 14, "outputs": OUTPUTS[operator], "hidden_size": HIDDEN, "direction": direction} | more


def variants(operator: str, directions: int) -> list[dict[str, Any]]:
    others = {
        "activations": OTHERS[operator] * directions,
        "activation_alpha": ALPHAS[operator] * directions,
        "activation_beta": BETAS[operator] * directions,
    }
    found: list[dict[str, Any]] = [{}, {"clip": 0.4}, others]
    if operator == "LSTM":
        found += [{"input_forget": 1}]
    if operator == "GRU":
        found += [{"linear_before_reset": 1}, {"linear_before_reset": 1, "clip": 0.4}]
    if operator == "RNN":
        found += [{"activations": ["Relu"] * directions}]
    return found


@pytest.mark.parametrize("lengths", [None, [6, 2, 4], [6, 0, 4], [3, 3, 3]], ids=str)
@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("operator", GATES)
def test_every_form(operator: str, direction: str, lengths: list[int] | None) -> None:
    directions = DIRECTIONS[direction]
    for variant in variants(operator, directions):
        assert_agrees(operator, inputs(operator, directions, lengths), **options(operator, direction, **variant))
    assert_agrees(operator, inputs(operator, directions, lengths, full=False), **options(operator, direction))
    if operator == "LSTM":
        given = inputs(operator, directions, lengths, peepholes=True)
        for clip in ({}, {"clip": 0.3}):
            assert_agrees(operator, given, **options(operator, direction, **clip))


@pytest.mark.parametrize("operator", GATES)
def test_the_batch_may_be_first(operator: str) -> None:
    for direction, directions in DIRECTIONS.items():
        for variant in ({}, {"clip": 9.0}):
            given = inputs(operator, directions)
            plain = computed(model_of(operator, given, **options(operator, direction, **variant)), given)
            turned = [
                value.swapaxes(0, 1) if place in {0, 5, 6} and value is not None else value
                for place, value in enumerate(given)
            ]
            found = computed(model_of(operator, turned, **options(operator, direction, layout=1, **variant)), turned)
            assert torch.equal(found[0], plain[0].permute(2, 0, 1, 3))
            for after, expected in zip(found[1:], plain[1:], strict=True):
                assert torch.equal(after, expected.transpose(0, 1))


@pytest.mark.parametrize("operator", GATES)
def test_plain_forms_run_in_one_kernel(operator: str) -> None:
    plain = {"linear_before_reset": 1} if operator == "GRU" else {}
    for direction, lengths in product(DIRECTIONS, (None, [6, 2, 4])):
        given = inputs(operator, DIRECTIONS[direction], lengths)
        model = model_of(operator, given, **options(operator, direction, **plain))
        assert KERNELS[operator] in kernels_of(model, given)
    given = inputs(operator, 1)
    model = model_of(operator, given, **options(operator, "forward", clip=2.0, **plain))
    assert KERNELS[operator] not in kernels_of(model, given)


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("operator", GATES)
def test_gradients_reach_inputs_weights_biases_and_states(operator: str, direction: str) -> None:
    directions = DIRECTIONS[direction]
    kernel = {"linear_before_reset": 1} if operator == "GRU" else {}
    forms: list[tuple[list[Given], dict[str, Any]]] = [
        (inputs(operator, directions), kernel),
        (inputs(operator, directions, [6, 2, 4]), kernel),
        (inputs(operator, directions, [2, 6, 0], peepholes=operator == "LSTM"), {"clip": 2.0}),
        (inputs(operator, directions), kernel | {"clip": 2.0}),
    ]
    for given, variant in forms:
        assert_slope(operator, given, options(operator, direction, **variant))


def assert_slope(operator: str, given: list[Given], form: dict[str, Any]) -> None:
    """Along a way through all inputs of float64, all outputs change as their gradients tell."""
    graph = graph_of(operator, given, **form)
    held = {f"x{place}": torch.from_numpy(value) for place, value in enumerate(given) if value is not None}
    leaves = {name: tensor.double() for name, tensor in held.items() if tensor.is_floating_point()}
    ways = {name: torch.from_numpy(CHANCE.standard_normal(leaf.shape)) for name, leaf in leaves.items()}
    weights: dict[str, torch.Tensor] = {}

    def total(step: float) -> torch.Tensor:
        found = graph(held | {name: leaf + step * ways[name] for name, leaf in leaves.items()})
        for name, y in found.items():
            weights.setdefault(name, torch.from_numpy(CHANCE.standard_normal(y.shape)))
        return sum(((y * weights[name]).sum() for name, y in found.items()), torch.zeros((), dtype=torch.float64))

    step = 1e-6
    with torch.no_grad():
        slope = (total(step) - total(-step)) / (2 * step)
    for leaf in leaves.values():
        leaf.requires_grad_()
    total(0.0).backward()
    for name, leaf in leaves.items():
        assert leaf.grad is not None, name
        assert leaf.grad.abs().sum() > 0, name
    told = sum(((leaf.grad * ways[name]).sum() for name, leaf in leaves.items()), torch.zeros(()))
    torch.testing.assert_close(told, slope, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("operator", GATES)
def test_kernels_of_floats_of_32_bits_have_the_gradients_of_single_steps(operator: str) -> None:
    given = inputs(operator, 2)
    plain = {"linear_before_reset": 1} if operator == "GRU" else {}
    found = []
    for variant in (plain, plain | {"clip": 1e6}):  # what is clipped runs step by step
        graph = graph_of(operator, given, **options(operator, "bidirectional", **variant))
        leaves = {f"x{p}": torch.from_numpy(v).requires_grad_() for p, v in enumerate(given) if v is not None}
        outputs = graph(leaves)
        sum((y.square().sum() for y in outputs.values()), torch.zeros(())).backward()
        found.append([leaf.grad for leaf in leaves.values()])
    for kernel, stepwise in zip(*found, strict=True):
        torch.testing.assert_close(kernel, stepwise, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("per_channel", [False, True])
def test_an_lstm_of_integers(direction: str, *, per_channel: bool) -> None:
    directions = DIRECTIONS[direction]
    shape = (directions, 4 * HIDDEN) if per_channel else (directions,)
    weights = [CHANCE.integers(-63, 64, (directions, n, 4 * HIDDEN)).astype(np.int8) for n in (INPUTS, HIDDEN)]
    steps = [CHANCE.uniform(0.01, 0.02, shape).astype(np.float32) for _ in weights]
    states = [floats(directions, BATCH, HIDDEN) for _ in range(2)]
    given: list[Given] = [floats(TIME, BATCH, INPUTS), *weights, floats(directions, 8 * HIDDEN), None, *states]
    given += [floats(directions, 3 * HIDDEN), steps[0], np.zeros(shape, np.int8), steps[1], np.zeros(shape, np.int8)]
    form: dict[str, Any] = {"hidden_size": HIDDEN, "direction": direction, "outputs": 3}
    model = model_of("DynamicQuantizeLSTM", given, domain="com.microsoft", fixed=(1, 2, 8, 9, 10, 11), **form)
    for found, expected in zip(computed(model, given), reference(model, given), strict=True):
        np.testing.assert_allclose(found.numpy(), expected, rtol=1e-5, atol=1e-6)


def test_an_lstm_of_integers_passes_gradients() -> None:
    shape = (1,)
    given: list[Given] = [floats(TIME, BATCH, INPUTS)]
    given += [CHANCE.integers(-63, 64, (1, n, 4 * HIDDEN)).astype(np.int8) for n in (INPUTS, HIDDEN)]
    given += [None, None, None, None, None, np.full(shape, 0.01, np.float32), np.zeros(shape, np.int8)]
    given += [np.full(shape, 0.01, np.float32), np.zeros(shape, np.int8)]
    graph = graph_of("DynamicQuantizeLSTM", given, domain="com.microsoft", hidden_size=HIDDEN)
    feeds = {f"x{place}": torch.from_numpy(value) for place, value in enumerate(given) if value is not None}
    x = feeds["x0"].requires_grad_()
    graph(feeds)["y0"].sum().backward()
    plain: list[Given] = [given[0]]
    plain += [np.ascontiguousarray(w.transpose(0, 2, 1)) * np.float32(0.01) for w in given[1:3] if w is not None]
    exact = graph_of("LSTM", plain, opset=14, hidden_size=HIDDEN)
    leaf = torch.from_numpy(given[0]).requires_grad_()
    exact({"x0": leaf, "x1": torch.from_numpy(plain[1]), "x2": torch.from_numpy(plain[2])})["y0"].sum().backward()
    assert x.grad is not None
    assert leaf.grad is not None
    cosine = torch.nn.functional.cosine_similarity(x.grad.flatten(), leaf.grad.flatten(), dim=0)
    assert cosine > 0.98


@pytest.mark.parametrize(
    ("operator", "variant", "said"),
    [("LSTM", {"direction": "sideways"}, "direction"), ("GRU", {"activations": ["Sigmoid", "Sine"]}, "Sine")],
)
def test_what_is_unknown_is_refused(operator: str, variant: dict[str, Any], said: str) -> None:
    with pytest.raises(UnsupportedOperator, match=said):
        graph_of(operator, inputs(operator, 1), **(options(operator, "forward") | variant))


def test_activations_of_a_direction_that_there_is_not_are_left_out() -> None:
    given = inputs("RNN", 1)
    both = graph_of("RNN", given, **options("RNN", "forward", activations=["Tanh", "Tanh"]))
    one = graph_of("RNN", given, **options("RNN", "forward"))
    feeds = {f"x{place}": torch.from_numpy(value) for place, value in enumerate(given) if value is not None}
    assert torch.equal(both(feeds)["y0"], one(feeds)["y0"])
