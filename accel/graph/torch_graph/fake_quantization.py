"""Rounding to the integers of a quantization in the forward pass, with gradients as if nothing had been rounded.

The gradient passes what is rounded as it is and stops at what is beyond the limits (Jacob et al. 2018, arXiv 1712.05877).
A scale gets that of Esser et al. 2020, arXiv 1902.08153, equation 3, without the factor of their section 2.2, which belongs
to the optimiser. A value is beyond the limits if the integer it rounds to is: one that lies on a limit is not lost when
its division by the scale is a last digit off.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import onnx_ir as ir
import torch
from torch import Tensor
from torch.autograd.function import Function

from accel.graph.torch_graph.dtypes import TORCH

_BITS = {ir.DataType.INT4: 4, ir.DataType.UINT4: 4, ir.DataType.INT2: 2, ir.DataType.UINT2: 2}
_CACHED = 1 << 16
"""Numbers that stay in a processor's cache while four kernels pass over them."""
_FULL = frozenset({torch.float32, torch.float64})
Rounding = Callable[[Tensor], Tensor]
Limit = Any
"""A number, or a tensor of one for each channel or block; PyTorch's types know only pairs of the same."""


@dataclass(frozen=True, slots=True)
class Grid:
    """The integers that floats become, and which of them share a scale."""

    low: int
    high: int
    axis: int = 1
    """Of the channels, or that blocks are along; of no meaning for a scale of one number."""
    block: int = 0
    """Values along the axis that share a scale; 0 where a channel does."""


def grid_of(dtype: ir.DataType, axis: int = 1, block: int = 0) -> Grid:
    """All integers of a type."""
    if dtype in _BITS:
        bits = _BITS[dtype]
        low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if dtype.name.startswith("I") else (0, 2**bits - 1)
        return Grid(low, high, axis, block)
    found = torch.iinfo(TORCH[dtype])
    return Grid(found.min, found.max, axis, block)


def spread(parameter: Tensor, like: Tensor, axis: int, block: int) -> Tensor:
    """A parameter of a whole tensor, of each channel, or of each block of one, as it broadcasts.

    Args:
        parameter: []; [1]; [channels]; or as many axes as ``like``, with a value for each block.
        like: What it is for.
        axis: Of the channels, or that blocks are along.
        block: Values that share one; 0 where it is for channels.
    """
    if parameter.numel() == 1:
        return parameter.reshape(())
    axis %= like.ndim
    if block:
        return parameter.repeat_interleave(block, axis).narrow(axis, 0, like.shape[axis])
    return parameter.reshape([-1 if place == axis else 1 for place in range(like.ndim)])


def fake_quantize(x: Tensor, scale: Tensor, zero: Tensor | None, grid: Grid) -> Tensor:
    """What comes back of floats that are quantized and dequantized; the same bits as the two operators give.

    Args:
        x: Floats.
        scale: One number, one for each channel, or one for each block.
        zero: The integer that stands for 0.0, shaped as ``scale``; 0 if None.
        grid: The integers.
    """
    step = spread(scale, x, grid.axis, grid.block)
    low: Limit = grid.low
    high: Limit = grid.high
    if zero is not None and zero.numel() == 1:
        shift = int(zero)
        low, high = low - shift, high - shift
    elif zero is not None:
        wide = torch.promote_types(x.dtype, torch.float32)
        shifts = spread(zero.to(step.device, wide), x, grid.axis, grid.block)
        low, high = low - shifts, high - shifts
    if x.dtype != step.dtype or x.dtype not in _FULL:  # the quotient is of the scale's type, its integers need 32 bits
        quotient = x.to(step.dtype) / step
        steps = through(quotient.to(torch.promote_types(step.dtype, torch.float32)), torch.round)
        return (torch.clamp(steps, low, high) * step).to(step.dtype)
    if torch.is_grad_enabled() and (x.requires_grad or step.requires_grad):
        result: Tensor = _FakeQuantize.apply(x, step, low, high)  # type: ignore[no-untyped-call]
        return result
    return _rounded(x, step, low, high)


