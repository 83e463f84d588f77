"""Products of integers.

They are computed in floats that hold them exactly, and give what ONNX Runtime does where its kernels do not saturate. Where
the integers arrive as floats because a gradient is wanted (``quantization``), they leave as floats, with a gradient.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor

from accel.graph.torch_graph.fake_quantization import Grid, to_integers
from accel.graph.torch_graph.node import Node
from accel.graph.torch_graph.operators.convolution import Convolve, conv
from accel.graph.torch_graph.operators.quantization import BYTES, dynamic_range
from accel.graph.torch_graph.registry import Run, operator, unsupported

_MICROSOFT = "com.microsoft"
_EXACT = (1 << 24) // (255 * 255)
"""Products of two bytes whose sum a float32 holds to the last digit, whatever they are."""
_RESULT = 7
"""The place of the output's zero point among the inputs of QLinearMatMul."""


@operator("ConvInteger", since=10)
def conv_integer(node: Node) -> Run:
    """Convolution of integers, each less its zero point."""
    convolve = cast("Convolve", conv(node))

    def run(x: Tensor, weight: Tensor, x_zero: Tensor | None = None, weight_zero: Tensor | None = None) -> Tensor:
        exact = _exact(weight[0].numel())
        return _whole(convolve(_less(x, x_zero, exact), _less(weight, _channels(weight_zero, weight), exact)), x)

    return run


@operator("MatMulInteger", since=10)
def matmul_integer(_node: Node) -> Run:
    """The product of matrices of integers, each less its zero point."""

    def run(a: Tensor, b: Tensor, a_zero: Tensor | None = None, b_zero: Tensor | None = None) -> Tensor:
        return _whole(_product(a, b, a_zero, b_zero), a)

    return run


@operator("QLinearConv", domain=_MICROSOFT)
@operator("QLinearConv", since=10)
def qlinear_conv(node: Node) -> Run:
    """Convolution of integers, its result as integers of another scale."""
    convolve, last = cast("Convolve", conv(node)), bool(node.int("channels_last", 0))

    def run(
        x: Tensor,
        x_scale: Tensor,
        x_zero: Tensor,
        weight: Tensor,
        weight_scale: Tensor,
        weight_zero: Tensor,
        y_scale: Tensor,
        y_zero: Tensor,
        bias: Tensor | None = None,
    ) -> Tensor:
        exact = _exact(weight[0].numel())
        given = _less(x, x_zero, exact)
        sums = convolve(given.movedim(-1, 1) if last else given, _less(weight, _channels(weight_zero, weight), exact))
        across = [-1, *[1] * (sums.ndim - 2)]
        if bias is not None:
            sums = sums.to(torch.float64) + bias.reshape(across)
        y = requantized(sums, (x_scale * weight_scale / y_scale).reshape(across), y_zero)
        return y.movedim(1, -1) if last else y

    return run


@operator("QLinearMatMul", since=10)
def qlinear_matmul(node: Node) -> Run:
    """The product of matrices of integers, as integers of another scale."""
    given = node.input_type(_RESULT)
    if given is not None and given.is_floating_point():
        raise unsupported(node, "its numbers are floats of 8 bits")

    def run(
        a: Tensor,
        a_scale: Tensor,
        a_zero: Tensor,
        b: Tensor,
        b_scale: Tensor,
        b_zero: Tensor,
        y_scale: Tensor,
        y_zero: Tensor,
    ) -> Tensor:
        factor = _rows(a_scale, a) * b_scale / y_scale
        return requantized(_product(a, b, a_zero, b_zero), factor, y_zero)

    return run


@operator("QGemm", domain=_MICROSOFT)
def qgemm(node: Node) -> Run:
    """Gemm of integers; its result is a float where no scale for it is given."""
    first, second, alpha = bool(node.int("transA", 0)), bool(node.int("transB", 0)), node.float("alpha", 1.0)

    def run(
        a: Tensor,
        a_scale: Tensor,
        a_zero: Tensor,
        b: Tensor,
        b_scale: Tensor,
        b_zero: Tensor,
        c: Tensor | None = None,
        y_scale: Tensor | None = None,
        y_zero: Tensor | None = None,
    ) -> Tensor:
        sums = _product(a.t() if first else a, b.t() if second else b, a_zero, b_zero)
        if c is not None:
            sums = sums.to(torch.float64) + c
        factor = a_scale * b_scale * alpha
        return sums.to(factor.dtype) * factor if y_scale is None else requantized(sums, factor / y_scale, y_zero)

    return run


