"""Pools over windows: the greatest value, the mean or the norm of each, and the way back from the greatest."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from math import prod

import torch
import torch.nn.functional as F  # noqa: N812  (as everybody calls it)
from torch import Tensor

from accel.graph.torch_graph.node import Node
from accel.graph.torch_graph.registry import Run, operator, unsupported
from accel.graph.torch_graph.windows import Sizes, Windows, in_pairs, spread, windows_of

_MEANS: dict[int, Callable[..., Tensor]] = {1: torch.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}
_MAXIMA: dict[int, Callable[..., Tensor]] = {1: torch.max_pool1d, 2: torch.max_pool2d, 3: torch.max_pool3d}
_PLACED_MAXIMA: dict[int, Callable[..., tuple[Tensor, Tensor]]] = {
    1: F.max_pool1d_with_indices,
    2: F.max_pool2d_with_indices,
    3: F.max_pool3d_with_indices,
}
"""PyTorch's kernels, by how many axes a window has."""
_KEPT = 16
"""Shapes that a node's counts are kept for."""


@operator("AveragePool")
def average_pool(node: Node) -> Run:
    """Mean of each window; padding counts only if ``count_include_pad`` is set."""
    windows, rank = _windows(node)
    kernel, strides, padding = windows.kernel, spread(windows.strides, rank), spread(windows.begins, rank)
    include, pool, dilated = bool(node.int("count_include_pad", 0)), _MEANS[rank], max(windows.dilations) > 1
    if _native(windows) and not dilated:
        return lambda x: pool(x, kernel, strides, padding, windows.ceil, include)

    @lru_cache(_KEPT)
    def correction(sizes: Sizes, padded: Sizes, begins: Sizes, ends: Sizes) -> Tensor:
        counted = (begins, ends) if include else ((0,) * rank, (0,) * rank)
        with torch.inference_mode(False):  # what is kept here may be used for training later
            return prod(kernel) / _counts(windows, sizes, padded, begins, counted)

    def run(x: Tensor) -> Tensor:
        begins, ends = windows.padding(x.shape[2:], kernel)
        wide = _padded(windows, x, begins, ends, 0.0)
        mean = _sliding(windows, wide).mean(tuple(range(-rank, 0))) if dilated else pool(wide, kernel, strides)
        return mean * correction(tuple(x.shape[2:]), tuple(wide.shape[2:]), begins, ends).to(mean)

    return run


@operator("LpPool", since=2)
def lp_pool(node: Node) -> Run:
    """The p-norm of each window."""
    return _norm_pool(node, node.int("p", 2))


@operator("LpPool", since=1)
def lp_pool_1(node: Node) -> Run:
    """The p-norm of each window, for any real p."""
    return _norm_pool(node, node.float("p", 2.0))


