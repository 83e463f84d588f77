"""QuantizeLinear with the DequantizeLinear behind it: two nodes of a graph that are run as one.

Between the two there would be nothing but integers that nobody else reads, and most of the time that training a quantized
graph takes would go into making them.
"""

from __future__ import annotations

from collections.abc import Callable, Collection

import onnx_ir as ir
from torch import Tensor

from accel.graph.layers import integer
from accel.graph.torch_graph.fake_quantization import Grid, fake_quantize, grid_of

_DOMAINS = frozenset({"", "ai.onnx", "com.microsoft"})
_ZERO = 2
Same = Callable[[ir.Value | None, ir.Value | None], bool]
"""Whether two values are one, or hold the same numbers for ever."""


def rounding_pairs(graph: ir.Graph, same: Same) -> dict[ir.Node, ir.Node]:
    """For each DequantizeLinear that undoes what a QuantizeLinear of the same graph does, that QuantizeLinear."""
    found = {}
    for node in graph:
        source = node.inputs[0].producer() if _is(node, "DequantizeLinear") and node.inputs[0] is not None else None
        if (
            source is not None
            and source.graph is graph
            and _is(source, "QuantizeLinear")
            and _undoes(node, source, same)
        ):
            found[node] = source
    return found


def needless(pairs: dict[ir.Node, ir.Node], kept: Collection[ir.Value]) -> set[ir.Node]:
    """The QuantizeLinear nodes that nothing but their pairs read.

    Args:
        pairs: What :func:`rounding_pairs` found.
        kept: Values that are wanted for themselves.
    """
    return {
        source
        for source in pairs.values()
        if source.outputs[0] not in kept
        and not source.outputs[0].is_graph_output()
        and all(use.node in pairs and use.idx == 0 for use in source.outputs[0].uses())
    }


def rounding(source: ir.Node) -> Callable[..., Tensor]:
    """What computes a pair: the inputs of its QuantizeLinear, the output of its DequantizeLinear."""
    grid = _grid(source)
    if grid is None:
        raise ValueError(f"{source.name!r} does not quantize to integers")
    return lambda x, scale, zero=None: fake_quantize(x, scale, zero, grid)


def stored_type(value: ir.Value | None) -> ir.DataType | None:
    """The element type of a value, where the file says it or it is a constant."""
    if value is None:
        return None
    if value.dtype is not None:
        return value.dtype
    node = value.producer()
    if node is not None and node.op_type == "Constant" and "value" in node.attributes:
        return node.attributes["value"].as_tensor().dtype
    return None if value.const_value is None else value.const_value.dtype


def _undoes(node: ir.Node, source: ir.Node, same: Same) -> bool:
    grid = _grid(source)
    return (
        grid is not None
        and "output_dtype" not in node.attributes
        and "precision" not in source.attributes
        and (integer(node, "axis", 1), integer(node, "block_size", 0)) == (grid.axis, grid.block)
        and all(same(_input(node, place), _input(source, place)) for place in (1, _ZERO))
    )


def _grid(source: ir.Node) -> Grid | None:
    """The integers of a QuantizeLinear; None if they are floats of 8 bits, or nothing says what they are."""
    zero = _input(source, _ZERO)
    declared = ir.DataType(integer(source, "output_dtype", 0))
    if declared == ir.DataType.UNDEFINED:
        given = ir.DataType.UINT8 if zero is None else stored_type(zero)
        declared = ir.DataType.UNDEFINED if given is None else given
    if declared == ir.DataType.UNDEFINED or declared.is_floating_point():
        return None
    return grid_of(declared, integer(source, "axis", 1), integer(source, "block_size", 0))


def _input(node: ir.Node, place: int) -> ir.Value | None:
    return node.inputs[place] if place < len(node.inputs) else None


def _is(node: ir.Node, operator: str) -> bool:
    return node.op_type == operator and node.domain in _DOMAINS
