"""Bias correction: the means of a quantized model's layers come back to those of the float model."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import helper

from accel.context import Context
from accel.errors import DataRequired, TechniqueFailed
from accel.graph.layers import layers
from accel.graph.placement import place
from accel.graph.prepare import prepare
from accel.graph.qdq import QuantizedActivation, QuantizedWeight, insert
from accel.graph.quantized import quantized_layers
from accel.graph.stepwise import Stepwise
from accel.numerics.bias import expected_shift, mean_error, moved
from accel.numerics.calibration import calibrate
from accel.numerics.scales import ACTIVATIONS, PER_TENSOR, Granularity, Scheme, parameters, quantize_tensor
from accel.techniques.bias_correction import BiasCorrection
from tests import models
from tests.samples import Samples

RNG = np.random.default_rng
Node = onnx.NodeProto


IMAGES = Samples(x=RNG(0).uniform(0, 1, (36, 3, 8, 8)).astype(np.float32))
ROWS = Samples(x=RNG(0).uniform(0, 1, (64, 5, 12)).astype(np.float32))


def network(nodes: Sequence[Node], constants: dict[str, np.ndarray], shape: Sequence[int | str]) -> onnx.ModelProto:
    inputs = [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, shape)]
    outputs = [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, None)]
    return models.assemble(nodes, inputs, outputs, constants)


def weights(seed: int, *shape: int) -> np.ndarray:
    return (RNG(seed).standard_normal(shape) * 0.4).astype(np.float32)


def convolutions(*, bias: bool = True) -> onnx.ModelProto:
    """Conv, depthwise Conv, Conv and a residual, pooled into a Gemm."""
    names = ["b1", "b2", "b3", "b4"] if bias else ["", "", "", ""]
    nodes = [
        helper.make_node("Conv", ["x", "w1", names[0]], ["c1"], "one", pads=[1] * 4),
        helper.make_node("Relu", ["c1"], ["r1"], "relu1"),
        helper.make_node("Conv", ["r1", "w2", names[1]], ["c2"], "two", pads=[1] * 4, group=6),
        helper.make_node("Relu", ["c2"], ["r2"], "relu2"),
        helper.make_node("Conv", ["r2", "w3", names[2]], ["c3"], "three"),
        helper.make_node("Add", ["c3", "r1"], ["s"], "join"),
        helper.make_node("ReduceMean", ["s"], ["m"], "mean", axes=[2, 3], keepdims=0),
        helper.make_node("Gemm", ["m", "w4", names[3]], ["y"], "four", transB=1),
    ]
    for node in nodes:
        while node.input and not node.input[-1]:
            del node.input[-1]
    constants = {"w1": weights(1, 6, 3, 3, 3), "w2": weights(2, 6, 1, 3, 3), "w3": weights(3, 6, 6, 1, 1)}
    constants |= {"w4": weights(4, 4, 6)}
    if bias:
        constants |= {name: weights(number, 4 if name == "b4" else 6) for number, name in enumerate(names, 10)}
    return network(nodes, constants, ["n", 3, 8, 8])


def products(*, bias: bool, activation: str = "Relu") -> onnx.ModelProto:
    """Two matrix products of rank 3."""
    nodes = [helper.make_node("MatMul", ["x", "w1"], ["p"], "first")]
    if bias:
        nodes.append(helper.make_node("Add", ["p", "b1"], ["b"], "bias"))
    nodes += [
        helper.make_node(activation, ["b" if bias else "p"], ["r"], "activation"),
        helper.make_node("MatMul", ["r", "w2"], ["y"], "second"),
    ]
    constants = {"w1": weights(1, 12, 10), "w2": weights(2, 10, 3)} | ({"b1": weights(3, 10)} if bias else {})
    return network(nodes, constants, ["n", 5, 12])


def quantized(
    proto: onnx.ModelProto, data: Samples, folder: Path, *, bits: int = 4, per_channel: bool = False, in_float: str = ""
) -> ir.Model:
    """The model with coarse weights, in int8 containers."""
    model, _ = prepare(ir.from_proto(proto), folder)
    placement = place([layer for layer in layers(model.graph) if layer.name != in_float])
    found = calibrate(
        model, placement.measured, data.batches(64, 16), method="minmax", scheme=ACTIVATIONS, workspace=folder
    )
    scheme = Scheme(bits)
    ready = {}
    for layer in placement.layers:
        granularity = Granularity(layer.channel_axis) if per_channel else PER_TENSOR
        integers, how = quantize_tensor(layer.weight, scheme, granularity)
        ready[layer.name] = QuantizedWeight(integers.astype(np.int8), how, scheme, granularity)
    activations = {
        name: QuantizedActivation(parameters(*ends, ACTIVATIONS), ACTIVATIONS) for name, ends in found.ranges.items()
    }
    insert(model, placement, ready, activations)
    return ir.from_proto(ir.to_proto(model))


def corrected(
    proto: onnx.ModelProto, model: ir.Model, data: Samples | None, folder: Path, **given: object
) -> tuple[ir.Model, list[str]]:
    context = Context(folder, 0, lambda *_: None, data, reference=ir.from_proto(proto))
    before = ir.to_proto(model).SerializeToString(deterministic=True)
    result = BiasCorrection.model_validate(given).apply(model, context)
    assert ir.to_proto(model).SerializeToString(deterministic=True) == before, "the given model was changed"
    return result, context.notes


def after_and_before(notes: Sequence[str]) -> float:
    """The mean error of the layers that the note tells, as a share of what it was."""
    (note,) = (note for note in notes if "mean error" in note)
    before, after = (float(part.split()[-1]) for part in note.split("%")[:2])
    return after / before


def mean_of_outputs(proto: onnx.ModelProto, data: Samples) -> np.ndarray:
    (output,) = models.run(proto, data.feeds).values()
    return np.asarray(output.reshape(-1, output.shape[-1]).mean(0, dtype=np.float64))


def distance(proto: onnx.ModelProto, model: ir.Model, data: Samples) -> float:
    """How far the means of the outputs are apart, relative to themselves."""
    wanted = mean_of_outputs(proto, data)
    return float(np.linalg.norm(mean_of_outputs(ir.to_proto(model), data) - wanted) / np.linalg.norm(wanted))


@pytest.mark.parametrize(("bias", "per_channel"), list(itertools.product([True, False], repeat=2)))
def test_data_brings_the_means_of_all_layers_back(bias: bool, per_channel: bool, tmp_path: Path) -> None:
    proto = convolutions(bias=bias)
    model = quantized(proto, IMAGES, tmp_path, per_channel=per_channel)
    result, notes = corrected(proto, model, IMAGES, tmp_path, method="data", samples=36)
    assert distance(proto, result, IMAGES) < 0.15 * distance(proto, model, IMAGES)
    assert after_and_before(notes) < 0.1
    again, _ = corrected(proto, model, IMAGES, tmp_path, method="data", samples=36)
    assert ir.to_proto(again).SerializeToString() == ir.to_proto(result).SerializeToString()


def test_a_new_bias_is_made_of_integers_that_runtimes_fuse(tmp_path: Path) -> None:
    proto = convolutions(bias=False)
    model = quantized(proto, IMAGES, tmp_path, per_channel=True)
    result, _ = corrected(proto, model, IMAGES, tmp_path)
    for layer in quantized_layers(result.graph):
        assert layer.bias is not None
        assert layer.bias.dtype == ir.DataType.INT32
        assert layer.input_scale is not None
        assert layer.bias_scale is not None
        np.testing.assert_allclose(layer.bias_scale, layer.input_scale * layer.weight.parameters.scale, rtol=1e-6)


def test_the_analytic_correction_is_exact_where_only_weights_are_rounded(tmp_path: Path) -> None:
    """Without activations in integers, and with every pixel read alike, the means are those of the float model."""
    node = helper.make_node("Conv", ["x", "w", "b"], ["y"], "only")
    proto = network([node], {"w": weights(1, 6, 3, 1, 1), "b": weights(2, 6)}, ["n", 3, 8, 8])
    model = quantized(proto, IMAGES, tmp_path)
    (layer,) = quantized_layers(model.graph)
    pair = layer.node.inputs[0].producer()  # type: ignore[union-attr]
    layer.node.replace_input_with(0, pair.inputs[0].producer().inputs[0])  # type: ignore[union-attr]
    result, _ = corrected(proto, model, IMAGES, tmp_path, samples=36)

    def means(given: onnx.ModelProto) -> np.ndarray:
        (output,) = models.run(given, IMAGES.feeds).values()
        return np.asarray(output.mean((0, 2, 3), dtype=np.float64))

    assert np.abs(means(ir.to_proto(model)) - means(proto)).max() > 1e-2
    np.testing.assert_allclose(means(ir.to_proto(result)), means(proto), atol=5e-4)


@pytest.mark.parametrize("method", ["analytic", "data"])
def test_a_matrix_product_is_corrected_in_the_add_behind_it(method: str, tmp_path: Path) -> None:
    proto = products(bias=True)
    model = quantized(proto, ROWS, tmp_path)
    result, notes = corrected(proto, model, ROWS, tmp_path, method=method)
    assert after_and_before(notes) < 0.3
    assert distance(proto, result, ROWS) < 0.3 * distance(proto, model, ROWS)
    assert [node.op_type for node in result.graph].count("Add") == 2  # `second` got one, `first` had one
    assert [value.name for value in result.graph.outputs] == ["y"]


@pytest.mark.parametrize("activation", ["Identity", "Relu"])
def test_no_add_is_put_before_a_quantization(activation: str, tmp_path: Path) -> None:
    proto = products(bias=False, activation=activation)
    model = quantized(proto, ROWS, tmp_path)
    result, notes = corrected(proto, model, ROWS, tmp_path, method="data")
    assert any("first" in note and "quantized at once" in note for note in notes)
    assert [node.op_type for node in result.graph].count("Add") == 1
    assert distance(proto, result, ROWS) < 0.3 * distance(proto, model, ROWS)


def test_layers_that_stayed_in_float_are_passed_over(tmp_path: Path) -> None:
    proto = convolutions()
    model = quantized(proto, IMAGES, tmp_path, in_float="two")
    result, _ = corrected(proto, model, IMAGES, tmp_path, method="data")
    assert distance(proto, result, IMAGES) < 0.3 * distance(proto, model, IMAGES)
    (before, after) = (next(n for n in m.graph if n.name == "two").inputs[2] for m in (model, result))
    np.testing.assert_array_equal(before.const_value.numpy(), after.const_value.numpy())  # type: ignore[union-attr]


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    proto = convolutions()
    model = quantized(proto, IMAGES, tmp_path)
    with pytest.raises(DataRequired):
        corrected(proto, model, None, tmp_path)
    with pytest.raises(TechniqueFailed, match="no layer whose weight is dequantized") as caught:
        corrected(proto, ir.from_proto(proto), IMAGES, tmp_path)
    assert "quantize_static" in caught.value.hint
    with pytest.raises(TechniqueFailed, match="no float model"):
        BiasCorrection().apply(model, Context(tmp_path, 0, lambda *_: None, IMAGES))
    with pytest.raises(TechniqueFailed, match="name and the shape"):
        corrected(products(bias=True), model, ROWS, tmp_path)


def test_a_graph_runs_step_by_step_and_takes_what_is_written(tmp_path: Path) -> None:
    proto = convolutions()
    batches = list(IMAGES.batches(16, 8))
    steps = Stepwise(ir.from_proto(proto), batches, tmp_path)
    seen = {}
    for name, arrays in steps.stops(["c1", "c2", "c3", "y"]):
        if name == "c1":
            arrays[:] = [np.asarray(array, np.float32) + np.float32(1) for array in arrays]
        seen[name] = arrays
    shifted = onnx.ModelProto()
    shifted.CopyFrom(proto)
    (bias,) = (tensor for tensor in shifted.graph.initializer if tensor.name == "b1")
    bias.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(bias) + np.float32(1), "b1"))
    (wanted,) = models.run(shifted, {"x": IMAGES.feeds["x"][:16]}).values()
    np.testing.assert_allclose(np.concatenate(seen["y"]), wanted, rtol=1e-4, atol=1e-5)
    assert not list(tmp_path.iterdir())
    with pytest.raises(TechniqueFailed, match="sub-graphs"):
        Stepwise(ir.from_proto(models.branching()), [], tmp_path)


@given(st.integers(0, 10_000))
def test_the_shift_is_what_the_error_makes_of_the_means(seed: int) -> None:
    chance = RNG(seed)
    error, means = chance.standard_normal((2, 3, 4, 5)), chance.standard_normal(8)
    wanted = [
        (error[group, output].sum(1) * means[4 * group : 4 * group + 4]).sum()
        for group in range(2)
        for output in range(3)
    ]
    np.testing.assert_allclose(expected_shift(error, means), wanted)


def test_integers_are_moved_to_the_nearest_and_not_beyond_32_bits() -> None:
    given_bias = np.array([10, -3], np.int32)
    result = moved(given_bias, np.array([0.5, 0.1], np.float32), np.array([1.2, -0.04]))
    np.testing.assert_array_equal(result, [12, -3])
    assert moved(None, np.array(1e-9, np.float32), np.array([5.0])) is None


def test_the_mean_error_is_relative() -> None:
    wanted = {"a": np.array([3.0, 4.0]), "b": np.array([0.0])}
    assert mean_error(wanted, {"a": np.array([3.0, 4.5]), "b": np.array([1.0])}) == pytest.approx(0.1)
