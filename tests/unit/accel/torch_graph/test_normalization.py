"""Normalisation: ONNX Runtime's results in every form, what training does to running statistics, and gradients."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
import torch
from torch.nn import functional as F  # noqa: N812

from accel.errors import TrainingFailed
from accel.graph.torch_graph.graph import TorchGraph, layers, nothing
from tests.one_node import computed, gradients_agree, model_of, run
from tests.onnxruntime_reference import assert_agrees
from tests.torch_kernels import kernels_of

CHANCE = np.random.default_rng(19)
SHAPES = [(4, 3), (4, 3, 5), (2, 3, 4, 5), (2, 3, 2, 3, 4)]


def values(*shape: int) -> np.ndarray:
    return CHANCE.standard_normal(shape).astype(np.float32)


def positive(*shape: int) -> np.ndarray:
    return (CHANCE.random(shape) + 0.5).astype(np.float32)


def wide(*shape: int) -> np.ndarray:
    return CHANCE.standard_normal(shape)


def batch_norm(x: np.ndarray, **options: Any) -> tuple[TorchGraph, list[np.ndarray]]:
    """A graph whose scale, shift, mean and variance are initialisers; and these."""
    stored = [values(3), values(3), values(3), positive(3)]
    model = model_of("BatchNormalization", [x, *stored], fixed=(1, 2, 3, 4), **options)
    return TorchGraph(ir.from_proto(model), layers), stored


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("opset", [7, 9, 14, 15])
def test_batch_with_stored_statistics(opset: int, shape: tuple[int, ...]) -> None:
    given = [values(*shape), values(3), values(3), values(3), positive(3)]
    assert_agrees("BatchNormalization", given, opset=opset, epsilon=1e-3)


@pytest.mark.parametrize("shape", SHAPES)
def test_batch_that_learns_statistics(shape: tuple[int, ...]) -> None:
    x = torch.from_numpy(values(*shape))
    graph, (scale, shift, mean, variance) = batch_norm(x.numpy(), momentum=0.7, epsilon=1e-3)
    held = graph({"x0": x})["y0"]
    graph.mode.batch_norm = "train"
    found = graph({"x0": x})["y0"]
    graph.mode.batch_norm = "hold"
    later = graph({"x0": x})["y0"]

    running_mean, running_variance = torch.from_numpy(mean), torch.from_numpy(variance)
    weights = [torch.from_numpy(scale), torch.from_numpy(shift)]
    before = F.batch_norm(x, running_mean, running_variance, *weights, eps=1e-3)
    expected = F.batch_norm(x, running_mean, running_variance, *weights, training=True, momentum=0.3, eps=1e-3)
    after = F.batch_norm(x, running_mean, running_variance, *weights, eps=1e-3)
    for ours, theirs in ((held, before), (found, expected), (later, after)):
        torch.testing.assert_close(ours, theirs)
    assert not torch.allclose(held, later)

    graph.write_back()
    stored = {candidate.name: candidate.constant.numpy() for candidate in graph._statistics}
    assert set(stored) == {"x3", "x4"}


def test_what_was_learnt_is_written_back() -> None:
    x = values(8, 3, 2)
    model = ir.from_proto(
        model_of(
            "BatchNormalization", [x, values(3), values(3), np.zeros(3, np.float32), positive(3)], fixed=(1, 2, 3, 4)
        )
    )
    graph = TorchGraph(model, layers)
    graph.mode.batch_norm = "train"
    for _ in range(60):  # 0.9 ** 60 of what was there is left
        graph({"x0": torch.from_numpy(x)})
    graph.write_back()
    stored = model.graph.initializers
    np.testing.assert_allclose(stored["x3"].const_value.numpy(), x.mean((0, 2)), atol=1e-2)
    np.testing.assert_allclose(stored["x4"].const_value.numpy(), x.var((0, 2), ddof=1), rtol=2e-2)


def test_one_value_of_a_channel_teaches_nothing() -> None:
    graph, _ = batch_norm(values(1, 3))
    graph.mode.batch_norm = "train"
    with pytest.raises(TrainingFailed, match=r"'node' \(BatchNormalization\).*more than one value"):
        graph({"x0": torch.zeros(1, 3)})


def test_batch_of_a_node_for_training() -> None:
    given = [values(4, 3, 5), values(3), values(3), values(3), positive(3)]
    options = {"training_mode": 1, "momentum": 0.7, "outputs": 3}
    assert_agrees("BatchNormalization", given, opset=15, **options)
    graph = TorchGraph(ir.from_proto(model_of("BatchNormalization", given, **options)), nothing)
    feeds = {f"x{place}": torch.from_numpy(value.copy()) for place, value in enumerate(given)}
    outputs = []
    for mode in ("hold", "train"):
        graph.mode.batch_norm = mode
        outputs.append(graph(feeds))
    for name, held in outputs[0].items():
        assert torch.equal(held, outputs[1][name])
    assert torch.equal(feeds["x3"], torch.from_numpy(given[3]))
    assert torch.equal(feeds["x4"], torch.from_numpy(given[4]))


def test_batch_of_an_early_node_for_training() -> None:
    x, scale, shift, mean, variance = given = [values(4, 3, 5), values(3), values(3), values(3), positive(3)]
    found = computed(model_of("BatchNormalization", given, opset=9, outputs=5, momentum=0.7), given)
    centre, spread = x.mean((0, 2)), x.var((0, 2))
    y = (x - centre[:, None]) / np.sqrt(spread + 1e-5)[:, None] * scale[:, None] + shift[:, None]
    for ours, theirs in zip(
        found, (y, 0.7 * mean + 0.3 * centre, 0.7 * variance + 0.3 * spread, centre, spread), strict=True
    ):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)


def test_each_element_of_an_early_batch() -> None:
    given = [values(2, 3, 4), values(3, 4), values(3, 4), values(3, 4), positive(3, 4)]
    assert_agrees("BatchNormalization", given, opset=7, spatial=0)


def test_batch_of_one_channel_without_an_axis() -> None:
    x, scale, shift, mean, variance = given = [values(6), values(1), values(1), values(1), positive(1)]
    found = run("BatchNormalization", given)
    np.testing.assert_allclose(found, (x - mean) / np.sqrt(variance + 1e-5) * scale + shift, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "types", [(np.float16, np.float32, np.float32), (np.float16, np.float16, np.float32), (np.float16,) * 3]
)
def test_batch_of_16_bits(types: tuple[type, ...]) -> None:
    given = [values(4, 3, 5), values(3), values(3), values(3), positive(3)]
    cast = [value.astype(types[place]) for value, place in zip(given, (0, 1, 1, 2, 2), strict=True)]
    found = run("BatchNormalization", cast)
    assert found.dtype == torch.float16
    torch.testing.assert_close(found.float(), run("BatchNormalization", given), rtol=2e-2, atol=2e-2)


@pytest.mark.parametrize("shape", SHAPES[1:])
def test_instance(shape: tuple[int, ...]) -> None:
    assert_agrees("InstanceNormalization", [values(*shape), values(3), values(3)], opset=17, epsilon=1e-3)
    shift = values(3)
    alone = run("InstanceNormalization", [values(2, 3, 1, 1), values(3), shift])  # a single value is its own mean
    np.testing.assert_allclose(alone, np.broadcast_to(shift.reshape(1, 3, 1, 1), (2, 3, 1, 1)), atol=1e-4)


@pytest.mark.parametrize("axis", [-1, -2, 1, 0])
@pytest.mark.parametrize("shifted", [False, True])
def test_layer(shifted: bool, axis: int) -> None:
    sizes = (2, 3, 4)
    for shape in (sizes[axis:], sizes[-1:], (1,)):  # what is narrower is broadcast
        given = [values(*sizes), values(*shape), *([values(*shape)] if shifted else [])]
        for outputs in (1, 3):
            assert_agrees("LayerNormalization", given, opset=17, axis=axis, outputs=outputs)


def test_layer_stashes_in_another_type() -> None:
    given = [values(2, 4).astype(np.float16), values(4).astype(np.float16)]
    y, mean, inverse = computed(model_of("LayerNormalization", given, outputs=3, stash_type=16), given)
    assert [y.dtype, mean.dtype, inverse.dtype] == [torch.float16, torch.bfloat16, torch.bfloat16]
    np.testing.assert_allclose(mean.float().flatten(), given[0].astype(np.float32).mean(1), rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("axis", [-1, 1, 0])
def test_root_mean_square(axis: int) -> None:
    given = [values(2, 3, 4), values(*(2, 3, 4)[axis:])]
    assert_agrees("RMSNormalization", given, opset=23, axis=axis)
    for outputs in (1, 2):
        assert_agrees("SimplifiedLayerNormalization", given, opset=17, axis=axis, outputs=outputs)


def test_root_mean_square_has_the_type_of_its_scale() -> None:
    assert run("RMSNormalization", [values(2, 4).astype(np.float16), values(4)]).dtype == torch.float32


def test_groups() -> None:
    x = values(2, 6, 4, 5)
    assert_agrees("GroupNormalization", [x, values(3), values(3)], opset=18, num_groups=3)
    assert_agrees("GroupNormalization", [x, values(6), values(6)], opset=21, num_groups=3)


@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("axis", [0, 1, -1])
def test_norm(axis: int, order: int) -> None:
    x = values(2, 3, 4)
    x[0] = 0
    assert_agrees("LpNormalization", [x], opset=22, axis=axis, p=order)


def test_mean_and_variance() -> None:
    for opset, options in ((9, {}), (13, {"axes": [2, -1]})):
        assert_agrees("MeanVarianceNormalization", [values(2, 3, 4, 5)], opset=opset, **options)


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5])
def test_local_response(size: int) -> None:
    x, bias, alpha, beta = values(2, 6, 3, 4), 1.5, 0.3, 0.6
    squares = np.stack(
        [
            (x[:, max(0, c - (size - 1) // 2) : c + size // 2 + 1] ** 2).sum(1)  # as the specification has it
            for c in range(6)
        ],
        1,
    )
    found = run("LRN", [x], size=size, alpha=alpha, beta=beta, bias=bias)
    np.testing.assert_allclose(found, x / (bias + alpha / size * squares) ** beta, rtol=1e-4, atol=1e-6)
    if size % 2:  # all that ONNX Runtime has
        assert_agrees("LRN", [x], opset=13, size=size, alpha=alpha, beta=beta, bias=bias)


@pytest.mark.parametrize("skip", [(2, 3, 8), (1, 3, 8), (3, 8)])
def test_skips(skip: tuple[int, ...]) -> None:
    options = {"domain": "com.microsoft", "opset": 17, "epsilon": 1e-5}
    given = [values(2, 3, 8), values(*skip), values(8), values(8), values(8)]
    for count in (3, 4, 5):
        for outputs in (1, 4):
            assert_agrees("SkipLayerNormalization", given[:count], outputs=outputs, **options)
    for count in (3, 4):
        assert_agrees("SkipSimplifiedLayerNormalization", given[:count], **options)


def test_skips_give_the_sum() -> None:
    given = [values(2, 3, 8), values(2, 3, 8), values(8), values(8)]
    model = model_of("SkipSimplifiedLayerNormalization", given, domain="com.microsoft", outputs=4)
    model.graph.node[0].output[1] = ""  # the mean, which this one does not have
    del model.graph.output[1]
    y, inverse, total = computed(model, given)
    expected = given[0] + given[1] + given[3]
    np.testing.assert_allclose(total, expected, rtol=1e-6)
    np.testing.assert_allclose(inverse, 1 / np.sqrt((expected**2).mean(2, keepdims=True) + 1e-12), rtol=1e-5)
    np.testing.assert_allclose(y, expected * inverse.numpy() * given[2], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("operator", "shapes", "options"),
    [
        ("BatchNormalization", [(3, 2, 2), (2,), (2,)], {}),
        ("BatchNormalization", [(3, 2, 2), (2,), (2,)], {"training_mode": 1, "outputs": 3}),
        ("InstanceNormalization", [(2, 2, 3), (2,), (2,)], {}),
        ("LayerNormalization", [(2, 2, 3), (2, 3), (2, 3)], {"axis": 1}),
        ("LayerNormalization", [(2, 3), (1,)], {"outputs": 3}),
        ("GroupNormalization", [(2, 4, 2), (2,), (2,)], {"num_groups": 2, "opset": 18}),
        ("GroupNormalization", [(2, 4, 2), (4,), (4,)], {"num_groups": 2}),
        ("RMSNormalization", [(2, 2, 3), (2, 3)], {"axis": 1}),
        ("LpNormalization", [(2, 3)], {"p": 1}),
        ("LpNormalization", [(2, 3)], {"axis": 0}),
        ("MeanVarianceNormalization", [(2, 2, 2, 2)], {}),
        ("LRN", [(1, 4, 2)], {"size": 2, "alpha": 0.5}),
        ("SkipLayerNormalization", [(2, 3), (2, 3), (3,), (3,), (3,)], {"domain": "com.microsoft"}),
        ("SkipSimplifiedLayerNormalization", [(2, 3), (2, 3), (3,), (3,)], {"domain": "com.microsoft"}),
    ],
)
def test_gradients(operator: str, shapes: list[tuple[int, ...]], options: dict) -> None:
    given: list[np.ndarray] = [wide(*shape) for shape in shapes]
    if operator == "BatchNormalization":
        statistics = [wide(2), CHANCE.random(2) + 0.5]
        if options:  # PyTorch does not need them
            statistics = [value.astype(np.float32) for value in statistics]
        given += statistics  # those of 64 bits get a gradient of their own
    assert gradients_agree(operator, given, **options)


def test_the_statistics_of_a_layer_have_gradients() -> None:
    model = model_of("LayerNormalization", [values(2, 3), values(3)], outputs=3)
    graph = TorchGraph(ir.from_proto(model), nothing)
    x, scale = torch.from_numpy(values(2, 3)), torch.from_numpy(values(3))
    ours, theirs = x.clone().requires_grad_(), x.clone().requires_grad_()
    found = graph({"x0": ours, "x1": scale})
    (found["y1"] * 3 + found["y2"]).sum().backward()
    centred = theirs - theirs.mean(1, keepdim=True)
    (theirs.mean(1) * 3 + (centred.square().mean(1) + 1e-5) ** -0.5).sum().backward()
    torch.testing.assert_close(ours.grad, theirs.grad)


@pytest.mark.parametrize("operator", ["BatchNormalization", "LayerNormalization", "GroupNormalization"])
def test_a_plain_one_is_one_kernel(operator: str) -> None:
    x, channels = values(2, 3, 4), [values(3), values(3)]
    given, options, kernel = {
        "BatchNormalization": ([x, *channels, values(3), positive(3)], {}, "aten::batch_norm"),
        "LayerNormalization": ([x, values(4), values(4)], {}, "aten::layer_norm"),
        "GroupNormalization": ([x, *channels], {"num_groups": 1}, "aten::group_norm"),
    }[operator]
    assert kernels_of(model_of(operator, given, **options), given) == [kernel]
