"""Where quantization goes in a graph, so that runtimes compute in integers there."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from accel.graph.layers import Layer, constant

if TYPE_CHECKING:
    import onnx_ir as ir

MOVES = frozenset({
    "Flatten", "Identity", "MaxPool", "Reshape", "Squeeze", "Transpose", "Unsqueeze",
})  # fmt: skip
"""Operators whose outputs are some of their inputs: one scale serves both sides, and integers pass through."""
_JOINS = frozenset({"Add"})
"""Operators that have an integer kernel for two quantized inputs."""
_NEEDS_QUANTIZED_OUTPUT = frozenset({"Conv", "ConvTranspose"})
"""Layers without a kernel that takes integers and gives floats."""


@dataclass(frozen=True, slots=True)
class Placement:
    """The layers that compute in integers, and the values that are quantized for them."""

    layers: tuple[Layer, ...]
    ranges: dict[str, str]
    """For each value that gets a QuantizeLinear and DequantizeLinear pair, the value whose range it has."""
    joins: tuple[ir.Node, ...]
    """Operators between layers that compute in integers too."""

    @property
    def measured(self) -> tuple[str, ...]:
        """The values whose ranges must be known."""
        return tuple(dict.fromkeys(self.ranges.values()))


def place(chosen: Sequence[Layer], *, joins: Collection[str] = _JOINS) -> Placement:
    """Decide which values are quantized so that each chosen layer can compute in integers.

    A pair goes before each layer, and behind it *after* its Relu or Clip, which runtimes then fold into the layer. Behind
    matrix products there is one only where the next layer needs it: their kernels can give floats, which are more exact.
    Where an Add gets quantized values on both sides and feeds a quantized one, it is computed in integers.

    Args:
        chosen: Layers of one graph.
        joins: Operators that may be computed in integers between layers.
    """
    inputs = {layer.input.name: layer.input for layer in chosen}
    outputs = {layer.output.name: layer.output for layer in chosen if layer.operator in _NEEDS_QUANTIZED_OUTPUT}
    values = {str(name): value for name, value in (*inputs.items(), *outputs.items())}
    produced = {layer.output.name for layer in chosen}
    joined = []
    for value in list(values.values()):
        source = _source(value)
        if source.name in produced and source.name is not None:
            values.setdefault(source.name, source)
    for value in list(values.values()):
        join = _join_before(_source(value), joins)
        if join is None or any(part is None or part.name not in values for part in join.inputs):
            continue
        joined.append(join)
        output = _source(value)
        if output.name is not None:
            values.setdefault(output.name, output)
    ranges = {name: str(_source(value).name) for name, value in values.items()}
    return Placement(tuple(chosen), ranges, tuple(dict.fromkeys(joined)))


def _source(value: ir.Value) -> ir.Value:
    """The value that this one is moved, reshaped or pooled from."""
    return moved_from(value)[-1]


def moved_from(value: ir.Value) -> list[ir.Value]:
    """The value, and those that it is moved, reshaped or pooled from, the nearest first."""
    found = [value]
    while True:
        node = found[-1].producer()
        if node is None or node.op_type not in MOVES or node.inputs[0] is None:
            return found
        found.append(node.inputs[0])


def _join_before(value: ir.Value, joins: Collection[str]) -> ir.Node | None:
    """The operator that joins two values into this one, seen through a Relu."""
    node = value.producer()
    if node is not None and node.op_type in {"Relu", "Clip"} and node.inputs[0] is not None:
        before = node.inputs[0]
        node = before.producer() if len(before.uses()) == 1 else None
    if node is None or node.op_type not in joins or any(constant(part) is not None for part in node.inputs):
        return None
    return node
