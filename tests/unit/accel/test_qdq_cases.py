"""Graphs that are hard to rewrite: what is shared, read elsewhere, left in float, too large, empty or named alike."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper

from accel.graph.layers import layers
from accel.graph.placement import place
from accel.graph.prepare import prepare
from accel.graph.qdq import QuantizedActivation, QuantizedWeight, insert
from accel.graph.quantized import quantized_layers
from accel.numerics.scales import (
    ACTIVATIONS,
    WEIGHTS,
    Granularity,
    Scheme,
    dequantize,
    noise_db,
    parameters,
    quantize_tensor,
)
from tests import models
from tests.rewriting import CHANCE, START, build, conv, gemm, matmul, node, plain, port, rewritten, weights


@pytest.fixture(autouse=True)
def the_same_chance_for_each_test() -> None:
    CHANCE.bit_generator.state = START


@pytest.mark.parametrize("bias", [True, False])
def test_layers_that_share_their_constants(bias: bool, tmp_path: Path) -> None:
    inputs = " w b" if bias else " w"
    made = [node("Gemm", f"x{inputs}", "h"), node("Relu", "h", "r"), node("Gemm", f"r{inputs}", "y")]
    held = {"w": weights(6, 6)} | ({"b": weights(6)} if bias else {})
    # With 7 bits no sum saturates: ONNX Runtime cannot make a shared weight exact where there is no VNNI.
    result = rewritten(build(made, ["n", 6], held), tmp_path, weight=Scheme(7, signed=True, symmetric=True))
    assert result.noise() > 25
    assert result.kernels(tmp_path)["QGemm"] == 2
    stored = sum(
        len(tensor.raw_data) for tensor in result.model.graph.initializer if tensor.data_type == TensorProto.INT8
    )
    assert stored < 2 * 36, "the weight is stored once"


def test_a_shared_weight_whose_steps_differ_is_stored_twice(tmp_path: Path) -> None:
    # Beside biases so large, all integers of the weight are 0 for both layers.
    made = [node("Gemm", "x w b", "h"), node("Gemm", "h w c", "g"), node("Gemm", "g v", "y")]
    held = {"w": weights(6, 6, scale=1e-7), "b": np.full(6, 100, np.float32), "c": np.full(6, 3000, np.float32)}
    proto = build(made, ["n", 6], held | {"v": weights(6, 3) + 1}, outputs=("h", "g", "y"))
    assert rewritten(proto, tmp_path, read_back=False).noise() > 30


def test_a_weight_that_something_else_reads_too(tmp_path: Path) -> None:
    made = [node("MatMul", "x w", "h"), node("Sub", "h w", "y")]
    result = rewritten(build(made, [6, 6], {"w": weights(6, 6)}), tmp_path)
    assert result.noise() > 28
    assert {tensor.name for tensor in result.model.graph.initializer} >= {"w"}


def test_a_value_that_is_quantized_and_an_output(tmp_path: Path) -> None:
    made = [node("Conv", "x w", "c"), node("Relu", "c", "r"), node("Conv", "r v", "y")]
    held = {"w": weights(8, 4, 3, 3), "v": weights(4, 8, 1, 1)}
    result = rewritten(build(made, ["n", 4, 8, 8], held, outputs=("r", "y")), tmp_path)
    assert result.noise() > 28
    assert result.kernels(tmp_path)["QLinearConv"] == 2


def test_an_input_that_is_an_output(tmp_path: Path) -> None:
    proto = build([node("MatMul", "x w", "y")], ["n", 16], {"w": weights(16, 4)}, outputs=("y", "x"))
    result = rewritten(proto, tmp_path)
    assert result.noise() > 30
    np.testing.assert_array_equal(models.run(result.model, result.feed)["x"], result.feed["x"])


def test_an_input_of_two_layers(tmp_path: Path) -> None:
    made = [node("MatMul", "x w", "a"), node("MatMul", "x v", "b"), node("Add", "a b", "y")]
    result = rewritten(build(made, ["n", 16], {"w": weights(16, 4), "v": weights(16, 4)}), tmp_path)
    assert result.noise() > 28
    assert result.operators["QuantizeLinear"] == 1


def test_sub_graphs_read_the_value_still(tmp_path: Path) -> None:
    made = [
        node("Gemm", "x w b", "h"),
        node("ReduceSum", "x", "total", keepdims=0),
        node("Greater", "total zero", "positive"),
    ]
    branches = {}
    for name, operator in (("then_branch", "Relu"), ("else_branch", "Neg")):
        inner = helper.make_node(operator, ["h"], [f"{name}_out"], f"{name}_node")
        branches[name] = helper.make_graph([inner], name, [], [port(f"{name}_out", ["n", 16])])
    made += [helper.make_node("If", ["positive"], ["z"], "choose", **branches), node("Gemm", "h v", "g")]
    made += [node("Add", "z g", "y")]
    held = {"w": weights(16, 16), "b": weights(16), "v": weights(16, 16), "zero": np.float32(0)}
    proto = build(made, ["n", 16], held)
    for sign in (1, -1):
        feed = {"x": sign * np.abs(weights(6, 16, scale=1))}
        assert rewritten(proto, tmp_path, feed=feed).noise() > 25


def test_a_relu_inside_a_sub_graph_that_alone_reads_the_output(tmp_path: Path) -> None:
    branches = {}
    for name, source in (("then_branch", "c"), ("else_branch", "x")):
        inner = helper.make_node("Relu", [source], [f"{name}_out"], f"{name}_node")
        branches[name] = helper.make_graph([inner], name, [], [port(f"{name}_out", ["n", 4, 8, 8])])
    made = [
        node("Conv", "x w", "c"),
        node("ReduceSum", "x", "total", keepdims=0),
        node("Greater", "total zero", "more"),
    ]
    made.append(helper.make_node("If", ["more"], ["y"], "choose", **branches))
    proto = build(made, ["n", 4, 8, 8], {"w": weights(4, 4, 1, 1), "zero": np.float32(0)})
    assert rewritten(proto, tmp_path, feed={"x": np.abs(weights(3, 4, 8, 8))}).noise() > 28


def chain(operator: str, held: dict[str, np.ndarray]) -> onnx.ModelProto:
    """Two layers, so that the first one's output is quantized too."""
    made = [node(operator, "x w b" if "b" in held else "x w", "h"), node(operator, "h v", "y")]
    return build(made, ["n", held["w"].shape[0]] if operator != "Conv" else ["n", 4, 8, 8], held, outputs=("h", "y"))