@operator("MatMulIntegerToFloat", domain=_MICROSOFT)
def matmul_integer_to_float(_node: Node) -> Run:
    """The product of matrices of integers, times their scales."""

    def run(
        a: Tensor,
        b: Tensor,
        a_scale: Tensor,
        b_scale: Tensor,
        a_zero: Tensor | None = None,
        b_zero: Tensor | None = None,
        bias: Tensor | None = None,
    ) -> Tensor:
        y = _product(a, b, a_zero, b_zero).to(a_scale.dtype) * (_rows(a_scale, a) * b_scale)
        return y if bias is None else y + bias

    return run


@operator("DynamicQuantizeMatMul", domain=_MICROSOFT)
def dynamic_quantize_matmul(_node: Node) -> Run:
    """The product of a matrix of floats, which is quantized first, with one of integers."""

    def run(a: Tensor, b: Tensor, b_scale: Tensor, b_zero: Tensor | None = None, bias: Tensor | None = None) -> Tensor:
        y = dynamic_product(a, b, b_scale, b_zero)
        return y if bias is None else y + bias

    return run


def dynamic_product(a: Tensor, b: Tensor, b_scale: Tensor, b_zero: Tensor | None) -> Tensor:
    """The product of a matrix of floats, quantized by its least and greatest value, with integers.

    Args:
        a: [..., inputs] of floats.
        b: [inputs, outputs] of integers.
        b_scale: [] or [outputs].
        b_zero: As ``b_scale``; 0 if None.
    """
    scale, zero = dynamic_range(a)
    integers = to_integers(a / scale, zero, BYTES, torch.uint8)
    return _product(integers, b, zero, b_zero).to(a.dtype) * (scale * b_scale)


def requantized(sums: Tensor, factor: Tensor, zero: Tensor | None, held: torch.dtype = torch.uint8) -> Tensor:
    """Sums of products, or other floats, as integers.

    Args:
        sums: In steps of their own.
        factor: Those steps in steps of the result.
        zero: The zero point of the result, whose type it gets.
        held: Its type where there is no zero point.
    """
    held = held if zero is None else zero.dtype
    limits, steps = torch.iinfo(held), sums.to(torch.float32) * factor.to(torch.float32)
    return to_integers(steps, None if zero is None else zero.to(steps), Grid(limits.min, limits.max), held)


def _product(a: Tensor, b: Tensor, a_zero: Tensor | None, b_zero: Tensor | None) -> Tensor:
    exact = _exact(a.shape[-1])
    return torch.matmul(_less(a, None if a_zero is None else _rows(a_zero, a), exact), _less(b, b_zero, exact))


def _exact(depth: int) -> torch.dtype:
    """A float that holds the sum of so many products."""
    return torch.float32 if depth <= _EXACT else torch.float64


def _less(x: Tensor, zero: Tensor | None, exact: torch.dtype) -> Tensor:
    return x.to(exact) if zero is None else x.to(exact) - zero.to(exact)


def _rows(parameter: Tensor, matrix: Tensor) -> Tensor:
    """One number, or one for each row, as it broadcasts against a matrix or its product."""
    return parameter.unsqueeze(-1) if parameter.ndim == 1 and parameter.numel() > 1 and matrix.ndim > 1 else parameter


def _channels(zero: Tensor | None, weight: Tensor) -> Tensor | None:
    """A zero point, or one for each of a weight's output channels, as it broadcasts against the weight."""
    return zero if zero is None or zero.numel() == 1 else zero.reshape(-1, *[1] * (weight.ndim - 1))


def _whole(sums: Tensor, x: Tensor) -> Tensor:
    return sums if x.is_floating_point() else sums.to(torch.int32)
