"""The shapes of all values of a graph, where they can be told without running it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx

Shape = tuple[int | None, ...]


def sized(
    model: onnx.ModelProto, sizes: Mapping[str, Sequence[int]] | None = None, *, batch_size: int = 1, open_size: int = 0
) -> onnx.ModelProto:
    """A copy whose inputs have sizes.

    Args:
        model: A model.
        sizes: Shapes of inputs.
        batch_size: Size of first dimensions that are open.
        open_size: Size of other dimensions that are open; 0 leaves them open.
    """
    import onnx

    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    for value in copy.graph.input:
        given = (sizes or {}).get(value.name)
        for axis, dim in enumerate(value.type.tensor_type.shape.dim):
            if given is not None and axis < len(given):
                dim.dim_value = given[axis]
            elif dim.WhichOneof("value") != "dim_value" or dim.dim_value < 0:
                size = batch_size if axis == 0 else open_size
                if size:
                    dim.dim_value = size
    del copy.graph.value_info[:]
    for value in copy.graph.output:
        value.type.tensor_type.ClearField("shape")
    return copy


def shapes(model: onnx.ModelProto) -> dict[str, Shape]:
    """The shape of each value and initializer outside of sub-graphs, as far as inference tells.

    Raises:
        Exception: The shapes contradict each other, in onnx's own words.
    """
    import onnx

    inferred = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
    found: dict[str, Shape] = {tensor.name: tuple(tensor.dims) for tensor in inferred.initializer}
    values = (*inferred.input, *inferred.value_info, *inferred.output)
    found |= {value.name: _shape(value) for value in values if value.type.tensor_type.HasField("shape")}
    found |= {
        node.output[0]: tuple(attribute.t.dims)
        for node in inferred.node
        for attribute in node.attribute
        if node.op_type == "Constant" and attribute.name == "value"
    }
    return found


def _shape(value: onnx.ValueInfoProto) -> Shape:
    dims = value.type.tensor_type.shape.dim
    return tuple(
        dim.dim_value if dim.WhichOneof("value") == "dim_value" and dim.dim_value >= 0 else None for dim in dims
    )


def elements(shape: Shape | None) -> int | None:
    """How many numbers a tensor has; None where a size is unknown."""
    if shape is None or any(dim is None for dim in shape):
        return None
    return math.prod(dim for dim in shape if dim is not None)


def filled(graph: onnx.GraphProto, known: Mapping[str, Shape]) -> dict[str, Shape]:
    """The same with what ONNX Runtime made: values with new names, between operators that onnx has no inference for.

    Args:
        graph: A graph as ONNX Runtime optimises it, in the layouts of ONNX.
        known: Shapes of values that it had before.
    """
    found = {**known, **{tensor.name: tuple(tensor.dims) for tensor in graph.initializer}}
    for node in graph.node:
        if not node.output or node.output[0] in found or not node.input:
            continue
        source = found.get(node.input[0])
        if source is None:
            continue
        if node.op_type in _KEEP_SHAPE:
            found[node.output[0]] = source
        elif node.op_type in _CONVOLVE:
            weight = found.get(node.input[3 if node.op_type == "QLinearConv" else 1])
            if weight is not None and len(weight) == len(source):
                found[node.output[0]] = _convolved(node, source, weight)
    return found


_KEEP_SHAPE = frozenset(
    {"QuantizeLinear", "DequantizeLinear", "Relu", "Clip", "LeakyRelu", "Sigmoid", "Tanh", "QLinearAdd"}
)
_CONVOLVE = frozenset({"Conv", "FusedConv", "QLinearConv"})


def _convolved(node: onnx.NodeProto, source: Shape, weight: Shape) -> Shape:
    """The shape of a convolution's output."""
    from onnx import helper

    axes = len(source) - 2
    given = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
    if given.get("auto_pad", b"NOTSET") not in {b"NOTSET", b"VALID"}:
        return (source[0], weight[0], *(None,) * axes)
    pads, strides = given.get("pads", [0] * 2 * axes), given.get("strides", [1] * axes)
    steps = given.get("dilations", [1] * axes)

    def along(axis: int) -> int | None:
        size, width = source[axis + 2], weight[axis + 2]
        if size is None or width is None:
            return None
        return int((size + pads[axis] + pads[axis + axes] - steps[axis] * (width - 1) - 1) // strides[axis] + 1)

    return (source[0], weight[0], *(along(axis) for axis in range(axes)))
