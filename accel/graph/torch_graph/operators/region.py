"""Pools over regions of interest."""

from __future__ import annotations

from collections import defaultdict
from functools import reduce
from math import copysign, floor

import torch
import torch.nn.functional as F  # noqa: N812  (as everybody calls it)
from torch import Tensor

from accel.graph.torch_graph.node import Node
from accel.graph.torch_graph.registry import Run, operator, unsupported


@operator("MaxRoiPool")
def max_roi_pool(node: Node) -> Run:
    """The greatest value of each bin of each region; 0 where a bin lies outside the image.

    Source: Girshick 2015, arXiv 1504.08083.
    """
    bins, scale = node.ints("pooled_shape"), node.float("spatial_scale", 1.0)

    def run(x: Tensor, regions: Tensor) -> Tensor:
        pooled = [
            _greatest(x[int(image)], [_rounded(edge * scale) for edge in edges], bins)
            for image, *edges in regions.tolist()
        ]
        return torch.stack(pooled) if pooled else x.new_zeros(0, x.shape[1], *bins)

    return run


@operator("RoiAlign", since=16)
def roi_align(node: Node) -> Run:
    """Mean or greatest value of bins of each region, read between the elements of the image.

    Source: He et al. 2017, arXiv 1703.06870.
    """
    return _align(node, node.string("coordinate_transformation_mode", "half_pixel"))


@operator("RoiAlign", since=10)
def roi_align_10(node: Node) -> Run:
    """The same before regions were shifted by half an element."""
    return _align(node, "output_half_pixel")


def _rounded(edge: float) -> int:
    """The nearest integer; what lies between two goes away from zero, as in C."""
    return int(copysign(floor(abs(edge) + 0.5), edge))


def _greatest(image: Tensor, edges: list[int], bins: tuple[int, ...]) -> Tensor:
    """Pools one region.

    Args:
        image: [channels, height, width].
        edges: Left, top, right, bottom; the last two belong to the region.
        bins: How many, down and across.
    """
    left, top, right, bottom = edges
    height, width = image.shape[1:]
    right, bottom = max(right, left) + 1, max(bottom, top) + 1
    if left >= width or top >= height or right <= 0 or bottom <= 0:
        return image.new_zeros(image.shape[0], *bins)
    region = F.pad(image, [-left, right - width, -top, bottom - height], value=float("-inf"))
    found = F.adaptive_max_pool2d(region, list(bins))
    return found.masked_fill(found == float("-inf"), 0)


def _align(node: Node, coordinates: str) -> Run:
    mode, ratio, scale = node.string("mode", "avg"), node.int("sampling_ratio", 0), node.float("spatial_scale", 1.0)
    bins = (node.int("output_height", 1), node.int("output_width", 1))
    if mode not in {"avg", "max"} or coordinates not in {"half_pixel", "output_half_pixel"}:
        raise unsupported(node, f"its mode {mode!r} or its coordinate_transformation_mode {coordinates!r} is unknown")
    half = coordinates == "half_pixel"

    def run(x: Tensor, regions: Tensor, images: Tensor) -> Tensor:
        wide = torch.promote_types(regions.dtype, torch.float32)  # 16 bits are too few to tell places apart
        corners = regions.to(wide) * scale - (0.5 if half else 0.0)
        starts, sizes = corners[:, [1, 0]], corners[:, [3, 2]] - corners[:, [1, 0]]  # down, then across
        sizes = sizes if half else sizes.clamp_min(1)
        steps = sizes / sizes.new_tensor(bins)
        samples = torch.full_like(steps, ratio) if ratio > 0 else steps.detach().ceil()
        groups: dict[tuple[int, int, int], list[int]] = defaultdict(list)
        for place, (image, (down, across)) in enumerate(zip(images.tolist(), samples.tolist(), strict=True)):
            groups[image, int(down), int(across)].append(place)
        parts, order = [x.new_zeros(0, x.shape[1], *bins)], list[int]()
        for (image, *counts), places in groups.items():
            there = torch.tensor(places, device=x.device)
            order += places
            parts.append(
                _sampled(x[image], starts[there], steps[there], bins, counts, greatest=mode == "max")
                if min(counts) > 0
                else x.new_zeros(len(places), x.shape[1], *bins)
            )
        return torch.cat(parts).to(x.dtype)[torch.tensor(order, dtype=torch.int64, device=x.device).argsort()]

    return run


def _sampled(
    image: Tensor, starts: Tensor, steps: Tensor, bins: tuple[int, int], counts: list[int], *, greatest: bool
) -> Tensor:
    """Pools regions of one image.

    Args:
        image: [channels, height, width].
        starts: Where each region begins, down and across: [regions, 2].
        steps: How large its bins are: [regions, 2].
        bins: How many, down and across.
        counts: Samples of a bin, down and across.
        greatest: Whether to take the greatest of a sample's four weighted neighbours and of a bin's samples, as the
            operator's tests and ONNX Runtime do, or sum and mean.

    Returns:
        [regions, channels, *bins].
    """
    channels, height, width = image.shape
    (top, bottom, above, below), (left, right, before, behind) = (
        _neighbours(starts[:, axis], steps[:, axis], bins[axis], counts[axis], size)
        for axis, size in enumerate((height, width))
    )
    flat, taps = image.reshape(channels, -1), list[Tensor]()
    for rows, down in ((top, above), (bottom, below)):
        for columns, across in ((left, before), (right, behind)):
            at = rows[:, :, None] * width + columns[:, None, :]
            tap = flat.index_select(1, at.flatten()).reshape(channels, *at.shape)
            taps.append(tap * (down[:, :, None] * across[:, None, :]))
    found = reduce(torch.maximum if greatest else torch.add, taps)
    split = found.reshape(channels, -1, bins[0], counts[0], bins[1], counts[1])
    pooled = split.amax((3, 5)) if greatest else split.mean((3, 5))
    return pooled.transpose(0, 1)


def _neighbours(start: Tensor, step: Tensor, bins: int, count: int, size: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The two elements next to each sample along an axis, and how much each counts: each [regions, bins * samples]."""
    inside = (torch.arange(bins * count, device=start.device, dtype=start.dtype) + 0.5) / count
    at = start[:, None] + inside * step[:, None]
    there = (at >= -1) & (at <= size)
    at = at.clamp(0, size - 1)
    low = at.detach().floor().to(torch.int64)
    share = at - low
    return low, (low + 1).clamp_max(size - 1), (1 - share) * there, share * there
