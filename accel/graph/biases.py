"""Move the biases of layers that are quantized already."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from accel.graph.layers import constant
from accel.graph.prepare import graph_constant
from accel.graph.rescale import bias_slot, set_constant
from accel.numerics.bias import moved

if TYPE_CHECKING:
    import onnx_ir as ir

    from accel.graph.quantized import QuantizedLayer

Floats = npt.NDArray[np.floating]


class Unmovable(Exception):
    """A layer has no place for another bias that runtimes would compute together with it."""


def add_to_bias(graph: ir.Graph, layer: QuantizedLayer, shift: Floats) -> None:
    """Add to each output channel of a layer, in the form that its bias has: int32 behind a DequantizeLinear, or floats.

    A convolution or Gemm without a bias gets one. A MatMul has it in the Add behind it, and gets one there.

    Args:
        graph: The graph; it is changed.
        layer: A layer of it, read again after each change.
        shift: [outputs].

    Raises:
        Unmovable: There is no place; the message says why.
    """
    node = layer.node
    if node.op_type == "MatMul":
        _add_behind(graph, node, shift)
        return
    absent = len(node.inputs) < 3 or node.inputs[2] is None  # noqa: PLR2004
    if not absent and layer.bias is None:
        raise Unmovable("its bias is computed")
    if layer.bias is not None and layer.bias_scale is not None:
        _move_integers(graph, layer, shift)
    elif absent and layer.input_scale is not None and layer.weight.granularity.block is None:
        _give_integers(graph, layer, shift)
    else:
        old = constant(layer.bias) if layer.bias is not None else None
        set_constant(graph, node, 2, (shift if old is None else np.asarray(old, np.float64) + shift).astype(np.float32))


def _move_integers(graph: ir.Graph, layer: QuantizedLayer, shift: Floats) -> None:
    back = layer.node.inputs[2].producer()  # type: ignore[union-attr]  # it has a bias
    if back is None or layer.bias_scale is None or len(back.outputs[0].uses()) > 1:
        raise Unmovable("it shares its bias with another layer")
    changed = moved(np.asarray(constant(layer.bias), np.int32), layer.bias_scale, shift)
    if changed is None:
        raise Unmovable("its bias does not fit into 32 bits")
    set_constant(graph, back, 0, changed)


def _give_integers(graph: ir.Graph, layer: QuantizedLayer, shift: Floats) -> None:
    import onnx_ir as ir

    node, weight = layer.node, layer.weight.parameters.scale
    scale = (np.float64(layer.input_scale or 0) * weight.astype(np.float64)).astype(np.float32)
    integers = moved(None, scale, shift)
    if integers is None:
        raise Unmovable("its bias does not fit into 32 bits")
    inputs = [
        graph_constant(graph, f"{node.name}_bias_quantized", integers),
        graph_constant(graph, f"{node.name}_bias_scale", scale),
        graph_constant(graph, f"{node.name}_bias_zero_point", np.zeros(scale.shape, np.int32)),
    ]
    back = ir.Node("", "DequantizeLinear", inputs, [ir.AttrInt64("axis", 0)] if scale.ndim else [])
    back.outputs[0].name = f"{node.name}_bias_dequantized"
    back.outputs[0].type = ir.TensorType(ir.DataType.FLOAT)
    graph.insert_before(node, back)
    if len(node.inputs) < 3:  # noqa: PLR2004
        node.resize_inputs(3)
    node.replace_input_with(2, back.outputs[0])


def _quantizes(node: ir.Node) -> bool:
    """Whether a node quantizes, or is an activation that runtimes fold into the quantization behind it."""
    folded = node.op_type in {"Clip", "Relu"} and any(
        use.node.op_type == "QuantizeLinear" for use in node.outputs[0].uses()
    )
    return node.op_type == "QuantizeLinear" or folded


def _add_behind(graph: ir.Graph, node: ir.Node, shift: Floats) -> None:
    import onnx_ir as ir

    slot = bias_slot(node, shift.size)
    if slot is not None:
        old = constant(slot[0].inputs[slot[1]])
        set_constant(graph, *slot, (np.asarray(old, np.float64) + shift).astype(np.float32))
        return
    output = node.outputs[0]
    users = output.uses()
    if any(_quantizes(use.node) for use in users):
        raise Unmovable("what it gives is quantized at once, and an Add between would cost the integer kernel")
    add = ir.Node("", "Add", [output, graph_constant(graph, f"{node.name}_bias", shift.astype(np.float32))])
    add.name = f"{node.name}_add"
    result = add.outputs[0]
    result.type, result.shape = output.type, output.shape
    result.name = f"{node.name}_corrected"
    for user, position in users:
        user.replace_input_with(position, result)
    graph.insert_after(node, add)
    if output.is_graph_output():
        graph.outputs[graph.outputs.index(output)] = result
        output.name, result.name = f"{output.name}_before_correction", output.name
