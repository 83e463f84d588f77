"""A model that never changes, timed before and after a benchmark: what changes then is the host."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from accel.benchmark.orders import Load, Loaded, Measure, Ran, Ready, Samples
from accel.benchmark.process import Lost, Process
from accel.runtimes.names import DEFAULT

_STARTS = 3
_SECONDS = 0.2
_TIMEOUT_S = 30.0
_CHANNELS = 64
_SIDE = 40
_WIDTH = 512


def reference_ms(folder: Path) -> float | None:
    """Time of one call of the reference model with one thread: the median over three process starts of their medians.

    Args:
        folder: Where files may be written for a moment.

    Returns:
        Milliseconds; None where it could not be timed.
    """
    with tempfile.TemporaryDirectory(dir=folder, prefix="reference-") as place:
        path = Path(place) / "reference.onnx"
        onnx.save(reference_model(), path)
        try:
            return float(np.median([_start(path) for _ in range(_STARTS)]))
        except Lost:
            return None


def _start(path: Path) -> float:
    process = Process()
    try:
        process.send(Load(path=path, runtime=DEFAULT, threads=1, batch_size=1, shapes={}, seed=0))
        process.hear(Loaded, _TIMEOUT_S)
        process.hear(Ran, _TIMEOUT_S)
        process.hear(Ready, _TIMEOUT_S)
        process.send(Measure(seconds=_SECONDS))
        return float(np.median(process.hear(Samples, _TIMEOUT_S).samples_ms))
    finally:
        process.end()


def reference_model() -> onnx.ModelProto:
    """Two convolutions and two products, a millisecond or two: [1, 64, 40, 40] to [1, 512]. The same bytes every time."""
    chance = np.random.default_rng(0)

    def weight(name: str, *shape: int) -> onnx.TensorProto:
        scale = np.sqrt(np.prod(shape[1:]))
        return numpy_helper.from_array((chance.standard_normal(shape) / scale).astype(np.float32), name)

    weights = [
        weight("conv1", _CHANNELS, _CHANNELS, 3, 3),
        weight("conv2", _CHANNELS, _CHANNELS, 3, 3),
        weight("product1", _CHANNELS * _SIDE * _SIDE // 16, _WIDTH),
        weight("product2", _WIDTH, _WIDTH),
    ]
    nodes = [
        helper.make_node("Conv", ["x", "conv1"], ["c1"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c1"], ["r1"]),
        helper.make_node("Conv", ["r1", "conv2"], ["c2"], pads=[1, 1, 1, 1]),
        helper.make_node("MaxPool", ["c2"], ["p"], kernel_shape=[4, 4], strides=[4, 4]),
        helper.make_node("Flatten", ["p"], ["f"]),
        helper.make_node("MatMul", ["f", "product1"], ["m1"]),
        helper.make_node("Relu", ["m1"], ["r2"]),
        helper.make_node("MatMul", ["r2", "product2"], ["y"]),
    ]
    ports = [
        helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, _CHANNELS, _SIDE, _SIDE]),
        helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, _WIDTH]),
    ]
    graph = helper.make_graph(nodes, "reference", ports[:1], ports[1:], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
