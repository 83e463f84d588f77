"""Elements chosen by what they are: by a condition, by their order, or for being the first of their kind."""

from __future__ import annotations

import torch
from torch import Tensor

from accel.graph.torch_graph.movement import moving
from accel.graph.torch_graph.node import Node
from accel.graph.torch_graph.registry import Run, operator
from accel.graph.torch_graph.unsigned import comparing

_SORTED = 1024
"""Up to this many elements, sorting all of them is as fast as finding the greatest."""


@operator("Compress", since=9)
def compress(node: Node) -> Run:
    """Slices of one axis, or elements, for which a condition holds; what lies beyond the condition is left out."""
    axis = node.int("axis", 0)
    if node.has("axis"):
        return lambda x, condition: x.index_select(axis, condition.nonzero().reshape(-1))
    return lambda x, condition: x.reshape(-1).index_select(0, condition.nonzero().reshape(-1))


@operator("NonZero", since=9)
def nonzero(_node: Node) -> Run:
    """Places of all elements but zeros, [axes, elements] int64, in the order of the tensor."""
    return lambda x: (x != 0).nonzero().T


@operator("TopK", since=10)
def top_k(node: Node) -> Run:
    """The greatest or smallest elements along one axis, and their numbers; of equal ones the first come first."""
    axis, largest = node.int("axis", -1), bool(node.int("largest", 1))
    return lambda x, count: _top(x, int(count), axis, largest=largest)


@operator("TopK", since=1)
def top_k_1(node: Node) -> Run:
    """The greatest elements along one axis, and their numbers; how many, the node says."""
    axis, count = node.int("axis", -1), node.int("k", 1)
    return lambda x: _top(x, count, axis, largest=True)


@operator("Unique", since=11)
def unique(node: Node) -> Run:
    """Elements or slices without those that came before; where each was first, which of them each is, how many of each."""
    axis, ordered = node.int("axis", 0), bool(node.int("sorted", 1))
    flat = not node.has("axis")

    def run(x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        if flat:
            x = x.reshape(-1)
        _, numbers, counts = torch.unique(x.detach(), return_inverse=True, return_counts=True, dim=axis)
        places = torch.arange(len(numbers))
        first = places.new_zeros(len(counts)).scatter_reduce(0, numbers, places, "amin", include_self=False)
        if not ordered:
            order = first.argsort()
            first, counts, numbers = first[order], counts[order], order.argsort()[numbers]
        return x.index_select(axis, first), first, numbers, counts

    return run


@operator("OneHot", since=9)
def one_hot(node: Node) -> Run:
    """A new axis along which one element is on, all others are off; all of them where the number is out of range.

    Gradients reach the two values.
    """
    axis, from_back = node.int("axis", -1), node.version >= 11  # noqa: PLR2004  (of the operator set)

    def run(numbers: Tensor, depth: Tensor, values: Tensor) -> Tensor:
        count = int(depth)
        numbers = numbers.to(torch.int64)
        if from_back:
            numbers = torch.where(numbers < 0, numbers + count, numbers)
        shape = [1] * (numbers.ndim + 1)
        shape[axis] = count
        hot = numbers.unsqueeze(axis) == torch.arange(count, device=numbers.device).reshape(shape)
        return torch.where(hot, values[1], values[0])

    return run


@operator("Binarizer", domain="ai.onnx.ml")
def binarizer(node: Node) -> Run:
    """One where an element is greater than a threshold, zero elsewhere."""
    threshold = node.float("threshold", 0.0)
    return lambda x: (x > threshold).to(x.dtype)


def _top(x: Tensor, count: int, axis: int, *, largest: bool) -> tuple[Tensor, Tensor]:
    places = _order(x.detach(), count, axis, largest)
    return _picked(x, places, axis), places


@comparing
def _order(x: Tensor, count: int, axis: int, largest: bool) -> Tensor:  # noqa: FBT001
    """Numbers of the first elements by their order along an axis."""
    if x.shape[axis] > _SORTED and count < x.shape[axis]:
        # PyTorch's own search is faster, but takes any of equal elements: one more shows if there are such
        values, places = x.topk(count + 1, axis, largest)
        if not (values.narrow(axis, 1, count) == values.narrow(axis, 0, count)).any():
            return places.narrow(axis, 0, count)
    return x.sort(dim=axis, descending=largest, stable=True).indices.narrow(axis, 0, count)


@moving
def _picked(x: Tensor, places: Tensor, axis: int) -> Tensor:
    return x.gather(axis, places)
