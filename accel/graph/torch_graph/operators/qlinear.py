"""Operators of ONNX Runtime that take integers, compute in floats and give integers: what its quantizer writes."""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import cast

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812  (as everybody calls it)

from accel.graph.torch_graph.node import Node
from accel.graph.torch_graph.operators.integer_arithmetic import requantized
from accel.graph.torch_graph.operators.pooling import average_pool
from accel.graph.torch_graph.registry import Run, operator

Pool = Callable[[Tensor], Tensor]
_MICROSOFT = "com.microsoft"
_BY_AXIS = 13
"""The version of ONNX's operators from which on Softmax is along one axis alone."""


def _alone(compute: Callable[[Tensor], Tensor]) -> Run:
    """A function of one input."""

    def run(x: Tensor, x_scale: Tensor, x_zero: Tensor | None, y_scale: Tensor, y_zero: Tensor | None = None) -> Tensor:
        return requantized(compute(_floats(x, x_scale, x_zero)), 1 / y_scale, y_zero, x.dtype)

    return run


def _together(compute: Callable[[Tensor, Tensor], Tensor]) -> Run:
    """A function of two inputs."""

    def run(
        a: Tensor,
        a_scale: Tensor,
        a_zero: Tensor | None,
        b: Tensor,
        b_scale: Tensor,
        b_zero: Tensor | None,
        y_scale: Tensor,
        y_zero: Tensor | None = None,
    ) -> Tensor:
        y = compute(_floats(a, a_scale, a_zero), _floats(b, b_scale, b_zero))
        return requantized(y, 1 / y_scale, y_zero, a.dtype)

    return run


@operator("QLinearAdd", domain=_MICROSOFT)
def qlinear_add(_node: Node) -> Run:
    """The sum."""
    return _together(torch.add)


@operator("QLinearMul", domain=_MICROSOFT)
def qlinear_mul(_node: Node) -> Run:
    """The product."""
    return _together(torch.mul)


@operator("QLinearSigmoid", domain=_MICROSOFT)
def qlinear_sigmoid(_node: Node) -> Run:
    """The logistic function."""
    return _alone(torch.sigmoid)


@operator("QLinearLeakyRelu", domain=_MICROSOFT)
def qlinear_leaky_relu(node: Node) -> Run:
    """The input; below zero it is scaled."""
    alpha = node.float("alpha", 0.01)
    return _alone(lambda x: F.leaky_relu(x, alpha))


@operator("QLinearAveragePool", domain=_MICROSOFT)
def qlinear_average_pool(node: Node) -> Run:
    """Mean of each window."""
    return _alone(_by_channels(node, cast("Pool", average_pool(node))))


@operator("QLinearGlobalAveragePool", domain=_MICROSOFT)
def qlinear_global_average_pool(node: Node) -> Run:
    """Mean of each channel."""
    return _alone(_by_channels(node, lambda x: x.mean(tuple(range(2, x.ndim)), keepdim=True)))


@operator("QLinearSoftmax", domain=_MICROSOFT)
def qlinear_softmax(node: Node) -> Run:
    """Softmax along an axis, or, before version 13 of ONNX's, over it and all behind it."""
    axis = node.int("axis", -1)
    if node.int("opset", _BY_AXIS) >= _BY_AXIS:
        return _alone(lambda x: torch.softmax(x, axis))
    return _alone(lambda x: torch.softmax(x.reshape(prod(x.shape[: axis % x.ndim]), -1), 1).reshape(x.shape))


@operator("QLinearConcat", domain=_MICROSOFT)
def qlinear_concat(node: Node) -> Run:
    """Tensors end to end along one axis, each with scale and zero point of its own."""
    axis = node.int("axis", 0)

    def run(y_scale: Tensor, y_zero: Tensor, *given: Tensor) -> Tensor:
        parts = [_floats(*given[place : place + 3]) for place in range(0, len(given), 3)]
        return requantized(torch.cat(parts, axis), 1 / y_scale, y_zero)

    return run


@operator("QLinearWhere", domain=_MICROSOFT)
def qlinear_where(_node: Node) -> Run:
    """One input or the other, element by element."""

    def run(
        condition: Tensor,
        x: Tensor,
        x_scale: Tensor,
        x_zero: Tensor,
        y: Tensor,
        y_scale: Tensor,
        y_zero: Tensor,
        scale: Tensor,
        zero: Tensor,
    ) -> Tensor:
        chosen = torch.where(condition, _floats(x, x_scale, x_zero), _floats(y, y_scale, y_zero))
        return requantized(chosen, 1 / scale, zero)

    return run


def _floats(x: Tensor, scale: Tensor, zero: Tensor | None = None) -> Tensor:
    steps = x.to(scale.dtype)
    return (steps if zero is None else steps - zero.to(scale.dtype)) * scale


def _by_channels(node: Node, pool: Pool) -> Pool:
    """A pool whose channels are the second axis, or the last one if the node says so."""
    if not node.int("channels_last", 0):
        return pool
    return lambda x: pool(x.movedim(-1, 1)).movedim(1, -1)
