"""Dynamic quantization: what the rewritten layers compute, and what ONNX Runtime makes of them."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from accel.context import Context
from accel.errors import TechniqueFailed
from accel.techniques.quantize_dynamic import QuantizeDynamic
from tests import models


def random(*shape: int, scale: float = 0.5) -> np.ndarray:
    """Normal numbers, the same for the same shape."""
    return (np.random.default_rng([7, *shape]).standard_normal(shape) * scale).astype(np.float32)


def port(name: str, *shape: int | str, dtype: int = TensorProto.FLOAT) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, dtype, list(shape))


def one(node: onnx.NodeProto, x: np.ndarray, y: tuple[int | str, ...], **weights: np.ndarray) -> onnx.ModelProto:
    """A model of one node that makes y of x."""
    return models.assemble([node], [port("x", *x.shape)], [port("y", *y)], weights)


def quantized(proto: onnx.ModelProto, folder: Path, **parameters: Any) -> tuple[onnx.ModelProto, Context]:
    context = Context(folder, 0, lambda *_: None)
    result = QuantizeDynamic(**parameters).apply(onnx_ir.from_proto(proto), context)
    made: onnx.ModelProto = onnx_ir.to_proto(result)
    onnx.checker.check_model(made, full_check=not parameters.get("recurrent"))
    return made, context


def constants(proto: onnx.ModelProto) -> dict[str, np.ndarray]:
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in proto.graph.initializer}


def kernels(proto: onnx.ModelProto, folder: Path) -> Counter[str]:
    """The operators that ONNX Runtime runs in place of those in the file."""
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.optimized_model_filepath = str(folder / "optimized.onnx")
    ort.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return Counter(node.op_type for node in onnx.load(folder / "optimized.onnx").graph.node)


def as_bytes(x: np.ndarray) -> np.ndarray:
    """What is left of an activation in 8 bits: the arithmetic of DynamicQuantizeLinear."""
    low, high = min(float(x.min()), 0.0), max(float(x.max()), 0.0)
    scale = np.float32((high - low) / 255)
    zero = np.clip(np.rint(-low / scale), 0, 255)
    return ((np.clip(np.rint(x / scale) + zero, 0, 255) - zero) * scale).astype(np.float32)


def as_integers(w: np.ndarray, axes: tuple[int, ...], high: int = 127) -> np.ndarray:
    """What is left of a weight whose scales run over the axes that are not reduced."""
    scale = np.abs(w).max(axes, keepdims=True) / high
    return (np.rint(w / scale) * scale).astype(np.float32)


MATRIX, BATCHED, IMAGE = random(5, 12), random(3, 5, 12), random(2, 4, 9, 9)
LAYERS = {
    "matmul": (helper.make_node("MatMul", ["x", "w"], ["y"], "layer"), MATRIX, {"w": random(12, 7)}, (0,), (5, 7)),
    "matmul of a sequence": (
        helper.make_node("MatMul", ["x", "w"], ["y"], "layer"),
        BATCHED,
        {"w": random(12, 7)},
        (0,),
        (3, 5, 7),
    ),
    "gemm": (
        helper.make_node("Gemm", ["x", "w", "b"], ["y"], "layer"),
        MATRIX,
        {"w": random(12, 7), "b": random(7)},
        (0,),
        (5, 7),
    ),
    "gemm transposed": (
        helper.make_node("Gemm", ["x", "w", "b"], ["y"], "layer", transB=1, alpha=0.5, beta=2.0),
        MATRIX,
        {"w": random(7, 12), "b": random(7)},
        (1,),
        (5, 7),
    ),
    "conv": (
        helper.make_node("Conv", ["x", "w", "b"], ["y"], "layer", pads=[2, 1, 2, 1], dilations=[2, 1], strides=[1, 2]),
        IMAGE,
        {"w": random(6, 4, 3, 3), "b": random(6)},
        (1, 2, 3),
        (2, 6, 9, 5),
    ),
    "depthwise conv": (
        helper.make_node("Conv", ["x", "w"], ["y"], "layer", group=4, auto_pad="SAME_UPPER"),
        IMAGE,
        {"w": random(8, 1, 3, 3)},
        (1, 2, 3),
        (2, 8, 9, 9),
    ),
}


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("per_channel", [True, False])
def test_a_layer_computes_what_its_integers_say(name: str, per_channel: bool, tmp_path: Path) -> None:
    node, x, weights, reduced, shape = LAYERS[name]
    w = weights["w"]
    exact = one(node, x, shape, **{**weights, "w": as_integers(w, reduced if per_channel else tuple(range(w.ndim)))})
    made, context = quantized(one(node, x, shape, **weights), tmp_path, convolutions=True, per_channel=per_channel)
    expected = models.run(exact, {"x": as_bytes(x)})["y"]
    np.testing.assert_allclose(models.run(made, {"x": x})["y"], expected, atol=2e-5)
    (integers,) = (array for name, array in constants(made).items() if name.endswith("_quantized"))
    assert (integers.dtype, integers.size) == (np.int8, w.size)
    assert context.quantization is not None
    (layer,) = context.quantization.layers
    assert (layer.weight_bits, layer.granularity) == (8, "channel" if per_channel else "tensor")
    assert layer.weight_snr_db is not None
    assert layer.weight_snr_db > 35


def test_seven_bits_stay_within_63(tmp_path: Path) -> None:
    made, _ = quantized(models.linear(random(12, 7)), tmp_path, reduce_range=True)
    assert np.abs(constants(made)["w_quantized"].astype(int)).max() == 63


def test_weights_on_one_side_of_zero_are_finer_with_a_zero_point(tmp_path: Path) -> None:
    proto = models.linear(np.abs(random(64, 7)) + 1)
    x = {"x": np.abs(random(5, 64))}
    exact = models.run(proto, x)["scores"]
    errors = [
        np.abs(models.run(quantized(proto, tmp_path, symmetric=symmetric)[0], x)["scores"] - exact).max()
        for symmetric in (True, False)
    ]
    assert errors[1] < errors[0]


def test_a_lone_layer_and_its_bias_become_one_kernel(tmp_path: Path) -> None:
    """Also where the bias stands first, as PyTorch's exporter writes it."""
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["m"], "product"),
        helper.make_node("Add", ["b", "m"], ["y"], "bias"),
    ]
    proto = models.assemble(
        nodes, [port("x", "n", 3, 12)], [port("y", "n", 3, 7)], {"w": random(12, 7), "b": random(7)}
    )
    made, _ = quantized(proto, tmp_path)
    assert kernels(made, tmp_path) == {"DynamicQuantizeMatMul": 1}


