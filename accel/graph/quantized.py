"""Read the layers of a graph that is quantized already."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from accel.graph.layers import constant, integer
from accel.graph.qdq import QuantizedWeight
from accel.numerics.scales import Granularity, Parameters, Scheme

if TYPE_CHECKING:
    import onnx_ir as ir


@dataclass(frozen=True, slots=True)
class QuantizedLayer:
    """A layer of a graph that is quantized already."""

    node: ir.Node
    weight: QuantizedWeight
    integers: ir.Value
    """The initializer with the weight's integers."""
    bias: ir.Value | None
    """The initializer with the bias, as float or as int32."""
    bias_scale: np.ndarray | None
    """The scale of an int32 bias; None where the bias is float."""
    input_scale: float | None
    """The scale of the activation; None where it is float."""

    @property
    def name(self) -> str:
        """The node's name, the same as in the float graph."""
        return str(self.node.name)


def quantized_layers(graph: ir.Graph) -> list[QuantizedLayer]:
    """The layers whose weight comes out of a DequantizeLinear, in order."""
    return [
        found
        for node in graph
        if node.op_type in {"Conv", "ConvTranspose", "Gemm", "MatMul"} and (found := _read(node)) is not None
    ]


def _read(node: ir.Node) -> QuantizedLayer | None:
    back = node.inputs[1].producer() if node.inputs[1] is not None else None
    if back is None or back.op_type != "DequantizeLinear":
        return None
    integers, scale = constant(back.inputs[0]), constant(back.inputs[1])
    source = back.inputs[0]
    if integers is None or scale is None or source is None:
        return None
    given = constant(back.inputs[2]) if len(back.inputs) > 2 else None  # noqa: PLR2004
    zero = np.zeros(scale.shape, np.int32) if given is None else given.astype(np.int32)
    granularity = Granularity(integer(back, "axis", 1) if scale.ndim else None, integer(back, "block_size", 0) or None)
    signed = not str(integers.dtype).startswith("uint")
    scheme = Scheme(int(source.dtype.bitwidth if source.dtype else 8), signed=signed, symmetric=not zero.any())
    bias, bias_scale = _bias(node)
    before = node.inputs[0].producer() if node.inputs[0] is not None else None
    entry = constant(before.inputs[1]) if before is not None and before.op_type == "DequantizeLinear" else None
    return QuantizedLayer(
        node,
        QuantizedWeight(integers.astype(scheme.dtype), Parameters(scale.astype(np.float32), zero), scheme, granularity),
        source,
        bias,
        bias_scale,
        float(entry) if entry is not None and entry.ndim == 0 else None,
    )


def _bias(node: ir.Node) -> tuple[ir.Value | None, np.ndarray | None]:
    value = node.inputs[2] if len(node.inputs) > 2 else None  # noqa: PLR2004
    if value is None or constant(value) is not None:
        return value, None
    back = value.producer()
    if back is None or back.op_type != "DequantizeLinear" or constant(back.inputs[0]) is None:
        return None, None
    return back.inputs[0], constant(back.inputs[1])
