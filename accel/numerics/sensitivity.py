"""How much error each layer makes by itself when it is quantized, from one pass over samples."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from accel.graph.layers import Layer
from accel.graph.observe import Probe, observe
from accel.graph.prepare import graph_constant
from accel.graph.qdq import QuantizedActivation, QuantizedWeight

if TYPE_CHECKING:
    import onnx_ir as ir

Array = npt.NDArray[np.generic]


def output_noise(
    model: ir.Model,
    layers: Iterable[Layer],
    weights: Mapping[str, QuantizedWeight],
    activations: Mapping[str, QuantizedActivation],
    batches: Iterable[Mapping[str, Array]],
    workspace: Path,
) -> dict[str, float]:
    """The noise of each layer's output, relative to its signal, when only this layer is quantized.

    Beside each float layer a copy of it with quantized weight and input is computed from the same float activations, and the
    graph itself sums the squares of both outputs' difference; so all layers share one run of each sample.

    Args:
        model: A prepared float graph; it stays as it was.
        layers: Layers of it.
        weights: Each layer's quantized weight, by the layer's name.
        activations: How each layer's input is quantized, by the layer's name.
        batches: Inputs of the model.
        workspace: Folder for the graph.

    Returns:
        For each layer sum (y - y_q)^2 / sum y^2; 0 where the output is always 0.
    """
    import onnx_ir as ir

    copy = ir.from_proto(ir.to_proto(model))
    graph = copy.graph
    nodes = {node.name: node for node in graph}
    probes: dict[str, tuple[Probe, Probe]] = {}
    for layer in layers:
        noise, signal = _beside(graph, nodes[layer.name], weights[layer.name], activations[layer.name])
        probes[layer.name] = (Probe(noise, "all"), Probe(signal, "all"))
    wanted = [probe for pair in probes.values() for probe in pair]
    sums = dict.fromkeys(wanted, 0.0)
    observed = None
    for batch in batches:
        observed = observed or observe(copy, wanted, batch, workspace)
        for probe, (value,) in observed.run(batch).items():
            sums[probe] += float(value)
    return {name: sums[noise] / sums[signal] if sums[signal] > 0 else 0.0 for name, (noise, signal) in probes.items()}


def _beside(
    graph: ir.Graph, node: ir.Node, weight: QuantizedWeight, activation: QuantizedActivation
) -> tuple[str, str]:
    """Add the layer's quantized copy; the names of the values that hold the squared noise and the squared signal."""
    import onnx_ir as ir

    name = f"accel_beside_{node.name}"
    entry = node.inputs[0]
    scale = graph_constant(graph, f"{name}_scale", activation.parameters.scale)
    zero = graph_constant(graph, f"{name}_zero", activation.parameters.zero_point.astype(activation.scheme.dtype))
    floats = graph_constant(graph, f"{name}_weight", weight.floats().astype(np.float32))

    def add(operator: str, inputs: list[ir.Value | None], what: str, attributes: Iterable[ir.Attr] = ()) -> ir.Value:
        made = ir.Node("", operator, inputs, list(attributes))
        made.outputs[0].name = f"{name}_{what}"
        graph.append(made)
        return made.outputs[0]

    quantized = add("QuantizeLinear", [entry, scale, zero], "quantized")
    back = add("DequantizeLinear", [quantized, scale, zero], "back")
    output = add(node.op_type, [back, floats, *node.inputs[2:]], "output", node.attributes.values())
    difference = add("Sub", [node.outputs[0], output], "difference")
    keep = [ir.AttrInt64("keepdims", 0)]
    noise = add("ReduceSumSquare", [difference], "noise", keep)
    signal = add("ReduceSumSquare", [node.outputs[0]], "signal", keep)
    return str(noise.name), str(signal.name)