@pytest.mark.parametrize("per", ["channel", "tensor"])
@pytest.mark.parametrize("steps", [2.0**30, 2.0**31 - 2000, 2.0**33, 2.0**50])
def test_a_bias_that_32_bits_do_not_hold_with_the_sum_does_no_harm(steps: float, per: str, tmp_path: Path) -> None:
    # Even where the bias is left in float, ONNX Runtime casts it to int32 when it loads the model.
    x = np.abs(weights(4, 36, scale=1))
    w = np.abs(weights(36, 8))
    bias = np.full(8, steps * float(x.max()) / 255 * float(w.max()) / 127, np.float32)
    gemms = chain("Gemm", {"w": w, "b": bias, "v": weights(8, 3) + 1})
    held = {"w": w.T.reshape(8, 4, 3, 3).copy(), "b": bias, "v": weights(4, 8, 1, 1) + 1}
    image = np.abs(weights(2, 4, 8, 8, scale=1))
    for proto, feed in ((gemms, {"x": x}), (chain("Conv", held), {"x": image * x.max() / image.max()})):
        # The weights may get larger steps than they were given.
        assert rewritten(proto, tmp_path, per=per, feed=feed, read_back=False).noise() > 30


@pytest.mark.parametrize("behind", ["none", "Relu"])
@pytest.mark.parametrize("operator", ["Conv", "ConvTranspose"])
def test_a_layer_left_in_float_between_others_is_computed_in_float(operator: str, behind: str, tmp_path: Path) -> None:
    # ONNX Runtime quantizes float weights itself, with one scale, where they stand between two pairs.
    uneven = weights(8, 8, 3, 3)
    uneven[0] *= 1000
    last = "b" if behind == "none" else "r"
    made = [node("Conv", "x w", "a"), node(operator, "a v", "b"), *([node("Relu", "b", "r")] if last == "r" else [])]
    made.append(node("Conv", f"{last} t", "y"))
    proto = build(made, ["n", 4, 10, 10], {"w": weights(8, 4, 3, 3), "v": uneven, "t": weights(4, 8, 1, 1)})
    result = rewritten(proto, tmp_path, only=("a", "y"))
    found = result.kernels(tmp_path)
    assert found["QLinearConv"] == 2, found
    assert found[operator] + found["FusedConv"] == 1, found
    fused, written = models.run(result.model, result.feed), plain(result.model, result.feed)
    assert (noise_db(written["y"], fused["y"]) or 200) > 38