def test_layers_with_one_input_quantize_it_once(tmp_path: Path) -> None:
    nodes = [helper.make_node("MatMul", ["x", w], [y], w) for w, y in (("q", "a"), ("k", "b"))]
    proto = models.assemble(
        nodes, [port("x", "n", 12)], [port("a", "n", 7), port("b", "n", 5)], {"q": random(12, 7), "k": random(12, 5)}
    )
    made, _ = quantized(proto, tmp_path)
    assert kernels(made, tmp_path) == {"DynamicQuantizeLinear": 1, "MatMulIntegerToFloat": 2}


def test_layers_with_one_weight_keep_sharing_it(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["a"], "first"),
        helper.make_node("Relu", ["a"], ["r"], "relu"),
        helper.make_node("MatMul", ["r", "w"], ["y"], "second"),
    ]
    made, _ = quantized(models.assemble(nodes, [port("x", "n", 8)], [port("y", "n", 8)], {"w": random(8, 8)}), tmp_path)
    assert [name for name, array in constants(made).items() if array.size == 64] == ["w_quantized"]


@pytest.mark.parametrize("operator", ["Gemm", "Conv"])
def test_a_bias_that_is_computed_is_added(operator: str, tmp_path: Path) -> None:
    x = MATRIX if operator == "Gemm" else IMAGE
    w = random(12, 7) if operator == "Gemm" else random(7, 4, 1, 1)
    shape = (5, 7) if operator == "Gemm" else (2, 7, 9, 9)
    node = helper.make_node(operator, ["x", "w", "b"], ["y"], "layer")
    proto = models.assemble([node], [port("x", *x.shape), port("b", 7)], [port("y", *shape)], {"w": w})
    feed = {"x": x, "b": random(7, scale=10)}
    made, _ = quantized(proto, tmp_path, convolutions=True)
    expected = models.run(proto, feed)["y"]
    assert np.abs(models.run(made, feed)["y"] - expected).max() < 0.02 * np.abs(expected).max()


