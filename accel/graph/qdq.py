"""Put QuantizeLinear and DequantizeLinear pairs into a graph."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from accel.graph.layers import Layer, constant, layers
from accel.graph.placement import MOVES, Placement, moved_from
from accel.graph.prepare import BLOCK_OPSET, named_constant
from accel.numerics.scales import Granularity, Integers, Parameters, Scheme, dequantize, quantize

if TYPE_CHECKING:
    import onnx_ir as ir

_LIMIT = 2**30
"""Largest bias in steps of the products; as much again is left to their sum."""
_ENDINGS = (
    *(f"{part}{what}" for part in ("", "weight_", "bias_") for what in ("scale", "zp", "q", "dq")),
    *("input_scale", "input_zp", "input_dq", "float"),
)
"""How the names of new values end."""
_LONGEST = 48
"""Characters of a name that others are made from."""


@dataclass(frozen=True, slots=True)
class QuantizedWeight:
    """A weight as integers."""

    integers: Integers
    parameters: Parameters
    scheme: Scheme
    granularity: Granularity

    def floats(self) -> np.ndarray:
        """The floats that the integers stand for."""
        return dequantize(self.integers, self.parameters, self.granularity)


@dataclass(frozen=True, slots=True)
class QuantizedActivation:
    """How an activation is quantized: one scale, one zero point."""

    parameters: Parameters
    scheme: Scheme


def insert(
    model: ir.Model,
    placement: Placement,
    weights: Mapping[str, QuantizedWeight],
    activations: Mapping[str, QuantizedActivation],
) -> None:
    """Rewrite the graph in place so that the placed layers compute in integers.

    Args:
        model: A prepared graph, the one that the placement was made for.
        placement: Layers and values.
        weights: For each layer's name.
        activations: For each value whose range was measured.

    Raises:
        ValueError: The graph's opset is too low for 16 bits or blocks.
    """
    schemes = [part.scheme for part in activations.values()] + [part.scheme for part in weights.values()]
    newer = any(scheme.bits > 8 for scheme in schemes) or any(  # noqa: PLR2004  (a byte)
        weight.granularity.block is not None for weight in weights.values()
    )
    if newer and model.opset_imports.get("", 0) < BLOCK_OPSET:
        raise ValueError(f"16 bits and blocks need opset {BLOCK_OPSET}: prepare the graph for it")
    graph = model.graph
    values = {value.name: value for value in _values(graph)}
    taken = {*graph.initializers, *(str(name) for name in values)}
    entering = {layer.name: activations[placement.ranges[str(layer.input.name)]] for layer in placement.layers}
    alone = _between(graph, placement)
    in_integers = {*(layer.node for layer in placement.layers), *placement.joins}
    made = {layer.output.name for layer in placement.layers}
    for name, source in placement.ranges.items():
        everyone = name in made or _joined(values[name], placement)
        readers = None if everyone else in_integers
        _pair(graph, values[name], activations[source], _label(name, taken), readers)
    shared: dict[tuple[object, ...], list[ir.Value]] = {}
    for layer in placement.layers:
        entry = entering[layer.name]
        weight = _with_room(layer, weights[layer.name], entry)
        label = _label(layer.name, taken)
        _weigh(graph, layer, weight, entry, shared, label)
        if layer.operator == "MatMul" and weight.granularity.block is not None:
            _feed_copy(graph, layer.node, label)  # ONNX Runtime takes blocks for channels, and fails when it runs
    for layer in alone:
        _feed_apart(graph, layer, _label(layer.name, taken))
    _forget_shapes(graph)


def _joined(value: ir.Value, placement: Placement) -> bool:
    """Whether a value comes out of a join, behind its Relu or Clip."""
    node = value.producer()
    if node is not None and node.op_type in {"Relu", "Clip"} and node.inputs[0] is not None:
        node = node.inputs[0].producer()
    return node in placement.joins


def _between(graph: ir.Graph, placement: Placement) -> list[Layer]:
    """The layers that stay in float, but read what is quantized, or moved from what is quantized."""
    placed = {layer.name for layer in placement.layers}
    return [
        layer
        for layer in layers(graph, ("Conv", "ConvTranspose", "Gemm"))
        if layer.name not in placed and any(value.name in placement.ranges for value in moved_from(layer.input))
    ]


def _feed_apart(graph: ir.Graph, layer: Layer, label: str) -> None:
    """Give a float layer a DequantizeLinear of its own, with the scale repeated for each channel.

    The numbers are the same. But where one scale stands in front and a QuantizeLinear behind, ONNX Runtime takes the layer
    for a quantized one whose weight was forgotten, and quantizes that by itself with one scale.
    """
    import onnx_ir as ir

    back = layer.node.inputs[0].producer() if layer.node.inputs[0] is not None else None
    channels = layer.weight.shape[1] * layer.group if layer.operator == "Conv" else layer.weight.shape[0]
    if layer.operator == "Gemm" and layer.channel_axis == 0:
        channels = layer.weight.shape[1]
    if back is None or back.op_type != "DequantizeLinear" or channels == 1:
        # The runtime pushes the pair through moves, and takes one channel's scale for the tensor's.
        _feed_copy(graph, layer.node, label)
        return
    scale, zero = constant(back.inputs[1]), constant(back.inputs[2])
    if scale is None or zero is None:
        return
    each = [
        named_constant(graph, f"{label}_{what}", np.full(channels, part))
        for what, part in (("input_scale", scale), ("input_zp", zero))
    ]
    node = ir.Node("", "DequantizeLinear", [back.inputs[0], *each], [ir.AttrInt64("axis", 1)])
    node.outputs[0].name = f"{label}_input_dq"
    graph.insert_before(layer.node, node)
    layer.node.replace_input_with(0, node.outputs[0])
    if not back.outputs[0].uses() and not back.outputs[0].is_graph_output():
        graph.remove(back, safe=True)


def _feed_copy(graph: ir.Graph, node: ir.Node, label: str) -> None:
    """Let a node read a copy of its input: no runtime sees a pair through the maximum of one value."""
    import onnx_ir as ir

    kept = ir.Node("", "Max", [node.inputs[0]])
    kept.outputs[0].name = f"{label}_input_dq"
    graph.insert_before(node, kept)
    node.replace_input_with(0, kept.outputs[0])


def _with_room(layer: Layer, weight: QuantizedWeight, entering: QuantizedActivation) -> QuantizedWeight:
    """The weight with larger steps where the bias, in steps of the products, would not fit 32 bits together with the sum.

    Such a bias dwarfs what the weights add to it, so that their coarser steps do not show.
    """
    if layer.bias is None or weight.granularity.block is not None or not layer.weight.size:
        return weight
    entry = float(entering.parameters.scale)
    needed = np.abs(layer.bias.astype(np.float64)) / (entry * _LIMIT)
    if weight.granularity.axis is None:
        needed = needed.max(initial=0)
    if not (needed > weight.parameters.scale).any():
        return weight
    given = Parameters(np.maximum(weight.parameters.scale, needed).astype(np.float32), weight.parameters.zero_point)
    integers = quantize(layer.weight, given, weight.scheme, weight.granularity)
    return QuantizedWeight(integers, given, weight.scheme, weight.granularity)


def _label(name: str, taken: set[str]) -> str:
    """What new values are called after; names of some exporters are so long that they would outweigh the weights."""
    short = name if len(name) <= _LONGEST else name[-_LONGEST // 2 :]
    label, number = short, 1
    while any(f"{label}_{ending}" in taken for ending in _ENDINGS):
        number += 1
        label = f"{short}~{number}"
    taken.update(f"{label}_{ending}" for ending in _ENDINGS)
    return label


def _forget_shapes(graph: ir.Graph) -> None:
    """Runtimes infer the shapes of inner values; in a small file they would take more room than the weights."""
    for node in graph:
        for value in node.outputs:
            if not value.is_graph_output():
                value.type = value.shape = None


def _values(graph: ir.Graph) -> Iterator[ir.Value]:
    yield from graph.inputs
    for node in graph:
        yield from node.outputs


def _pair(
    graph: ir.Graph, value: ir.Value, activation: QuantizedActivation, label: str, readers: Collection[ir.Node] | None
) -> None:
    """Quantize a value, and feed its readers with what comes back; graph outputs keep their name.

    Where it is made in integers all must read that (``readers`` is None), so that no float copy is made of it. Where it is
    made in float, only what computes in integers reads what was rounded; residual sums and norms stay exact.
    """
    import onnx_ir as ir

    scale = named_constant(graph, f"{label}_scale", activation.parameters.scale)
    zero = named_constant(graph, f"{label}_zp", activation.parameters.zero_point.astype(activation.scheme.dtype))
    users = [
        (use.node, use.idx)
        for use in value.uses()
        if readers is None or use.node in readers or use.node.op_type in MOVES
    ]
    quantized = ir.Node("", "QuantizeLinear", [value, scale, zero])
    back = ir.Node("", "DequantizeLinear", [quantized.outputs[0], scale, zero])
    quantized.outputs[0].name = f"{label}_q"
    result = back.outputs[0]
    result.name = f"{label}_dq"
    result.type, result.shape = value.type, value.shape
    for node, position in users:
        node.replace_input_with(position, result)
    producer = value.producer()
    if producer is None:
        graph.insert_before(graph[0], [quantized, back])
    else:
        graph.insert_after(producer, [quantized, back])
    if value.is_graph_output() and readers is None:
        _swap_output(graph, value, result)


def _swap_output(graph: ir.Graph, value: ir.Value, result: ir.Value) -> None:
    name = value.name
    graph.outputs[graph.outputs.index(value)] = result
    value.name, result.name = f"{name}_float", name


def _weigh(
    graph: ir.Graph,
    layer: Layer,
    weight: QuantizedWeight,
    activation: QuantizedActivation,
    shared: dict[tuple[object, ...], list[ir.Value]],
    label: str,
) -> None:
    """Replace a layer's weight and bias by integers; layers that share a weight go on sharing it."""
    node = layer.node
    old = node.inputs[1]
    key = (
        None if old is None else old.name,
        weight.scheme,
        weight.granularity,
        weight.integers.tobytes(),
        weight.parameters.scale.tobytes(),
    )
    if key not in shared:
        shared[key] = [
            named_constant(graph, f"{label}_weight_q", weight.integers),
            named_constant(graph, f"{label}_weight_scale", weight.parameters.scale),
            named_constant(graph, f"{label}_weight_zp", weight.parameters.zero_point.astype(weight.scheme.dtype)),
        ]
    node.replace_input_with(1, _dequantized(graph, node, shared[key], weight.granularity, f"{label}_weight"))
    if layer.bias is not None and weight.granularity.block is None:
        scales = activation.parameters.scale.astype(np.float64) * weight.parameters.scale.astype(np.float64)
        rounded = np.rint(layer.bias.astype(np.float64) / scales).astype(np.int32)
        before = node.inputs[2]
        bias = named_constant(graph, f"{label}_bias_q", rounded)
        scale = named_constant(graph, f"{label}_bias_scale", scales.astype(np.float32))
        axis = 0 if scales.ndim else None
        node.replace_input_with(2, _dequantized(graph, node, [bias, scale], Granularity(axis), f"{label}_bias"))
        _drop(graph, before)
    _drop(graph, old)


def _dequantized(
    graph: ir.Graph, node: ir.Node, inputs: list[ir.Value], granularity: Granularity, label: str
) -> ir.Value:
    import onnx_ir as ir

    attributes = []
    if granularity.axis is not None:
        attributes.append(ir.AttrInt64("axis", granularity.axis))
    if granularity.block is not None:
        attributes.append(ir.AttrInt64("block_size", granularity.block))
    back = ir.Node("", "DequantizeLinear", inputs, attributes)
    back.outputs[0].name = f"{label}_dq"
    back.outputs[0].type = ir.TensorType(ir.DataType.FLOAT)
    back.outputs[0].shape = inputs[0].shape
    graph.insert_before(node, back)
    return back.outputs[0]


def _drop(graph: ir.Graph, value: ir.Value | None) -> None:
    """Remove an initializer that nothing reads any more."""
    if value is None or value.name is None or value.uses() or value.is_graph_output():
        return
    graph.initializers.pop(value.name, None)
