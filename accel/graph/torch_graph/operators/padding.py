"""Padding and cutting at the ends of axes."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F  # noqa: N812  (as everybody calls it)
from torch import Tensor

from accel.graph.torch_graph.node import Node
from accel.graph.torch_graph.registry import Run, operator, unsupported
from accel.graph.torch_graph.windows import in_pairs

Fill = Callable[[Tensor, Sequence[int], Sequence[int], "Tensor | float"], Tensor]
"""Pads: a tensor, what is added before and behind each of its axes (less than zero cuts), the value of what is new."""
_NATIVE_RANKS = (3, 4, 5)
_NATIVE = {"reflect": "reflect", "edge": "replicate"}
"""What PyTorch has kernels for, where batch and channels are not padded."""


@operator("Pad", since=11)
def pad(node: Node) -> Run:
    """What ``pads`` says is added to each axis, or cut off where it is negative."""
    fill = _fill(node)

    def run(x: Tensor, pads: Tensor, value: Tensor | None = None, axes: Tensor | None = None) -> Tensor:
        amounts = pads.tolist()
        half = len(amounts) // 2
        begins, ends = amounts[:half], amounts[half:]
        if axes is not None:
            begins, ends = _placed(x.ndim, axes.tolist(), begins), _placed(x.ndim, axes.tolist(), ends)
        return fill(x, begins, ends, 0.0 if value is None or value.numel() == 0 else value.reshape(()))

    return run


@operator("Pad", since=2)
def pad_2(node: Node) -> Run:
    """Padding by attributes."""
    return _by_attributes(node, node.ints("pads"))


@operator("Pad", since=1)
def pad_1(node: Node) -> Run:
    """Padding by attributes, with the first name of the amounts."""
    return _by_attributes(node, node.ints("paddings"))


@operator("CenterCropPad", since=18)
def center_crop_pad(node: Node) -> Run:
    """The middle of an input, or the input in the middle of zeros."""
    given = node.ints("axes")

    def run(x: Tensor, shape: Tensor) -> Tensor:
        begins, ends = [0] * x.ndim, [0] * x.ndim
        for axis, goal in zip(given or range(x.ndim), shape.tolist(), strict=True):
            more = goal - x.shape[axis]
            begins[axis] = more // 2 if more > 0 else -(-more // 2)
            ends[axis] = more - begins[axis]
        return F.pad(x, in_pairs(begins, ends))

    return run


def _by_attributes(node: Node, pads: tuple[int, ...]) -> Run:
    fill, value, half = _fill(node), node.float("value", 0.0), len(pads) // 2
    return lambda x: fill(x, pads[:half], pads[half:], value)


def _fill(node: Node) -> Fill:
    mode = node.string("mode", "constant")
    if mode == "constant":
        return _constant
    indices = {"reflect": _reflected, "edge": _clamped, "wrap": _wrapped}.get(mode)
    if indices is None:
        raise unsupported(node, f"its mode {mode!r} is unknown")
    native = _NATIVE.get(mode)

    def fill(x: Tensor, begins: Sequence[int], ends: Sequence[int], _: Tensor | float) -> Tensor:
        if native is not None and x.ndim in _NATIVE_RANKS and x.is_floating_point() and _fits(x, begins, ends):
            return F.pad(x, in_pairs(begins[2:], ends[2:]), native)
        for axis, (begin, end) in enumerate(zip(begins, ends, strict=True)):
            if begin or end:
                # What is cut is cut first: what is new is made of what is left.
                kept = x.narrow(axis, max(0, -begin), x.shape[axis] + min(0, begin) + min(0, end))
                size = kept.shape[axis]
                at = torch.arange(-max(0, begin), size + max(0, end), device=x.device)
                x = kept.index_select(axis, indices(at, size))
        return x

    return fill


def _fits(x: Tensor, begins: Sequence[int], ends: Sequence[int]) -> bool:
    """Whether PyTorch's kernels take such padding: of none but spatial axes, of each less than it is long, no cut."""
    amounts = list(zip(x.shape, begins, ends, strict=True))
    return not any(begin or end for _, begin, end in amounts[:2]) and all(
        0 <= begin < size and 0 <= end < size for size, begin, end in amounts[2:]
    )


def _constant(x: Tensor, begins: Sequence[int], ends: Sequence[int], value: Tensor | float) -> Tensor:
    pairs = in_pairs(begins, ends)
    if not isinstance(value, torch.Tensor):
        return F.pad(x, pairs, value=value)
    if not value.requires_grad:
        return F.pad(x, pairs, value=value.item())
    inside = F.pad(torch.ones_like(x, dtype=torch.bool), pairs, value=False)
    return torch.where(inside, F.pad(x, pairs), value)


def _reflected(at: Tensor, size: int) -> Tensor:
    period = max(1, 2 * (size - 1))
    at = at % period
    return torch.minimum(at, period - at)


def _clamped(at: Tensor, size: int) -> Tensor:
    return at.clamp(0, size - 1)


def _wrapped(at: Tensor, size: int) -> Tensor:
    return at % size


def _placed(rank: int, axes: Sequence[int], amounts: Sequence[int]) -> list[int]:
    """Amounts of some axes as amounts of all."""
    found = [0] * rank
    for axis, amount in zip(axes, amounts, strict=True):
        found[axis] = amount
    return found