def embedding(
    rows: int = 300, *nodes: onnx.NodeProto, outputs: tuple[onnx.ValueInfoProto, ...] = ()
) -> onnx.ModelProto:
    """A lookup in a table of [rows, 16], with rows of very different sizes, and what else there is."""
    table = random(rows, 16) * np.geomspace(0.01, 10, rows, dtype=np.float32)[:, None]
    look = helper.make_node("Gather", ["table", "ids"], ["e"], "lookup")
    return models.assemble(
        [look, *nodes],
        [port("ids", "n", 5, dtype=TensorProto.INT64)],
        [port("e", "n", 5, 16), *outputs],
        {"table": table},
    )


IDS = {"ids": np.array([[0, 1, 2, 150, 299], [299, 3, 3, 77, 0]])}


def test_each_row_of_a_table_has_its_scale(tmp_path: Path) -> None:
    proto = embedding()
    made, _ = quantized(proto, tmp_path)
    expected = models.run(proto, IDS)["e"]
    step = np.abs(expected).max(-1, keepdims=True) / 127
    assert (np.abs(models.run(made, IDS)["e"] - expected) <= step * 0.501).all()
    assert len(made.SerializeToString()) < 0.4 * len(proto.SerializeToString())


def test_small_tables_and_those_not_wanted_stay_in_float(tmp_path: Path) -> None:
    for proto, parameters in ((embedding(20), {}), (embedding(), {"embeddings": False})):
        with pytest.raises(TechniqueFailed, match="nothing that is quantized"):
            quantized(proto, tmp_path, **parameters)


def test_a_table_that_is_a_weight_too_is_right_in_both_places(tmp_path: Path) -> None:
    """Tied weights, as in language models."""
    nodes = (
        helper.make_node("ReduceMean", ["e"], ["mean"], "mean", axes=[1], keepdims=0),
        helper.make_node("Gemm", ["mean", "table"], ["scores"], "head", transB=1),
    )
    proto = embedding(300, *nodes, outputs=(port("scores", "n", 300),))
    made, _ = quantized(proto, tmp_path)
    assert not [name for name, array in constants(made).items() if array.dtype == np.float32 and array.size > 300]
    expected, found = models.run(proto, IDS), models.run(made, IDS)
    for name, array in expected.items():
        assert np.abs(found[name] - array).max() < 0.01 * np.abs(array).max()


def test_a_table_that_something_else_needs_stays_in_float(tmp_path: Path) -> None:
    nodes = (
        helper.make_node("MatMul", ["e", "w"], ["scores"], "head"),
        helper.make_node("Mul", ["table", "by"], ["scaled"], "scaling"),
    )
    proto = embedding(300, *nodes, outputs=(port("scores", "n", 5, 4), port("scaled", 300, 16)))
    proto.graph.input.append(port("by", 1))
    proto.graph.initializer.append(numpy_helper.from_array(random(16, 4), "w"))
    made, context = quantized(proto, tmp_path)
    assert "table" in constants(made)
    assert "The table of lookup stays in float, since scaling needs it." in context.notes


