"""Comparisons, logic, and choices between elements."""

from __future__ import annotations

from math import inf

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812  (as everybody calls it)

from accel.graph.torch_graph.native import native
from accel.graph.torch_graph.node import Node
from accel.graph.torch_graph.registry import Run, operator
from accel.graph.torch_graph.scalar import Scalar
from accel.graph.torch_graph.unsigned import comparing, selecting

native({"Not": torch.logical_not, "IsNaN": torch.isnan, "Where": torch.where})
# Before version 7, attributes told which axes of two tensors belong together.
native(
    {
        "Equal": torch.eq,
        "Greater": comparing(torch.gt),
        "GreaterOrEqual": comparing(torch.ge),
        "Less": comparing(torch.lt),
        "LessOrEqual": comparing(torch.le),
        "And": torch.logical_and,
        "Or": torch.logical_or,
        "Xor": torch.logical_xor,
    },
    since=7,
)


@operator("IsInf")
def is_inf(node: Node) -> Run:
    """Which elements are infinite, of either sign or of one."""
    sought = [sign for sign, name in ((inf, "detect_positive"), (-inf, "detect_negative")) if node.int(name, 1)]

    def run(x: Tensor) -> Tensor:
        wide = x if x.dtype.itemsize > 1 else x.float()
        if len(sought) == 1:
            return torch.eq(wide, sought[0])
        return torch.isinf(wide) if sought else torch.zeros_like(x, dtype=torch.bool)

    return run


@operator("Clip", since=11)
def clip(_node: Node) -> Run:
    """Each element, or the nearer of two limits where it is beyond them."""
    lowest, highest = Scalar(), Scalar()

    def run(x: Tensor, low: Tensor | None = None, high: Tensor | None = None) -> Tensor:
        if low is None and high is None:
            return x
        if x.is_floating_point():
            least = None if low is None else lowest.read(low)
            most = None if high is None else highest.read(high)
            if (least is None) == (low is None) and (most is None) == (high is None):
                return _between(x, least, most)
        return _clamp(x, low, high)

    return run


@operator("Clip", since=1)
def clip_1(node: Node) -> Run:
    """Each element, or the nearer of two limits where it is beyond them; the limits are attributes."""
    least = node.float("min", 0) if node.has("min") else None
    most = node.float("max", 0) if node.has("max") else None
    return lambda x: x if least is None and most is None else _between(x, least, most)


def _between(x: Tensor, least: float | None, most: float | None) -> Tensor:
    """Floats within limits, by the kernel whose gradient is the fastest."""
    if least == 0 and most is None:
        return torch.relu(x)
    if least is not None and most is not None and least <= most:
        return F.hardtanh(x, least, most)
    return torch.clamp(x, least, most)


@selecting
def _clamp(x: Tensor, low: Tensor | None, high: Tensor | None) -> Tensor:
    return torch.clamp(x, low, high)