MOVED = {
    "pool_before": [node("MaxPool", "a", "p", kernel_shape=[1, 1]), node("Conv", "p v", "b"), node("Conv", "b t", "y")],
    "reshape_before": [node("Reshape", "a turned", "p"), node("Conv", "p v", "b"), node("Conv", "b t", "y")],
    "pool_after": [node("Conv", "a v", "b"), node("MaxPool", "b", "p", kernel_shape=[2, 2]), node("Conv", "p t", "y")],
    "transpose_after": [
        node("Conv", "a v", "b"),
        node("Transpose", "b", "p", perm=[0, 1, 3, 2]),
        node("Conv", "p t", "y"),
    ],
    "clip_after": [node("Conv", "a v", "b"), node("Relu", "b", "r"), node("Clip", "r", "p"), node("Conv", "p t", "y")],
}


@pytest.mark.parametrize("moved", MOVED)
def test_a_layer_left_in_float_behind_moves_is_computed_in_float(moved: str, tmp_path: Path) -> None:
    # ONNX Runtime pushes quantization through what only moves values, and then takes the layer for a quantized one.
    uneven = weights(8, 8, 1, 1)
    uneven[0] *= 1000
    held = {"w": weights(8, 4, 3, 3), "v": uneven, "t": weights(4, 8, 1, 1), "turned": np.array([0, 8, 4, 16])}
    result = rewritten(
        build([node("Conv", "x w", "a"), *MOVED[moved]], ["n", 4, 10, 10], held), tmp_path, only=("a", "y")
    )
    found = result.kernels(tmp_path)
    assert found["QLinearConv"] == 2, found
    assert found["Conv"] + found["FusedConv"] == 1, found


def test_a_layer_of_one_channel_left_in_float_is_computed_in_float(tmp_path: Path) -> None:
    made = [node("Conv", "x w", "a"), node("Conv", "a v", "b"), node("Conv", "b t", "y")]
    held = {"w": weights(1, 4, 3, 3), "v": weights(8, 1, 1, 1), "t": weights(4, 8, 1, 1)}
    result = rewritten(build(made, ["n", 4, 10, 10], held), tmp_path, only=("a", "y"))
    found = result.kernels(tmp_path)
    assert found["Conv"] + found["FusedConv"] >= 1, found


def test_a_gemm_left_in_float_beside_others_is_computed_in_float(tmp_path: Path) -> None:
    uneven = weights(8, 8)
    uneven[:, 0] *= 1000
    made = [node("Gemm", "x w", "a"), node("Gemm", "x v", "b"), node("Gemm", "b t", "c"), node("Add", "a c", "y")]
    proto = build(made, ["n", 8], {"w": weights(8, 8), "v": uneven, "t": weights(8, 8)})
    result = rewritten(proto, tmp_path, only=("a", "c"))
    found = result.kernels(tmp_path)
    assert found["QGemm"] == 2, found
    assert found["Gemm"] == 1, found


def test_a_bias_is_rounded_in_steps_of_the_products(tmp_path: Path) -> None:
    result = rewritten(gemm(weights(6)), tmp_path)
    (layer,) = quantized_layers(ir.from_proto(result.model).graph)
    assert layer.bias is not None
    assert layer.bias.const_value is not None
    assert layer.bias_scale is not None
    assert layer.input_scale is not None
    steps = layer.input_scale * layer.weight.parameters.scale.astype(np.float64)
    np.testing.assert_allclose(layer.bias_scale, steps, rtol=1e-6)
    stored = layer.bias.const_value.numpy()
    assert stored.dtype == np.int32
    original = numpy_helper.to_array(next(t for t in result.float_model.graph.initializer if t.name == "b"))
    assert (np.abs(stored * steps - original) <= steps * 0.501).all()


