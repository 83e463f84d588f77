"""Shapes: reading them, and laying the same values out in another one."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import numpy as np
import torch
from torch import Tensor

from accel.graph.torch_graph.node import Node
from accel.graph.torch_graph.registry import Run, operator


@operator("Shape", since=15)
def shape(node: Node) -> Run:
    """Sizes of some axes, int64."""
    start, end = node.int("start", 0), node.int("end", 0) if node.has("end") else None
    # through NumPy, which reads a tuple in less than half of the time
    return lambda x: torch.from_numpy(np.array(x.shape[start:end], np.int64))


@operator("Shape", since=1)
def shape_1(_node: Node) -> Run:
    """Sizes of all axes, int64."""
    return lambda x: torch.from_numpy(np.array(x.shape, np.int64))


@operator("Size")
def size(_node: Node) -> Run:
    """Number of elements, a scalar of int64."""
    return lambda x: torch.tensor(x.numel())


@operator("Reshape", since=5)
def reshape(node: Node) -> Run:
    """The same values in another shape; -1 is what is left, 0 the size that the axis has unless ``allowzero``."""
    if node.int("allowzero", 0):
        return lambda x, sizes: x.reshape(sizes.tolist())
    return lambda x, sizes: _reshaped(x, sizes.tolist())


@operator("Reshape", since=1)
def reshape_1(node: Node) -> Run:
    """The same values in a shape that the node names."""
    sizes = node.ints("shape")
    return lambda x: _reshaped(x, sizes)


@operator("Flatten")
def flatten(node: Node) -> Run:
    """A matrix: the axes before one of them become its rows, the others its columns."""
    axis = node.int("axis", 1)
    return lambda x: x.reshape(prod(x.shape[:axis]), prod(x.shape[axis:]))


@operator("Squeeze", since=13)
def squeeze(_node: Node) -> Run:
    """Some axes of size one left out; all of them if none is named."""

    def run(x: Tensor, axes: Tensor | None = None) -> Tensor:
        return x.squeeze() if axes is None else _squeezed(x, _several(axes))

    return run


@operator("Squeeze", since=1)
def squeeze_1(node: Node) -> Run:
    """Some axes of size one left out; all of them if the node names none."""
    if not node.has("axes"):
        return torch.squeeze
    axes = node.ints("axes")
    return lambda x: _squeezed(x, axes)


@operator("Unsqueeze", since=13)
def unsqueeze(_node: Node) -> Run:
    """Axes of size one put in; their numbers are those that they have in the result."""
    return lambda x, axes: _unsqueezed(x, _several(axes))


@operator("Unsqueeze", since=1)
def unsqueeze_1(node: Node) -> Run:
    """Axes of size one put in where the node says."""
    axes = node.ints("axes")
    return lambda x: _unsqueezed(x, axes)


@operator("ExpandDims", domain="com.microsoft")
def expand_dims(_node: Node) -> Run:
    """One axis of size one put in."""
    return lambda x, axis: x.unsqueeze(int(axis))


@operator("Transpose")
def transpose(node: Node) -> Run:
    """Axes in another order; the reverse one unless told."""
    if not node.has("perm"):
        return lambda x: x.permute(tuple(reversed(range(x.ndim))))
    order = node.ints("perm")
    return lambda x: x.permute(order)


@operator("Expand", since=8)
def expand(_node: Node) -> Run:
    """Broadcast with a shape: an axis that either has with size one takes the size of the other."""
    return lambda x, sizes: x.expand(_broadcast(x.shape, sizes.tolist()))


@operator("Tile", since=6)
def tile(_node: Node) -> Run:
    """Repeated along each axis."""
    return lambda x, repeats: x.repeat(repeats.tolist())


@operator("Tile", since=1)
def tile_1(_node: Node) -> Run:
    """Repeated along one axis."""

    def run(x: Tensor, tiles: Tensor, axis: Tensor) -> Tensor:
        repeats = [1] * x.ndim
        repeats[int(axis)] = int(tiles)
        return x.repeat(repeats)

    return run


def _reshaped(x: Tensor, sizes: Sequence[int]) -> Tensor:
    if 0 in sizes:
        sizes = [wanted or x.shape[axis] for axis, wanted in enumerate(sizes)]
    return x.reshape(sizes)


def _several(axes: Tensor) -> list[int]:
    """Axes as numbers; one of them may come as a scalar."""
    return axes.tolist() if axes.ndim else [int(axes)]


def _squeezed(x: Tensor, axes: Sequence[int]) -> Tensor:
    for axis in axes:
        if x.shape[axis] != 1:  # PyTorch would leave it as it is
            raise ValueError(f"the axis {axis} of the shape {tuple(x.shape)} is not of size 1")
    return x.squeeze(tuple(axes))


def _unsqueezed(x: Tensor, axes: Sequence[int]) -> Tensor:
    if len(axes) == 1:
        return x.unsqueeze(axes[0])
    rank = x.ndim + len(axes)
    for axis in sorted(axis % rank for axis in axes):
        x = x.unsqueeze(axis)
    return x


def _broadcast(shape: Sequence[int], wanted: Sequence[int]) -> list[int]:
    """What ``Tensor.expand`` takes, which knows -1 for an axis that stays."""
    beyond = len(wanted) - len(shape)
    if beyond < 0:
        return [*shape[:-beyond], *_broadcast(shape[-beyond:], wanted)]
    return [*wanted[:beyond], *(-1 if size == 1 else size for size in wanted[beyond:])]