def to_integers(steps: Tensor, shift: Tensor | None, grid: Grid, held: torch.dtype) -> Tensor:
    """Numbers of steps as the integers they round to.

    Args:
        steps: A fresh tensor, which may be written to.
        shift: The zero point as a float; 0 if None.
        grid: The limits.
        held: What integers are held in. Where a gradient is wanted they stay floats.
    """
    if steps.requires_grad:
        rounded = through(steps, torch.round)
        return torch.clamp(rounded if shift is None else rounded + shift, grid.low, grid.high)
    rounded = steps.round_()
    return (rounded if shift is None else rounded.add_(shift)).clamp_(grid.low, grid.high).to(held)


def through(x: Tensor, rounding: Rounding) -> Tensor:
    """Something rounded, with the gradient of what it was."""
    result: Tensor = _Through.apply(x, rounding)  # type: ignore[no-untyped-call]
    return result


def _rounded(x: Tensor, step: Tensor, low: Limit, high: Limit) -> Tensor:
    """Rounded to steps between limits. Clamping before the zero point would be added gives the same integers."""
    if step.ndim == 0 and not isinstance(low, Tensor) and _is_large(x):
        y = torch.empty_like(x)
        for source, goal in _pieces(x, y):
            torch.div(source, step, out=goal).round_().clamp_(low, high).mul_(step)
        return y
    return torch.div(x, step).round_().clamp_(low, high).mul_(step)


def _by_step(x: Tensor, y: Tensor, gradient: Tensor, inside: Tensor, step: Tensor) -> Tensor:
    """The gradient to the scale: y - x in steps where x is inside the limits, and the limit, which is y, where it is not.

    Args:
        x: What was rounded.
        y: What it became.
        gradient: To ``y``.
        inside: The gradient where x is inside the limits, or else 0.
        step: The scale, of the shape that its gradient is to have.
    """
    if step.ndim == 0 and all(_is_large(part) for part in (x, y, gradient, inside)):
        sums = [
            torch.mul(towards, made).addcmul_(kept, given, value=-1).sum()
            for given, made, towards, kept in _pieces(x, y, gradient, inside)
        ]
        return torch.stack(sums).sum() / step
    return (gradient * y).addcmul_(inside, x, value=-1).sum_to_size(step.shape) / step


def _is_large(x: Tensor) -> bool:
    """Whether it is better worked on in pieces, each of which stays in the cache from one kernel to the next."""
    return x.numel() > _CACHED and x.is_contiguous() and not x.is_cuda


def _pieces(*tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
    return zip(*(torch.split(tensor.view(-1), _CACHED) for tensor in tensors), strict=True)


class _FakeQuantize(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, step: Tensor, low: Limit, high: Limit) -> Tensor:
        y = _rounded(x, step, low, high)
        ctx.limits = low, high
        ctx.save_for_backward(x, step, y if ctx.needs_input_grad[1] else None)
        return y

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        x, step, y = ctx.saved_tensors
        low, high = ctx.limits
        least, greatest = (low - 0.5) * step, (high + 0.5) * step
        if least.ndim == 0 and not step.is_cuda:  # one kernel, where the limits are numbers
            inside = torch.ops.aten.hardtanh_backward(gradient, x, float(least), float(greatest))
        else:
            inside = torch.where((x >= least) & (x <= greatest), gradient, 0)
        if y is None:
            return inside, None, None, None
        return inside if ctx.needs_input_grad[0] else None, _by_step(x, y, gradient, inside, step), None, None


class _Through(Function):
    @staticmethod
    def forward(_: Any, x: Tensor, rounding: Rounding) -> Tensor:
        return rounding(x)

    @staticmethod
    def backward(_: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient, None
