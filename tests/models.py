"""Tiny real ONNX models, built in code: each has a shape that some part of the engine must cope with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

CLASSES = 4
OPSET = 17
IR_VERSION = 8


def _weights(seed: int, *shape: int, scale: float = 0.3) -> np.ndarray:
    return (np.random.default_rng(seed).standard_normal(shape) * scale).astype(np.float32)


def _value(name: str, shape: Sequence[int | str | None], dtype: int = TensorProto.FLOAT) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, dtype, list(shape))


def assemble(
    nodes: Sequence[onnx.NodeProto],
    inputs: Sequence[onnx.ValueInfoProto],
    outputs: Sequence[onnx.ValueInfoProto],
    weights: dict[str, np.ndarray] | None = None,
    *,
    opset: int = OPSET,
    domains: Sequence[str] = (),
    functions: Sequence[onnx.FunctionProto] = (),
) -> onnx.ModelProto:
    """A model from its parts."""
    initializers = [numpy_helper.from_array(array, name) for name, array in (weights or {}).items()]
    graph = helper.make_graph(nodes, "g", inputs, outputs, initializers)
    opsets = [helper.make_opsetid("", opset), *(helper.make_opsetid(domain, 1) for domain in domains)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION, functions=functions)


def convnet(batch: int | str = "batch", *, opset: int = OPSET, seed: int = 1) -> onnx.ModelProto:
    """Conv, Relu, MaxPool, Gemm, Relu, Gemm: images [batch, 1, 8, 8] to four class scores.

    Parameters: 8*1*3*3 + 8 + 128*64 + 64 + 64*4 + 4 = 8,596.
    Multiply-accumulates of a sample: 8*8*8 * 9 + 128*64 + 64*4 = 4,608 + 8,192 + 256 = 13,056.
    """
    nodes = [
        helper.make_node("Conv", ["image", "conv_w", "conv_b"], ["c"], "conv", pads=[1, 1, 1, 1], kernel_shape=[3, 3]),
        helper.make_node("Relu", ["c"], ["r"], "relu"),
        helper.make_node("MaxPool", ["r"], ["p"], "pool", kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Flatten", ["p"], ["f"], "flatten"),
        helper.make_node("Gemm", ["f", "hidden_w", "hidden_b"], ["h"], "hidden"),
        helper.make_node("Relu", ["h"], ["hr"], "relu2"),
        helper.make_node("Gemm", ["hr", "out_w", "out_b"], ["scores"], "out"),
    ]
    weights = {
        "conv_w": _weights(seed, 8, 1, 3, 3),
        "conv_b": _weights(seed + 1, 8),
        "hidden_w": _weights(seed + 2, 128, 64, scale=0.1),
        "hidden_b": _weights(seed + 3, 64),
        "out_w": _weights(seed + 4, 64, CLASSES),
        "out_b": _weights(seed + 5, CLASSES),
    }
    return assemble(
        nodes, [_value("image", [batch, 1, 8, 8])], [_value("scores", [batch, CLASSES])], weights, opset=opset
    )


CONVNET_PARAMETERS = 8 * 9 + 8 + 128 * 64 + 64 + 64 * 4 + 4
CONVNET_MACS = 8 * 8 * 8 * 9 + 128 * 64 + 64 * 4


def fixed_batch() -> onnx.ModelProto:
    """The convnet for batches of exactly four."""
    return convnet(4)


def opset_11() -> onnx.ModelProto:
    """The convnet as an old exporter wrote it."""
    return convnet(opset=11)


def constant_mlp() -> onnx.ModelProto:
    """Two layers whose weights are Constant nodes instead of initializers: 16 features to four scores."""
    weights = {"w1": _weights(11, 16, 64), "b1": _weights(12, 64), "w2": _weights(13, 64, CLASSES)}
    nodes = [
        helper.make_node("Constant", [], [name], f"const_{name}", value=numpy_helper.from_array(array, name))
        for name, array in weights.items()
    ]
    nodes += [
        helper.make_node("MatMul", ["x", "w1"], ["m"], "first"),
        helper.make_node("Add", ["m", "b1"], ["a"], "bias"),
        helper.make_node("Relu", ["a"], ["r"], "relu"),
        helper.make_node("MatMul", ["r", "w2"], ["scores"], "second"),
    ]
    return assemble(nodes, [_value("x", ["n", 16])], [_value("scores", ["n", CLASSES])])


CONSTANT_MLP_PARAMETERS = 16 * 64 + 64 + 64 * CLASSES
CONSTANT_MLP_MACS = 16 * 64 + 64 * CLASSES


def branching() -> onnx.ModelProto:
    """A layer, and then an If whose branches differ in sign and have a weight of their own."""

    def branch(name: str, sign: float) -> onnx.GraphProto:
        factor = numpy_helper.from_array(np.float32([sign]), f"{name}_factor")
        node = helper.make_node("Mul", ["h", f"{name}_factor"], [f"{name}_out"], f"{name}_mul")
        return helper.make_graph([node], name, [], [_value(f"{name}_out", ["n", CLASSES])], [factor])

    nodes = [
        helper.make_node("Gemm", ["x", "w", "b"], ["h"], "gemm"),
        helper.make_node("ReduceSum", ["x"], ["total"], "sum", keepdims=0),
        helper.make_node("Greater", ["total", "zero"], ["positive"], "test"),
        helper.make_node(
            "If", ["positive"], ["scores"], "choose", then_branch=branch("then", 1.0), else_branch=branch("else", -1.0)
        ),
    ]
    weights = {"w": _weights(21, 16, CLASSES), "b": _weights(22, CLASSES), "zero": np.float32(0)}
    return assemble(nodes, [_value("x", ["n", 16])], [_value("scores", ["n", CLASSES])], weights)


def quantized() -> onnx.ModelProto:
    """A linear layer that is quantized already: QuantizeLinear and DequantizeLinear around its input and its weight."""
    weights = {
        "s": np.float32(0.05),
        "z": np.uint8(128),
        "w8": np.random.default_rng(31).integers(-127, 128, (16, CLASSES)).astype(np.int8),
        "ws": np.float32(0.01),
        "wz": np.int8(0),
    }
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"], "quantize"),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["d"], "dequantize"),
        helper.make_node("DequantizeLinear", ["w8", "ws", "wz"], ["w"], "weight"),
        helper.make_node("MatMul", ["d", "w"], ["scores"], "product"),
    ]
    return assemble(nodes, [_value("x", ["n", 16])], [_value("scores", ["n", CLASSES])], weights)


def regression() -> onnx.ModelProto:
    """Sixteen features to one number."""
    nodes = [
        helper.make_node("Gemm", ["x", "w1", "b1"], ["h"], "first"),
        helper.make_node("Relu", ["h"], ["r"], "relu"),
        helper.make_node("Gemm", ["r", "w2", "b2"], ["y"], "second"),
    ]
    weights = {
        "w1": _weights(41, 16, 64),
        "b1": _weights(42, 64),
        "w2": _weights(43, 64, 1),
        "b2": _weights(44, 1),
    }
    return assemble(nodes, [_value("x", ["n", 16])], [_value("y", ["n", 1])], weights)


def framewise(last: str = "Softmax", *, seed: int = 61, classes: int = 5) -> onnx.ModelProto:
    """Rows of features [n, steps, 8] to [n, steps, classes]: scores of classes, or with ``Sigmoid`` chances of yes."""
    nodes = [
        helper.make_node("MatMul", ["x", "w1"], ["h"], "first"),
        helper.make_node("Relu", ["h"], ["r"], "relu"),
        helper.make_node("MatMul", ["r", "w2"], ["s"], "second"),
        helper.make_node(last, ["s"], ["y"], "last"),
    ]
    weights = {"w1": _weights(seed, 8, 32, scale=1.0), "w2": _weights(seed + 1, 32, classes, scale=1.0)}
    return assemble(nodes, [_value("x", ["n", "steps", 8])], [_value("y", ["n", "steps", classes])], weights)


def linear(weight: np.ndarray, *, name: str = "scores") -> onnx.ModelProto:
    """One matrix product with the weight that is given."""
    node = helper.make_node("MatMul", ["x", "w"], [name], "product")
    return assemble(
        [node], [_value("x", ["n", weight.shape[0]])], [_value(name, ["n", weight.shape[1]])], {"w": weight}
    )


def embedding() -> onnx.ModelProto:
    """Whole numbers in: token ids [n, 5] and a mask [n, 5], to four scores."""
    nodes = [
        helper.make_node("Gather", ["table", "ids"], ["e"], "gather", axis=0),
        helper.make_node("Cast", ["mask"], ["m"], "cast", to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["m", "last"], ["mu"], "unsqueeze"),
        helper.make_node("Mul", ["e", "mu"], ["masked"], "mul"),
        helper.make_node("ReduceMean", ["masked"], ["mean"], "mean", axes=[1], keepdims=0),
        helper.make_node("MatMul", ["mean", "w"], ["scores"], "product"),
    ]
    weights = {"table": _weights(51, 10, 16), "last": np.array([2], np.int64), "w": _weights(52, 16, CLASSES)}
    inputs = [_value("ids", ["n", 5], TensorProto.INT64), _value("mask", ["n", 5], TensorProto.INT64)]
    return assemble(nodes, inputs, [_value("scores", ["n", CLASSES])], weights)


FACTORY: dict[str, Callable[[], onnx.ModelProto]] = {
    "convnet": convnet,
    "fixed_batch": fixed_batch,
    "opset_11": opset_11,
    "constant_mlp": constant_mlp,
    "branching": branching,
    "quantized": quantized,
    "regression": regression,
}
"""The models that every technique and every runtime is tried on."""


def save(model: onnx.ModelProto, path: Path) -> Path:
    """Write a model to a file, and say where."""
    path.write_bytes(model.SerializeToString(deterministic=True))
    return path


def inputs_of(model: onnx.ModelProto, rows: int = 8, seed: int = 0) -> dict[str, np.ndarray]:
    """Random inputs with so many rows (or those that the model insists on), for models with float inputs."""
    chance = np.random.default_rng(seed)
    given = {tensor.name for tensor in model.graph.initializer}
    feeds = {}
    for value in model.graph.input:
        if value.name in given:
            continue
        dims = value.type.tensor_type.shape.dim
        shape = [dims[0].dim_value or rows, *(dim.dim_value for dim in dims[1:])]
        feeds[value.name] = chance.standard_normal(shape).astype(np.float32)
    return feeds


def run(model: onnx.ModelProto | Path, feed: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """What ONNX Runtime computes, by name of the output."""
    from onnxruntime.capi.onnxruntime_pybind11_state import Fail

    source = str(model) if isinstance(model, Path) else model.SerializeToString()
    # Without VNNI, sums of two products of 8 bits saturate at 16 bits; tests of a graph are about what it says. ONNX Runtime
    # cannot mend that for weights that are shared or only dequantized: there it fails.
    try:
        return _ran(source, feed, exact=True)
    except Fail:
        return _ran(source, feed, exact=False)


def _ran(source: str | bytes, feed: dict[str, np.ndarray], *, exact: bool) -> dict[str, np.ndarray]:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.add_session_config_entry("session.x64quantprecision", "1" if exact else "0")
    session = ort.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    names = [port.name for port in session.get_outputs()]
    return dict(zip(names, session.run(names, feed), strict=True))


def labelled(
    path: Path, model: onnx.ModelProto, *, rows: int = 64, train: int = 32, wrong: int = 0, seed: int = 5
) -> Path:
    """An npz file with splits ``train`` and ``test`` for a classifier; its labels are the model's own classes.

    Args:
        path: Where to write it.
        model: A classifier with one float input and an open batch.
        rows: Rows of ``test``.
        train: Rows of ``train``.
        wrong: How many of the first rows of ``test`` get another class.
        seed: Seed of the inputs.
    """
    arrays: dict[str, np.ndarray] = {}
    for split, count, start in (("train", train, seed), ("test", rows, seed + 1)):
        ((_, x),) = inputs_of(model, count, start).items()
        (scores,) = run(model, {model.graph.input[0].name: x}).values()
        y = scores.argmax(1)
        if split == "test":
            y[:wrong] = (y[:wrong] + 1) % scores.shape[1]
        arrays |= {f"x_{split}": x, f"y_{split}": y.astype(np.int64)}
    np.savez(path, **arrays)
    return path
