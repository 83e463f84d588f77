"""How much error each layer makes by itself when it is quantized, from one pass over samples."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from accel.graph.layers import Layer
from accel.graph.observe import Probe
from accel.graph.prepare import named_constant
from accel.graph.qdq import QuantizedActivation, QuantizedWeight

if TYPE_CHECKING:
    import onnx_ir as ir

Array = npt.NDArray[np.generic]


class OutputNoise:
    """Takes in the noise of each layer's output when only this layer is quantized, run by run.

    Beside each float layer a copy of it with quantized weight and input is computed from the same float activations, and the
    graph itself sums the squares of both outputs' difference; so all layers share one run of each sample.
    """

    def __init__(
        self,
        model: ir.Model,
        layers: Iterable[Layer],
        weights: Mapping[str, QuantizedWeight],
        activations: Mapping[str, QuantizedActivation],
    ) -> None:
        """Begin.

        Args:
            model: A prepared float graph; the copies of the layers are added to it.
            layers: Layers of it, or of the graph that it is a copy of.
            weights: Each layer's quantized weight, by the layer's name.
            activations: How each layer's input is quantized, by the layer's name.
        """
        nodes = {node.name: node for node in model.graph}
        self._pairs: dict[str, tuple[Probe, Probe]] = {}
        for layer in layers:
            noise, signal = _beside(model.graph, nodes[layer.name], weights[layer.name], activations[layer.name])
            self._pairs[layer.name] = (Probe(noise, "all"), Probe(signal, "all"))
        self._sums = dict.fromkeys(self.probes, 0.0)

    @property
    def probes(self) -> tuple[Probe, ...]:
        """What must be seen of the graph."""
        return tuple(probe for pair in self._pairs.values() for probe in pair)

    def add(self, found: Mapping[Probe, tuple[Array, ...]]) -> None:
        """Take in what one run gave."""
        for probe in self._sums:
            self._sums[probe] += float(found[probe][0])

    def relative(self) -> dict[str, float]:
        """For each layer sum (y - y_q)^2 / sum y^2; 0 where the output is always 0."""
        sums = self._sums
        return {
            name: sums[noise] / sums[signal] if sums[signal] > 0 else 0.0
            for name, (noise, signal) in self._pairs.items()
        }


def _beside(
    graph: ir.Graph, node: ir.Node, weight: QuantizedWeight, activation: QuantizedActivation
) -> tuple[str, str]:
    """Add the layer's quantized copy; the names of the values that hold the squared noise and the squared signal."""
    import onnx_ir as ir

    name = f"accel_beside_{node.name}"
    entry = node.inputs[0]
    scale = named_constant(graph, f"{name}_scale", activation.parameters.scale)
    zero = named_constant(graph, f"{name}_zero", activation.parameters.zero_point.astype(activation.scheme.dtype))

    def add(operator: str, inputs: list[ir.Value | None], what: str, attributes: Iterable[ir.Attr] = ()) -> ir.Value:
        made = ir.Node("", operator, inputs, list(attributes))
        made.outputs[0].name = f"{name}_{what}"
        graph.append(made)
        return made.outputs[0]

    quantized = add("QuantizeLinear", [entry, scale, zero], "quantized")
    back = add("DequantizeLinear", [quantized, scale, zero], "back")
    # Integers are a quarter of the size, to be written and loaded; but a matrix product of two pairs would be fused into an
    # integer kernel, which is not the same on every processor.
    if weight.granularity.block is None and node.op_type == "Conv":
        parts = [weight.integers, weight.parameters.scale, weight.parameters.zero_point.astype(weight.scheme.dtype)]
        constants = [named_constant(graph, f"{name}_weight_{number}", part) for number, part in enumerate(parts)]
        axes = [] if weight.granularity.axis is None else [ir.AttrInt64("axis", weight.granularity.axis)]
        matrix = add("DequantizeLinear", [*constants], "weight", axes)
    else:
        matrix = named_constant(graph, f"{name}_weight", weight.floats().astype(np.float32))
    output = add(node.op_type, [back, matrix, *node.inputs[2:]], "output", node.attributes.values())
    difference = add("Sub", [node.outputs[0], output], "difference")
    keep = [ir.AttrInt64("keepdims", 0)]
    noise = add("ReduceSumSquare", [difference], "noise", keep)
    signal = add("ReduceSumSquare", [node.outputs[0]], "signal", keep)
    return str(noise.name), str(signal.name)
