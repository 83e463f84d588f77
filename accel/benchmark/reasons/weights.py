"""Zeros among the weights of a file's layers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from accel.benchmark.reasons.operators import WEIGHTED

if TYPE_CHECKING:
    import onnx

_MATRIX = 2
_ZERO_POINT = 2
_STEPS = 256
_SEEN_THROUGH = frozenset({"Cast", "DequantizeLinear", "Transpose"})
"""Operators that stand between a stored weight and its layer."""


def zeros_by_layer(model: onnx.ModelProto) -> dict[str, tuple[int, int]]:
    """For each layer with constant weights, by name or else by output: how many weights it has, and how many are (nearly) zero."""
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    makers = {name: node for node in every_node(model) for name in node.output}
    found: dict[str, tuple[int, int]] = {}
    for node in every_node(model):
        if node.op_type not in WEIGHTED:
            continue
        for name in node.input[1:3]:
            weight = _weight(name, constants, makers)
            if weight is not None and weight.ndim >= _MATRIX:
                size, zeros = found.get(node.name or node.output[0], (0, 0))
                size, zeros = size + weight.size, zeros + _zeros(weight)
                found[node.name or node.output[0]] = size, zeros
    return found


def _zeros(weight: npt.NDArray[np.generic]) -> int:
    """Weights that are zero, or would be in 8 bits: rounding makes no zeros that were not as good as zero before."""
    sizes = np.abs(weight.astype(np.float32))
    return int(np.count_nonzero(sizes <= sizes.max(initial=0.0) / _STEPS))


def every_node(model: onnx.ModelProto) -> Iterator[onnx.NodeProto]:
    """The nodes of a model and its sub-graphs."""
    from accel.graph.check import bodies

    for body in bodies(model):
        yield from body.nodes


def _weight(
    name: str, constants: dict[str, onnx.TensorProto], makers: dict[str, onnx.NodeProto]
) -> npt.NDArray[np.generic] | None:
    """The array that an input is, or is made from."""
    from onnx import numpy_helper

    maker, middle = makers.get(name), None
    while maker is not None and maker.op_type in _SEEN_THROUGH and maker.input:
        if (
            maker.op_type == "DequantizeLinear"
            and len(maker.input) > _ZERO_POINT
            and maker.input[_ZERO_POINT] in constants
        ):
            middle = numpy_helper.to_array(constants[maker.input[_ZERO_POINT]])
        name = maker.input[0]
        maker = makers.get(name)
    if name in constants:
        array = numpy_helper.to_array(constants[name])
    elif maker is not None and maker.op_type == "Constant":
        array = next((numpy_helper.to_array(part.t) for part in maker.attribute if part.name == "value"), np.zeros(()))
    else:
        return None
    # Zero points differ between channels only where there is hardly a zero to find.
    return array - middle.flat[0].astype(np.float32) if middle is not None and middle.size else array
