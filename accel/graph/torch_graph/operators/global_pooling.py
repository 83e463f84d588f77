"""Pools over all that a channel holds."""

from __future__ import annotations

import torch
from torch import Tensor

from accel.graph.torch_graph.node import Node
from accel.graph.torch_graph.registry import Run, operator


@operator("GlobalAveragePool")
def global_average_pool(_node: Node) -> Run:
    """Mean of each channel."""

    def run(x: Tensor) -> Tensor:
        axes = tuple(range(2, x.ndim))
        return x.mean(axes, keepdim=True) if axes else x

    return run


@operator("GlobalMaxPool")
def global_max_pool(_node: Node) -> Run:
    """The greatest value of each channel."""

    def run(x: Tensor) -> Tensor:
        axes = tuple(range(2, x.ndim))
        return x.amax(axes, keepdim=True) if axes else x

    return run


@operator("GlobalLpPool", since=2)
def global_lp_pool(node: Node) -> Run:
    """The p-norm of each channel."""
    return _norm(node.int("p", 2))


@operator("GlobalLpPool", since=1)
def global_lp_pool_1(node: Node) -> Run:
    """The p-norm of each channel, for any real p."""
    return _norm(node.float("p", 2.0))


def _norm(order: float) -> Run:
    def run(x: Tensor) -> Tensor:
        return torch.linalg.vector_norm(x, order, tuple(range(2, x.ndim)), keepdim=True) if x.ndim > 2 else x.abs()  # noqa: PLR2004  (batch and channels)

    return run
