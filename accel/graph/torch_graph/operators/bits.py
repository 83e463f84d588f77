"""Bits of integers, and the same bits as another type."""

from __future__ import annotations

import onnx_ir as ir
import torch
from torch import Tensor

from accel.graph.torch_graph.dtypes import torch_dtype
from accel.graph.torch_graph.native import native
from accel.graph.torch_graph.node import Node
from accel.graph.torch_graph.registry import Run, operator, unsupported
from accel.graph.torch_graph.subbyte import fitted
from accel.graph.torch_graph.unsigned import wrapping

_MOST = torch.iinfo(torch.int64).max

native(
    {
        "BitwiseAnd": torch.bitwise_and,
        "BitwiseOr": torch.bitwise_or,
        "BitwiseXor": torch.bitwise_xor,
        "BitwiseNot": wrapping(torch.bitwise_not),
    }
)


@operator("BitShift")
def bit_shift(node: Node) -> Run:
    """The bits moved to the left, or to the right with copies of the sign behind them."""
    direction = node.string("direction", "")
    if direction not in {"LEFT", "RIGHT"}:
        raise unsupported(node, f"its direction {direction!r} is unknown")
    if direction == "LEFT":
        return wrapping(torch.bitwise_left_shift)
    arithmetic = wrapping(torch.bitwise_right_shift)
    return lambda x, by: _without_sign(x, by) if x.dtype == torch.uint64 else arithmetic(x, by)


@operator("BitCast")
def bit_cast(node: Node) -> Run:
    """The same bits read as another type of the same width."""
    target = ir.DataType(node.int("to", 0))
    dtype = torch_dtype(target)
    return lambda x: fitted(x.view(dtype), target)


@wrapping
def _without_sign(x: Tensor, by: Tensor) -> Tensor:
    """uint64 to the right: as int64 the highest bit is a sign, which must not be copied, so the first step clears it."""
    return torch.where(by == 0, x, ((x >> 1) & _MOST) >> (by - 1))
