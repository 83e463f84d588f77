"""Blocks of an image as channels or columns, and back."""

from __future__ import annotations

from math import prod

import torch
from torch import Tensor

from accel.graph.torch_graph.node import Node
from accel.graph.torch_graph.registry import Run, operator
from accel.graph.torch_graph.windows import spread, windows_of


@operator("DepthToSpace")
def depth_to_space(node: Node) -> Run:
    """Channels [batch, channels, height, width] laid out as blocks of the image.

    In the mode ``DCR`` the place in a block is the slow part of a channel's number, in ``CRD`` the fast one.
    """
    block, fast = node.int("blocksize", 1), node.string("mode", "DCR") == "CRD"
    order = (0, 1, 4, 2, 5, 3) if fast else (0, 3, 4, 1, 5, 2)

    def run(x: Tensor) -> Tensor:
        batch, channels, height, width = x.shape
        kept = channels // block**2
        places = (kept, block, block) if fast else (block, block, kept)
        parts = x.reshape(batch, *places, height, width).permute(order)
        return parts.reshape(batch, kept, height * block, width * block)

    return run


@operator("SpaceToDepth")
def space_to_depth(node: Node) -> Run:
    """Blocks of the image [batch, channels, height, width] laid out as channels; the inverse of DepthToSpace."""
    block, fast = node.int("blocksize", 1), node.string("mode", "DCR") == "CRD"
    order = (0, 1, 3, 5, 2, 4) if fast else (0, 3, 5, 1, 2, 4)

    def run(x: Tensor) -> Tensor:
        batch, channels, height, width = x.shape
        high, wide = height // block, width // block
        parts = x.reshape(batch, channels, high, block, wide, block).permute(order)
        return parts.reshape(batch, channels * block**2, high, wide)

    return run


@operator("Col2Im", since=18)
def col2im(node: Node) -> Run:
    """The sum of columns [batch, channels * block, blocks], each laid where its window lies in an image of any rank."""
    windows = windows_of(node)

    def run(x: Tensor, image: Tensor, block: Tensor) -> Tensor:
        sizes, kernel = image.tolist(), block.tolist()
        rank = len(sizes)
        begins, ends = spread(windows.begins, rank), spread(windows.ends, rank)
        strides, dilations = spread(windows.strides, rank), spread(windows.dilations, rank)
        padded = [size + begin + end for size, begin, end in zip(sizes, begins, ends, strict=True)]
        places = torch.zeros((), dtype=torch.int64)
        for axis, (size, length, stride, gap) in enumerate(zip(padded, kernel, strides, dilations, strict=True)):
            corners = torch.arange(0, size - (length - 1) * gap, stride)
            along = (torch.arange(length) * gap).unsqueeze(1) + corners
            # axes of the block first, those of the windows behind them
            shape = [1] * (2 * rank)
            shape[axis], shape[rank + axis] = along.shape
            places = places * size + along.reshape(shape)
        columns = x.reshape(x.shape[0], x.shape[1] // prod(kernel), places.numel())
        summed = columns.new_zeros(*columns.shape[:2], prod(padded)).index_add(
            2, places.reshape(-1).to(x.device), columns
        )
        y = summed.reshape(*columns.shape[:2], *padded)
        for axis, (begin, size) in enumerate(zip(begins, sizes, strict=True), start=2):
            y = y.narrow(axis, begin, size)
        return y

    return run
