"""Rewrite the constants of a graph so that channels get another scale between layers, and outputs stay as they were."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from accel.graph.chains import NORMS, Bound, Chain, Reader, Term
from accel.graph.layers import Layer, constant
from accel.graph.prepare import graph_constant

if TYPE_CHECKING:
    import onnx_ir as ir

Floats = npt.NDArray[np.floating]


def by_channel(layer: Layer, weight: Floats) -> Floats:
    """A layer's weight, or an array like it, as [groups, outputs, inputs, kernel]."""
    match layer.operator:
        case "Conv":
            return weight.reshape(layer.group, -1, weight.shape[1], math.prod(weight.shape[2:]))
        case "ConvTranspose":
            shape = (layer.group, weight.shape[0] // layer.group, weight.shape[1], math.prod(weight.shape[2:]))
            return weight.reshape(shape).swapaxes(1, 2)
        case _:
            matrix = weight if layer.channel_axis == 0 else weight.T
            return matrix[None, :, :, None]


def as_stored(layer: Layer, weight: Floats) -> npt.NDArray[np.float32]:
    """The way back from :func:`by_channel`."""
    if layer.operator == "ConvTranspose" or (layer.operator != "Conv" and layer.channel_axis != 0):
        weight = weight.swapaxes(1, 2)
    return np.ascontiguousarray(weight.reshape(layer.weight.shape), np.float32)


def rescale(graph: ir.Graph, given: Chain, scales: Floats) -> None:
    """Write each channel divided by its scale, and multiply the weights that read it; the outputs stay as they were.

    Args:
        graph: The graph; it is changed.
        given: Source and readers.
        scales: [channels], above 0.
    """
    source = given.source
    if source.layer is not None:
        weight = by_channel(source.layer, _weight(source.layer))
        divided = weight / scales.reshape(weight.shape[0], -1, 1, 1)
        set_constant(graph, source.node, 1, as_stored(source.layer, divided))
        positions = [2] if source.layer.bias is not None else []
    else:
        positions = [1, 2] if source.node.op_type in NORMS else [0, 1]
    terms = [Term(source.node, position, -1) for position in positions]
    for term in (*terms, *given.terms):
        old = constant(term.node.inputs[term.position]) if len(term.node.inputs) > term.position else None
        if old is not None:
            spread = scales.reshape([-1] + [1] * (-term.axis - 1))
            set_constant(graph, term.node, term.position, (np.asarray(old, np.float64) / spread).astype(np.float32))
    _multiply(graph, given.readers, scales)


def divide_before(graph: ir.Graph, readers: Sequence[Reader], scales: Floats) -> None:
    """Divide what matrix products read by a multiplication of its own, and multiply their weights.

    Args:
        graph: The graph; it is changed.
        readers: Matrix products that read the same value.
        scales: [inputs], above 0.
    """
    import onnx_ir as ir

    first, value = readers[0].layer, readers[0].layer.input
    factors = graph_constant(graph, f"{first.name}_input_factors", (1 / scales).astype(np.float32))
    product = ir.Node("", "Mul", [value, factors], name=f"{first.name}_input_scaled")
    product.outputs[0].name = f"{product.name}_output"
    product.outputs[0].type, product.outputs[0].shape = value.type, value.shape
    graph.insert_before(first.node, product)
    for reader in readers:
        reader.layer.node.replace_input_with(0, product.outputs[0])
    _multiply(graph, readers, scales)


def _multiply(graph: ir.Graph, readers: Sequence[Reader], scales: Floats) -> None:
    for reader in readers:
        weight = by_channel(reader.layer, _weight(reader.layer))
        factors = np.repeat(scales, reader.spread).reshape(weight.shape[0], 1, -1, 1)
        set_constant(graph, reader.layer.node, 1, as_stored(reader.layer, weight * factors))


def _weight(layer: Layer) -> npt.NDArray[np.float64]:
    """The weight as it is now, which may no longer be the one that the layer was found with."""
    return np.asarray(constant(layer.node.inputs[1]), np.float64)


def bound_channels(graph: ir.Graph, bound: Bound, uppers: Floats) -> None:
    """Give each channel behind a Clip an upper bound of its own, by a Min; the Clip keeps the largest.

    Args:
        graph: The graph; it is changed.
        bound: The Clip.
        uppers: [channels].
    """
    import onnx_ir as ir

    clip = bound.node
    output = clip.outputs[0]
    users = output.uses()
    limits = uppers.reshape([-1] + [1] * (-bound.axis - 1)).astype(np.float32)
    set_constant(graph, clip, 2, limits.max())
    least = ir.Node(
        "", "Min", [output, graph_constant(graph, f"{clip.name}_uppers", limits)], name=f"{clip.name}_channels"
    )
    least.outputs[0].name = f"{output.name}_bounded"
    least.outputs[0].type, least.outputs[0].shape = output.type, output.shape
    graph.insert_after(clip, least)
    for node, position in users:
        node.replace_input_with(position, least.outputs[0])


def set_constant(graph: ir.Graph, node: ir.Node, position: int, array: npt.NDArray[np.generic]) -> None:
    """Give a node another constant; what else reads the old one keeps it.

    Args:
        graph: The graph that the node is in.
        node: The node.
        position: Which of its inputs.
        array: The new constant.
    """
    import onnx_ir as ir

    old = node.inputs[position] if len(node.inputs) > position else None
    if old is not None and len(old.uses()) == 1 and not old.is_graph_output():
        old.const_value = ir.Tensor(array, name=old.name)
        old.shape, old.type = ir.Shape(array.shape), ir.TensorType(old.const_value.dtype)
        return
    if len(node.inputs) <= position:
        node.resize_inputs(position + 1)
    name = f"{node.name}_constant_{position}" if old is None else str(old.name)
    node.replace_input_with(position, graph_constant(graph, name, array))


def bias_slot(node: ir.Node, channels: int) -> tuple[ir.Node, int] | None:
    """The node and the position where a constant for each output channel of a layer is, or can be, added.

    That is the third input of a convolution or Gemm, whether it is there or not, and for a MatMul the constant of an Add
    that is all that reads its output.
    """
    if node.op_type != "MatMul":
        return node, 2
    users = tuple(node.outputs[0].uses())
    if len(users) != 1 or node.outputs[0].is_graph_output() or users[0].node.op_type != "Add":
        return None
    position = 1 - users[0].idx
    other = constant(users[0].node.inputs[position])
    return (users[0].node, position) if other is not None and other.shape == (channels,) else None