@pytest.mark.parametrize("shape", [(0, 6), (16, 0)])
def test_a_weight_without_elements(shape: tuple[int, int]) -> None:
    proto = matmul(*shape, x=["n", shape[0]])
    model = ir.from_proto(proto)
    (layer,) = layers(model.graph)
    found = quantize_tensor(layer.weight, WEIGHTS, Granularity(1))
    activation = QuantizedActivation(parameters(-1, 1, ACTIVATIONS), ACTIVATIONS)
    insert(model, place([layer]), {layer.name: QuantizedWeight(*found, WEIGHTS, Granularity(1))}, {"x": activation})
    written = ir.to_proto(model)
    onnx.checker.check_model(written, full_check=True)
    assert models.run(written, {"x": np.zeros((3, shape[0]), np.float32)})["y"].shape == (3, shape[1])


def test_channels_of_zeros_stay_exact(tmp_path: Path) -> None:
    proto = conv()
    tensor = next(t for t in proto.graph.initializer if t.name == "w")
    array = numpy_helper.to_array(tensor).copy()
    array[[0, 5]] = 0
    tensor.CopyFrom(numpy_helper.from_array(array, "w"))
    assert rewritten(proto, tmp_path).noise() > 28


def test_names_that_the_rewriting_would_give_may_be_taken(tmp_path: Path) -> None:
    made = [
        node("Relu", "x", "h"),
        node("Sigmoid", "h", "h_scale"),
        node("Sigmoid", "h_scale", "h_q"),
        node("Sigmoid", "h_q", "h_dq"),
        node("MatMul", "h w", "p"),
        node("Sigmoid", "h_dq", "make_p_weight_scale"),
        node("Concat", "p make_p_weight_scale h_dq h_scale h_q", "y", axis=1),
    ]
    result = rewritten(build(made, ["n", 16], {"w": weights(16, 4)}), tmp_path)
    assert result.noise() > 28


def test_only_chosen_layers_change(tmp_path: Path) -> None:
    model, _ = prepare(ir.from_proto(models.convnet()), tmp_path)
    (layer,) = [layer for layer in layers(model.graph) if layer.name == "hidden"]
    placement = place([layer])
    activations = {
        name: QuantizedActivation(parameters(-3, 3, ACTIVATIONS), ACTIVATIONS) for name in placement.measured
    }
    shares = Granularity(layer.channel_axis)
    integers, scales = quantize_tensor(layer.weight, WEIGHTS, shares)
    insert(model, placement, {"hidden": QuantizedWeight(integers, scales, WEIGHTS, shares)}, activations)
    written = ir.to_proto(model)
    onnx.checker.check_model(written, full_check=True)
    names = {tensor.name for tensor in written.graph.initializer}
    assert {"conv_w", "conv_b", "out_w", "out_b"} <= names
    assert not {"hidden_w", "hidden_b"} & names
    assert [layer.name for layer in quantized_layers(model.graph)] == ["hidden"]


def test_what_is_written_is_smaller_and_always_the_same(tmp_path: Path) -> None:
    one, two = (rewritten(models.convnet(), tmp_path).model for _ in range(2))
    assert one.SerializeToString(deterministic=True) == two.SerializeToString(deterministic=True)
    assert one.ByteSize() < 0.5 * models.convnet().ByteSize()


def test_a_float_model_has_no_quantized_layers() -> None:
    assert quantized_layers(ir.from_proto(models.convnet()).graph) == []


def test_a_model_that_another_tool_quantized_is_read() -> None:
    (layer,) = quantized_layers(ir.from_proto(models.quantized()).graph)
    held = {tensor.name: numpy_helper.to_array(tensor) for tensor in models.quantized().graph.initializer}
    assert layer.name == "product"
    assert layer.input_scale == pytest.approx(0.05)
    assert layer.bias is None
    assert layer.integers.name == "w8"
    np.testing.assert_array_equal(layer.weight.integers, held["w8"])
    np.testing.assert_allclose(layer.weight.floats(), held["w8"] * np.float32(0.01))


def test_the_float_graph_of_the_integers_is_what_the_runtime_computes(tmp_path: Path) -> None:
    result = rewritten(matmul(16, 6), tmp_path)
    (layer,) = quantized_layers(ir.from_proto(result.model).graph)
    assert layer.input_scale is not None
    x = result.feed["x"]
    used = parameters(float(x.min()), float(x.max()), ACTIVATIONS)
    back = dequantize(np.clip(np.rint(x / used.scale) + used.zero_point, 0, 255).astype(np.uint8), used)
    np.testing.assert_allclose(models.run(result.model, result.feed)["y"], back @ layer.weight.floats(), atol=1e-4)