def lstm(directions: int = 1) -> onnx.ModelProto:
    """An LSTM with a sequence of eight numbers each, and sixteen hidden ones."""
    direction = "bidirectional" if directions == 2 else "forward"
    node = helper.make_node("LSTM", ["x", "w", "r", "b"], ["y", "", "c"], "memory", hidden_size=16, direction=direction)
    weights = {
        "w": random(directions, 64, 8, scale=0.3),
        "r": random(directions, 64, 16, scale=0.3),
        "b": random(directions, 128, scale=0.3),
    }
    return models.assemble(
        [node],
        [port("x", "t", "n", 8)],
        [port("y", "t", directions, "n", 16), port("c", directions, "n", 16)],
        weights,
    )


@pytest.mark.parametrize("per_channel", [True, False])
@pytest.mark.parametrize("directions", [1, 2])
def test_an_lstm_is_quantized_when_asked(directions: int, per_channel: bool, tmp_path: Path) -> None:
    proto = lstm(directions)
    with pytest.raises(TechniqueFailed) as refusal:
        quantized(proto, tmp_path)
    assert "1 LSTM" in refusal.value.hint
    made, context = quantized(proto, tmp_path, recurrent=True, per_channel=per_channel)
    assert [node.op_type for node in made.graph.node] == ["DynamicQuantizeLSTM"]
    assert "Quantized: 1 LSTM." in context.notes
    feed = {"x": random(30, 3, 8)}
    expected, found = models.run(proto, feed), models.run(made, feed)
    for name, array in expected.items():
        assert 0 < np.abs(found[name] - array).max() < 0.03
    assert len(made.SerializeToString()) < 0.5 * len(proto.SerializeToString())


def test_patterns_choose_by_name_and_operator(tmp_path: Path) -> None:
    def integers(**parameters: Any) -> set[str]:
        made, _ = quantized(models.convnet(), tmp_path, **parameters)
        return {node.name for node in made.graph.node if node.op_type.endswith("Integer")}

    assert integers() == {"hidden_integer", "out_integer"}
    assert integers(convolutions=True) == {"conv_integer", "hidden_integer", "out_integer"}
    assert integers(exclude=["out", "Conv"], convolutions=True) == {"hidden_integer"}
    assert integers(include=["h*"]) == {"hidden_integer"}
    with pytest.raises(TechniqueFailed, match="'hiden' matches no node"):
        integers(exclude=["hiden"])
    with pytest.raises(TechniqueFailed, match="nothing that is quantized"):
        integers(exclude=["Gemm"])


def test_what_stays_in_float_is_said(tmp_path: Path) -> None:
    _, context = quantized(models.convnet(), tmp_path)
    assert "Quantized: 2 Gemm." in context.notes
    assert "Left in float: 1 Conv." in context.notes
    assert context.quantization is not None
    bits = {layer.name: layer.weight_bits for layer in context.quantization.layers}
    assert bits == {"hidden": 8, "out": 8, "conv": None}


def test_layers_in_sub_graphs_are_left_alone(tmp_path: Path) -> None:
    proto = models.branching()
    for branch in proto.graph.node[3].attribute:
        branch.g.node[0].CopyFrom(helper.make_node("MatMul", ["h", "w2"], [branch.g.output[0].name], "inner"))
    proto.graph.initializer.append(numpy_helper.from_array(random(4, 4), "w2"))
    made, context = quantized(proto, tmp_path)
    assert "Left alone inside If, Loop or Scan: 2 MatMul." in context.notes
    feed = {"x": random(1, 16)}
    expected = models.run(proto, feed)["scores"]
    assert np.abs(models.run(made, feed)["scores"] - expected).max() < 0.05 * np.abs(expected).max()


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_weight_that_is_no_number_is_refused_by_name(value: float, tmp_path: Path) -> None:
    w = random(12, 7)
    w[3, 2] = value
    with pytest.raises(TechniqueFailed, match="'w' holds numbers that are not finite"):
        quantized(models.linear(w), tmp_path)


def test_a_weight_of_zeros_stays_zero(tmp_path: Path) -> None:
    made, _ = quantized(models.linear(np.zeros((12, 7), np.float32)), tmp_path)
    assert not models.run(made, {"x": MATRIX})["scores"].any()
