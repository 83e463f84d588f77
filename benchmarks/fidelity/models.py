"""Models whose ratio of speeds is known because one has more of the same layers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

_WIDTH = 256


def tower(path: Path, layers: int, rows: int = 16) -> Path:
    """A chain of equal layers, so that its time is proportional to their number.

    Args:
        path: Where the file goes.
        layers: How many.
        rows: Rows that each layer multiplies: what sets the time of a layer.
    """
    chance = np.random.default_rng(0)
    nodes, constants, name = [], [], "x"
    for number in range(layers):
        weight = (chance.standard_normal((_WIDTH, _WIDTH)) / np.sqrt(_WIDTH)).astype(np.float32)
        constants.append(numpy_helper.from_array(weight, f"w{number}"))
        nodes += [
            helper.make_node("MatMul", [name, f"w{number}"], [f"m{number}"]),
            helper.make_node("Relu", [f"m{number}"], [f"r{number}"]),
        ]
        name = f"r{number}"
    ports = [helper.make_tensor_value_info(port, TensorProto.FLOAT, ["batch", rows, _WIDTH]) for port in ("x", name)]
    graph = helper.make_graph(nodes, "tower", ports[:1], ports[1:], constants)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10), path)
    return path
