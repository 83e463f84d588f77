"""A small network with one value of each role that the differentiable executor knows."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
from onnx import TensorProto, helper

from tests import models


def random(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def value(name: str, shape: Sequence[int | str] | None = None, dtype: int = TensorProto.FLOAT) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, dtype, shape)


def network() -> onnx.ModelProto:
    """One value of each role: images [n, 1, 6, 6] to scores [n, 4]."""
    nodes = [
        helper.make_node("Conv", ["x", "conv_w", "conv_b"], ["c"], "conv"),
        helper.make_node("BatchNormalization", ["c", "scale", "shift", "mean", "variance"], ["n"], "norm"),
        helper.make_node("Relu", ["n"], ["r"], "relu"),
        helper.make_node("Mul", ["r", "half"], ["m"], "halve"),
        helper.make_node("GlobalAveragePool", ["m"], ["p"], "pool"),
        helper.make_node("Flatten", ["p"], ["f"], "flatten"),
        helper.make_node("QuantizeLinear", ["f", "step", "zero"], ["q"], "quantize"),
        helper.make_node("DequantizeLinear", ["q", "step", "zero"], ["d"], "dequantize"),
        helper.make_node("DequantizeLinear", ["stored", "stored_step", "stored_zero"], ["w"], "weights"),
        helper.make_node("MatMul", ["d", "w"], ["y"], "product"),
        helper.make_node("Add", ["y", "b"], ["scores"], "bias"),
    ]
    stored = np.random.default_rng(5).integers(-127, 128, (3, 4)).astype(np.int8)
    weights = {
        "conv_w": random(3, 1, 3, 3, seed=1), "conv_b": random(3, seed=2), "scale": np.abs(random(3, seed=3)) + 0.5,
        "shift": random(3, seed=4), "mean": random(3, seed=6), "variance": np.abs(random(3, seed=7)) + 0.5,
        "half": np.float32(0.5), "step": np.float32(0.01), "zero": np.uint8(0), "stored": stored,
        "stored_step": np.float32(0.02), "stored_zero": np.int8(0), "b": random(4, seed=8),
    }  # fmt: skip
    return models.assemble(nodes, [value("x", ["n", 1, 6, 6])], [value("scores", ["n", 4])], weights)
