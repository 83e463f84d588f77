"""Values written to places that are computed; what they are written into stays as it was."""

from __future__ import annotations

from collections.abc import Callable
from math import prod

import torch
from torch import Tensor

from accel.graph.torch_graph.movement import moving
from accel.graph.torch_graph.node import Node
from accel.graph.torch_graph.operators.gathering import counted
from accel.graph.torch_graph.registry import Run, operator, unsupported
from accel.graph.torch_graph.unsigned import selecting, wrapping

Write = Callable[[Tensor, int, Tensor, Tensor], Tensor]
"""Tensor, axis, places along it and values, these two of one shape: a copy of the tensor with the values in it."""


def _reduced(name: str) -> Callable[[Tensor, int, Tensor, Tensor], Tensor]:
    return lambda x, axis, places, values: x.scatter_reduce(axis, places, values, name)


_WRITE: dict[str, Write] = {
    "none": moving(lambda x, axis, places, values: x.scatter(axis, places, values)),
    "add": wrapping(lambda x, axis, places, values: x.scatter_add(axis, places, values)),
    "mul": wrapping(_reduced("prod")),
    "max": selecting(_reduced("amax")),
    "min": selecting(_reduced("amin")),
}


@operator("Scatter", since=9)
@operator("ScatterElements", since=11)
def scatter_elements(node: Node) -> Run:
    """Elements written to places whose number along one axis is given."""
    axis, write = node.int("axis", 0), _write(node)
    return lambda x, places, values: write(x, axis, counted(places, x, axis), values)


@operator("ScatterND", since=11)
def scatter_nd(node: Node) -> Run:
    """Slices written to places whose numbers along the first axes are the last axis of the places."""
    write = _write(node)

    def run(x: Tensor, places: Tensor, values: Tensor) -> Tensor:
        axes = places.shape[-1]
        leading, trailing = x.shape[:axes], x.shape[axes:]
        numbers = torch.zeros((), dtype=torch.int64, device=x.device)
        for axis, along in enumerate(places.unbind(-1)):
            numbers = numbers * leading[axis] + counted(along, x, axis)
        width = prod(trailing)
        rows = numbers.reshape(-1, 1).expand(-1, width)
        return write(x.reshape(prod(leading), width), 0, rows, values.reshape(-1, width)).reshape(x.shape)

    return run


@operator("TensorScatter", since=24)
def tensor_scatter(node: Node) -> Run:
    """New steps written into a cache along one axis, from a step on that each row of the batch has of its own."""
    axis, circular = node.int("axis", -2), node.string("mode", "linear") == "circular"
    write = _WRITE["none"]

    def run(cache: Tensor, update: Tensor, starts: Tensor | None = None) -> Tensor:
        along = axis % cache.ndim
        shape = [1] * cache.ndim
        shape[along] = update.shape[along]
        steps = torch.arange(update.shape[along], device=cache.device).reshape(shape)
        if starts is not None:
            steps = steps + starts.to(cache.device).reshape(-1, *[1] * (cache.ndim - 1))
        if circular:
            steps = steps % cache.shape[along]
        return write(cache, along, steps.expand(update.shape), update)

    return run


def _write(node: Node) -> Write:
    reduction = node.string("reduction", "none")
    write = _WRITE.get(reduction)
    if write is None:
        raise unsupported(node, f"its reduction {reduction!r} is unknown")
    return write
