"""From floats to integers and back, by scales and zero points."""

from __future__ import annotations

import onnx_ir as ir
import torch
from torch import Tensor

from accel.graph.torch_graph.dtypes import FLOATS, torch_dtype
from accel.graph.torch_graph.fake_quantization import Grid, fake_quantize, grid_of, spread, through, to_integers
from accel.graph.torch_graph.float8 import to_float8
from accel.graph.torch_graph.node import Node
from accel.graph.torch_graph.pairs import stored_type
from accel.graph.torch_graph.registry import Run, operator, unsupported

BYTES = Grid(0, 255)
"""What floats are quantized to while a model runs."""
_MICROSOFT = "com.microsoft"
_ZERO = 2
"""The place of the zero point among the inputs."""


@operator("QuantizeLinear", since=10)
@operator("QuantizeLinear", domain=_MICROSOFT)
def quantize_linear(node: Node) -> Run:
    """Divided by a scale, rounded, moved by a zero point, and cut to the limits of a type.

    Where a gradient is wanted, the integers are given as floats, so that it reaches input and scale.
    """
    dtype, axis, block = _output_type(node), node.int("axis", 1), node.int("block_size", 0)
    precision = node.type_of("precision")
    divided = torch_dtype(precision) if precision else None
    if dtype.is_floating_point():
        return _to_float8(torch_dtype(dtype), axis, block, divided, saturate=bool(node.int("saturate", 1)))
    grid, held = grid_of(dtype, axis, block), torch_dtype(dtype)

    def run(x: Tensor, scale: Tensor, zero: Tensor | None = None) -> Tensor:
        quotient = _quotient(x, scale, axis, block, divided)
        shift = None if zero is None else spread(zero.to(quotient.device, quotient.dtype), x, axis, block)
        return to_integers(quotient, shift, grid, held)

    return run


@operator("DequantizeLinear", since=10)
@operator("DequantizeLinear", domain=_MICROSOFT)
def dequantize_linear(node: Node) -> Run:
    """What integers stand for: their distance from a zero point times a scale.

    Integers may arrive as floats, from a QuantizeLinear that is trained. A float in the place of a stored weight is no
    integer but the weight itself while it is trained, and is rounded here (``latent``).
    """
    axis, block, wanted = node.int("axis", 1), node.int("block_size", 0), node.type_of("output_dtype")
    result = torch_dtype(wanted) if wanted else None
    source = node.native.inputs[0]
    stored = stored_type(source) if source is not None and _is_stored(source) else None
    grid = grid_of(stored, axis, block) if stored is not None and stored.is_integer() else None

    def run(x: Tensor, scale: Tensor, zero: Tensor | None = None) -> Tensor:
        output = result or scale.dtype
        if grid is not None and x.dtype in FLOATS:
            return fake_quantize(x, scale, zero, grid).to(output)
        wide = torch.float64 if scale.dtype == torch.float64 else torch.float32
        steps, step = x.to(scale.device, wide), spread(scale.to(wide), x, axis, block)
        fresh = steps is not x
        if zero is not None and (zero.numel() > 1 or int(zero)):
            shift = spread(zero.to(scale.device, wide), x, axis, block)
            steps, fresh = steps.sub_(shift) if fresh and not steps.requires_grad else steps - shift, True
        if fresh and not (torch.is_grad_enabled() and (steps.requires_grad or step.requires_grad)):
            return steps.mul_(step).to(output)
        return (steps * step).to(output)

    return run


@operator("DynamicQuantizeLinear", since=11)
def dynamic_quantize_linear(_node: Node) -> Run:
    """To uint8 by the least and greatest value that the input has; the scale and zero point are outputs too.

    Where a gradient is wanted, it passes the integers and the scale, and the zero point counts as a constant.
    """

    def run(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        scale, zero = dynamic_range(x)
        return to_integers(x / scale, zero, BYTES, torch.uint8), scale, zero.to(torch.uint8)

    return run


def dynamic_range(x: Tensor) -> tuple[Tensor, Tensor]:
    """Scale and zero point (as a float) of uint8 values that cover a tensor and 0."""
    low, high = torch.aminmax(x)
    low, high = low.clamp_max(0), high.clamp_min(0)
    scale = torch.where(high == low, torch.ones_like(high), high - low) / 255
    zero = torch.clamp(-low / scale, 0, 255).detach().round()
    return scale, zero


def _to_float8(dtype: torch.dtype, axis: int, block: int, divided: torch.dtype | None, *, saturate: bool) -> Run:
    greatest = torch.finfo(dtype).max

    def run(x: Tensor, scale: Tensor, _zero: Tensor | None = None) -> Tensor:
        quotient = _quotient(x, scale, axis, block, divided)
        if not quotient.requires_grad:
            return to_float8(quotient, dtype, saturate=saturate)
        cut = quotient.clamp(-greatest, greatest) if saturate else quotient
        return through(cut, lambda value: to_float8(value, dtype, saturate=saturate).to(value.dtype))

    return run


def _quotient(x: Tensor, scale: Tensor, axis: int, block: int, divided: torch.dtype | None) -> Tensor:
    """Divided in the type of the scale or a given one; of 32 bits at least, so that integers fit it."""
    within = divided or scale.dtype
    quotient = x.to(within) / spread(scale.to(within), x, axis, block)
    return quotient.to(torch.promote_types(within, torch.float32))


def _output_type(node: Node) -> ir.DataType:
    """What is quantized to.

    Raises:
        UnsupportedOperator: Nothing in the file says it.
    """
    declared = node.type_of("output_dtype")
    if declared:
        return declared
    if node.inputs <= _ZERO or node.native.inputs[_ZERO] is None:
        return ir.DataType.UINT8
    found = stored_type(node.native.inputs[_ZERO]) or node.output_type()
    if found is None:
        raise unsupported(node, "its zero point is computed and the file does not say of what type it is")
    return found


def _is_stored(value: ir.Value) -> bool:
    """Whether a value is an initialiser or a Constant's."""
    node = value.producer()
    return value.is_initializer() if node is None else node.op_type == "Constant"