@operator("MaxPool")
def max_pool(node: Node) -> Run:
    """The greatest value of each window, and where in the input it stands if anything reads that."""
    windows, rank = _windows(node)
    kernel, strides, dilations = windows.kernel, spread(windows.strides, rank), spread(windows.dilations, rank)
    native, padding, pool, placed = _native(windows), spread(windows.begins, rank), _MAXIMA[rank], _PLACED_MAXIMA[rank]
    wanted, by_column = node.wants(1), bool(node.int("storage_order", 0))
    if native and not wanted:

        def run(x: Tensor) -> Tensor:
            if rank == 1 and not x.is_floating_point():  # the one kernel that lacks integers
                return placed(x, kernel, strides, padding, dilations, windows.ceil)[0]
            return pool(x, kernel, strides, padding, dilations, windows.ceil)

        return run

    def search(x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        sizes = x.shape[2:]
        if native:
            y, places = placed(x, kernel, strides, padding, dilations, windows.ceil)
            return y, _within_tensor(places, sizes, sizes, (0,) * rank, by_column=by_column)
        begins, ends = windows.padding(sizes, kernel)
        least = float("-inf") if x.is_floating_point() else torch.iinfo(x.dtype).min
        wide = _padded(windows, x, begins, ends, least)
        y, places = placed(wide, kernel, strides, 0, dilations)
        return (y, _within_tensor(places, wide.shape[2:], sizes, begins, by_column=by_column)) if wanted else y

    return search


@operator("MaxUnpool")
def max_unpool(node: Node) -> Run:
    """Values put back where MaxPool found them, among zeros.

    Places count from the start of the output, as ONNX Runtime has it (onnx/onnx issue 2398), not from the start of the
    smaller one that the kernel alone would give.
    """
    windows, rank = _windows(node)
    strides = spread(windows.strides, rank)

    def run(x: Tensor, places: Tensor, shape: Tensor | None = None) -> Tensor:
        if shape is not None:
            whole: list[int] = shape.tolist()
        else:
            begins, ends = windows.padding(x.shape[2:], windows.kernel)
            steps = zip(x.shape[2:], strides, windows.kernel, begins, ends, strict=True)
            whole = [*x.shape[:2], *((size - 1) * stride + k - begin - end for size, stride, k, begin, end in steps)]
        return x.new_zeros(prod(whole)).scatter(0, places.flatten(), x.flatten()).reshape(whole)

    return run


def _norm_pool(node: Node, order: float) -> Run:
    windows, rank = _windows(node)
    axes = tuple(range(-rank, 0))

    def run(x: Tensor) -> Tensor:
        begins, ends = windows.padding(x.shape[2:], windows.kernel)
        norm: Tensor = torch.linalg.vector_norm(_sliding(windows, _padded(windows, x, begins, ends, 0.0)), order, axes)
        return norm

    return run


def _windows(node: Node) -> tuple[Windows, int]:
    """The windows of a pool, and how many axes they have.

    Raises:
        UnsupportedOperator: They have none, or more than three.
    """
    windows = windows_of(node)
    rank = len(windows.kernel)
    if rank not in _MEANS:
        raise unsupported(node, f"its kernel has {rank} axes; 1, 2 and 3 are covered")
    return windows, rank


def _native(windows: Windows) -> bool:
    """Whether PyTorch's kernels pad as it is needed: evenly, and by no more than half of the kernel."""
    begins = spread(windows.begins, len(windows.kernel))
    return windows.even and all(2 * begin <= size for begin, size in zip(begins, windows.kernel, strict=True))


def _padded(windows: Windows, x: Tensor, begins: Sizes, ends: Sizes, value: float) -> Tensor:
    """An input so padded that its windows cover it to the last element, and no further."""
    sizes, strides = x.shape[2:], spread(windows.strides, len(begins))
    reached = [
        (count - 1) * stride + reach
        for count, stride, reach in zip(
            windows.outputs(sizes, begins, ends), strides, windows.extent(windows.kernel), strict=True
        )
    ]
    behind = [whole - size - begin for whole, size, begin in zip(reached, sizes, begins, strict=True)]
    return F.pad(x, in_pairs(begins, behind), value=value)


def _sliding(windows: Windows, x: Tensor) -> Tensor:
    """The windows of a padded input: [batch, channels, *how many, *kernel], a view."""
    rank = len(windows.kernel)
    for axis, (reach, stride, step) in enumerate(
        zip(windows.extent(windows.kernel), spread(windows.strides, rank), spread(windows.dilations, rank), strict=True)
    ):
        x = x.unfold(2 + axis, reach, stride)[..., ::step]
    return x


def _counts(
    windows: Windows, sizes: Sequence[int], padded: Sequence[int], begins: Sizes, counted: tuple[Sizes, Sizes]
) -> Tensor:
    """How many elements of each window count.

    Args:
        windows: How the kernel moves.
        sizes: Of the input.
        padded: Of the input with its padding, up to where the last window ends.
        begins: Padding before each axis.
        counted: Padding that counts, before and behind each axis.
    """
    rank, counts = len(sizes), torch.ones((), dtype=torch.int64)
    for axis, (size, whole, reach, stride, step) in enumerate(
        zip(
            sizes,
            padded,
            windows.extent(windows.kernel),
            spread(windows.strides, rank),
            spread(windows.dilations, rank),
            strict=True,
        )
    ):
        at = torch.arange(whole).unfold(0, reach, stride)[:, ::step] - begins[axis]
        inside = (at >= -counted[0][axis]) & (at < size + counted[1][axis])
        counts = counts * inside.sum(1).reshape([-1 if place == axis else 1 for place in range(rank)])
    return counts


def _within_tensor(
    places: Tensor, padded: Sequence[int], sizes: Sequence[int], begins: Sizes, *, by_column: bool
) -> Tensor:
    """Places in the padded plane of their channel as places in the whole flat tensor without padding."""
    if by_column or tuple(padded) != tuple(sizes):
        at = [place - begin for place, begin in zip(torch.unravel_index(places, tuple(padded)), begins, strict=True)]
        order = list(zip(at, sizes, strict=True))
        places = torch.zeros_like(places)
        for place, size in reversed(order) if by_column else order:
            places = places * size + place
    planes = torch.arange(prod(places.shape[:2]), device=places.device) * prod(sizes)
    return places + planes.reshape(*places.shape[:2], *[1] * len(sizes))
