"""Values read from places that are computed."""

from __future__ import annotations

import torch
from torch import Tensor

from accel.graph.torch_graph.movement import moving
from accel.graph.torch_graph.node import Node
from accel.graph.torch_graph.registry import Run, operator


@operator("Gather")
def gather(node: Node) -> Run:
    """Slices of one axis by their numbers; the axes of the numbers take its place."""
    axis = node.int("axis", 0)

    def run(x: Tensor, places: Tensor) -> Tensor:
        if not places.ndim:
            return x.select(axis, int(places))
        if places.ndim == 1:
            return x.index_select(axis, counted(places, x, axis))
        picked = x.index_select(axis, counted(places.reshape(-1), x, axis))
        first = axis % x.ndim
        return picked.reshape(*x.shape[:first], *places.shape, *x.shape[first + 1 :])

    return run


@operator("GatherElements", since=11)
def gather_elements(node: Node) -> Run:
    """For each place of the result, an element whose number along one axis is given."""
    axis = node.int("axis", 0)
    return moving(lambda x, places: x.gather(axis, counted(places, x, axis)))


@operator("GatherND", domain="com.microsoft")
@operator("GatherND", since=11)
def gather_nd(node: Node) -> Run:
    """Slices by their numbers along several axes, which are the last axis of the places; batch axes are walked together."""
    batch_axes = node.int("batch_dims", 0)

    def run(x: Tensor, places: Tensor) -> Tensor:
        numbers = tuple(places.to(torch.int64).unbind(-1))
        for axis in reversed(range(batch_axes)):
            behind = [1] * (places.ndim - 2 - axis)
            numbers = (torch.arange(x.shape[axis], device=places.device).reshape(-1, *behind), *numbers)
        return x[numbers]

    return run


@operator("ArrayFeatureExtractor", domain="ai.onnx.ml")
def array_feature_extractor(_node: Node) -> Run:
    """Some columns of the last axis."""

    def run(x: Tensor, places: Tensor) -> Tensor:
        picked = x.index_select(-1, counted(places.reshape(-1), x, -1))
        return picked.unsqueeze(0) if picked.ndim == 1 else picked

    return run


def counted(places: Tensor, x: Tensor, axis: int) -> Tensor:
    """Numbers along an axis of a tensor as int64 from the front, where that tensor is.

    Args:
        places: Numbers from the front, or less than zero from the back.
        x: The tensor that they belong to.
        axis: Its axis.
    """
    if places.dtype != torch.int64 or places.device != x.device:
        places = places.to(x.device, torch.int64)
    return torch.where(places < 0, places + x.shape[axis], places)  # looking first would wait for another device
