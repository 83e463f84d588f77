"""Parts of a tensor along its axes, and tensors laid end to end."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from accel.graph.torch_graph.movement import moving
from accel.graph.torch_graph.node import Node
from accel.graph.torch_graph.registry import Run, operator

_ALL = slice(None)
_FAR = -(1 << 62)
"""Farther from the back than any axis is long; PyTorch warns of the least int64, which exporters write for "from the first"."""
_OPEN = frozenset({(1 << 31) - 1, (1 << 63) - 1})
"""What exporters write for "to the last"."""


@operator("Slice", since=10)
def slices(_node: Node) -> Run:
    """From a start to before an end along some axes; both may count from the back, and a step may lead backwards."""

    def run(x: Tensor, starts: Tensor, ends: Tensor, axes: Tensor | None = None, steps: Tensor | None = None) -> Tensor:
        return _sliced(
            x,
            starts.tolist(),
            ends.tolist(),
            None if axes is None else axes.tolist(),
            None if steps is None else steps.tolist(),
        )

    return run


@operator("Slice", since=1)
def slices_1(node: Node) -> Run:
    """From a start to before an end along the axes that the node names."""
    starts, ends = node.ints("starts"), node.ints("ends")
    axes = node.ints("axes") if node.has("axes") else None
    return lambda x: _sliced(x, starts, ends, axes, None)


@operator("Split", since=13)
def split(node: Node) -> Run:
    """Cut into parts of given sizes, or into equal ones; with ``num_outputs``, the last of these may be smaller."""
    return _splitting(node)


@operator("Split", since=1)
def split_1(node: Node) -> Run:
    """Cut into parts of sizes that the node names, or into one equal part for each output."""
    sizes, axis = node.ints("split"), node.int("axis", 0)
    return (lambda x: tuple(torch.split_with_sizes(x, sizes, axis))) if sizes else _splitting(node)


@operator("Concat", since=1)
def concat(node: Node) -> Run:
    """Tensors end to end along one axis."""
    axis = node.int("axis", 1)  # needed since version 4
    return lambda *parts: torch.cat(parts, axis)


@operator("Trilu", domain="com.microsoft")
@operator("Trilu", since=14)
def trilu(node: Node) -> Run:
    """Of each matrix, what lies above a diagonal or below it; the rest is zero."""
    triangle = moving(torch.triu if node.int("upper", 1) else torch.tril)
    return lambda x, diagonal=None: triangle(x, 0 if diagonal is None else int(diagonal))


@operator("ReverseSequence", since=10)
def reverse_sequence(node: Node) -> Run:
    """Each sequence of a batch backwards, up to a length of its own; what lies behind stays."""
    time, batch = node.int("time_axis", 0), node.int("batch_axis", 1)

    def run(x: Tensor, lengths: Tensor) -> Tensor:
        steps = torch.arange(x.shape[time], device=lengths.device).unsqueeze(1)
        order = torch.where(steps < lengths, lengths - 1 - steps, steps)
        turned = x.movedim((time, batch), (0, 1))[order, torch.arange(x.shape[batch])]
        return turned.movedim((0, 1), (time, batch))

    return run


def _splitting(node: Node) -> Run:
    axis, count, uneven = node.int("axis", 0), node.int("num_outputs", node.outputs), node.has("num_outputs")

    def run(x: Tensor, sizes: Tensor | None = None) -> tuple[Tensor, ...]:
        if sizes is not None:
            return tuple(torch.split_with_sizes(x, sizes.tolist(), axis))
        whole = x.shape[axis]
        part = -(-whole // count)
        if whole % count and not uneven:
            raise ValueError(f"the size {whole} of the axis {axis} is no multiple of {count}")
        return tuple(torch.split_with_sizes(x, [*[part] * (count - 1), whole - part * (count - 1)], axis))

    return run


def _sliced(
    x: Tensor, starts: Sequence[int], ends: Sequence[int], axes: Sequence[int] | None, steps: Sequence[int] | None
) -> Tensor:
    chosen = [_ALL] * x.ndim
    for place, (start, end) in enumerate(zip(starts, ends, strict=True)):
        axis = place if axes is None else axes[place]
        step = 1 if steps is None else steps[place]
        if step < 0:
            x = _backwards(x, axis, start, end, step)
        else:
            chosen[axis] = slice(max(start, _FAR), max(end, _FAR), min(step, x.shape[axis] + 1))
    return x[tuple(chosen)]


def _backwards(x: Tensor, axis: int, start: int, end: int, step: int) -> Tensor:
    """A part against the order of its axis, which PyTorch's own slices do not know.

    An end that is open leads to the first element: the standard says so only of the least integer, ONNX Runtime of both.
    """
    size = x.shape[axis]
    first = min(max(start + size if start < 0 else start, 0), size - 1)
    last = -1 if end in _OPEN else min(max(end + size if end < 0 else end, -1), size - 1)
    places = range(first, last, step)
    if not places:
        return x.narrow(axis, 0, 0)
    part = x.narrow(axis, places[-1], places[0] - places[-1] + 1).flip(axis)
    return part[(*[_ALL] * (axis % x.ndim), slice(None, None, -step))]
