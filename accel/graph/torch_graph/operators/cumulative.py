"""Sums and products of all that stands before each element of an axis."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from accel.graph.torch_graph.node import Node
from accel.graph.torch_graph.registry import Run, operator
from accel.graph.torch_graph.unsigned import wrapping


@operator("CumSum")
def cumulative_sum(node: Node) -> Run:
    """Sum of the elements up to each."""
    return _cumulative(node, torch.cumsum, 0)


@operator("CumProd")
def cumulative_product(node: Node) -> Run:
    """Product of the elements up to each."""
    return _cumulative(node, torch.cumprod, 1)


def _cumulative(node: Node, compute: Callable[..., Tensor], neutral: int) -> Run:
    """Along the axis that the second input tells; without the element itself if ``exclusive``, from the end if ``reverse``."""
    exclusive, reverse = bool(node.int("exclusive", 0)), bool(node.int("reverse", 0))

    @wrapping
    def along(x: Tensor, axis: int) -> Tensor:
        if reverse:
            x = x.flip(axis)
        if exclusive and x.shape[axis]:
            first = torch.full_like(x.narrow(axis, 0, 1), neutral)
            x = torch.cat([first, x.narrow(axis, 0, x.shape[axis] - 1)], axis)
        y = compute(x, axis, dtype=x.dtype)
        return y.flip(axis) if reverse else y

    return lambda x, axis: along(x, int(axis.item()))
