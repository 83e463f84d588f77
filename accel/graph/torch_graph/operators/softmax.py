"""Softmax, its logarithm, and what it would be if the greatest took all."""

from __future__ import annotations

from collections.abc import Callable
from math import prod

import torch
from torch import Tensor

from accel.graph.torch_graph.node import Node
from accel.graph.torch_graph.registry import Run, operator

Along = Callable[[Tensor, int], Tensor]
"""Computes along one axis."""


def _hardmax(x: Tensor, axis: int) -> Tensor:
    """One at the first of the greatest, zeros elsewhere."""
    return torch.zeros_like(x).scatter(axis, x.argmax(axis, keepdim=True), 1.0)


_FUNCTIONS: dict[str, Along] = {"Softmax": torch.softmax, "LogSoftmax": torch.log_softmax, "Hardmax": _hardmax}


def _along(node: Node) -> Run:
    """Along one axis."""
    compute, axis = _FUNCTIONS[node.native.op_type], node.int("axis", -1)
    return lambda x: compute(x, axis)


def _behind(node: Node) -> Run:
    """Over an axis and all behind it together, as it was before version 13."""
    compute, given = _FUNCTIONS[node.native.op_type], node.int("axis", 1)

    def run(x: Tensor) -> Tensor:
        axis = given + x.ndim if given < 0 else given
        if axis == x.ndim - 1:
            return compute(x, axis)
        return compute(x.reshape(prod(x.shape[:axis]), prod(x.shape[axis:])), 1).reshape(x.shape)

    return run


for _name in _FUNCTIONS:
    operator(_name, since=13)(_along)
    operator(_name, since=1)(_behind)
