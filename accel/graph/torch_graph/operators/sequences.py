"""Sequences of tensors, which are lists, and optional values, which are None where there is none."""

from __future__ import annotations

import torch
from torch import Tensor

from accel.graph.torch_graph.node import Node, Value
from accel.graph.torch_graph.registry import Run, operator


@operator("SequenceConstruct", since=11)
def sequence_construct(_node: Node) -> Run:
    """A sequence of some tensors."""
    return lambda *parts: list(parts)


@operator("SequenceEmpty", since=11)
def sequence_empty(_node: Node) -> Run:
    """A sequence of none."""
    return list


@operator("SequenceLength", since=11)
def sequence_length(_node: Node) -> Run:
    """Number of tensors, a scalar of int64."""
    return lambda parts: torch.tensor(len(parts))


@operator("SequenceAt", since=11)
def sequence_at(_node: Node) -> Run:
    """One of the tensors, counted from the front, or from the back by a number less than zero."""
    return lambda parts, place: parts[int(place)]


@operator("SequenceInsert", since=11)
def sequence_insert(_node: Node) -> Run:
    """A longer sequence, with a tensor before the one of a place, or behind the last."""

    def run(parts: list[Tensor], part: Tensor, place: Tensor | None = None) -> list[Tensor]:
        where = len(parts) if place is None else _place(int(place), parts, len(parts))
        return [*parts[:where], part, *parts[where:]]

    return run


@operator("SequenceErase", since=11)
def sequence_erase(_node: Node) -> Run:
    """A shorter sequence, without the tensor of a place, or without the last."""

    def run(parts: list[Tensor], place: Tensor | None = None) -> list[Tensor]:
        where = _place(-1 if place is None else int(place), parts, len(parts) - 1)
        return [*parts[:where], *parts[where + 1 :]]

    return run


@operator("ConcatFromSequence", since=11)
def concat_from_sequence(node: Node) -> Run:
    """The tensors end to end along one axis, or side by side along a new one."""
    axis = node.int("axis", 0)
    join = torch.stack if node.int("new_axis", 0) else torch.cat
    return lambda parts: join(parts, axis)


@operator("SplitToSequence", since=11)
def split_to_sequence(node: Node) -> Run:
    """Cut along one axis: into parts of given sizes, of one size as far as it goes, or into single slices."""
    axis, kept = node.int("axis", 0), bool(node.int("keepdims", 1))

    def run(x: Tensor, sizes: Tensor | None = None) -> list[Tensor]:
        if sizes is None:
            return list(torch.split(x, 1, axis) if kept else x.unbind(axis))
        return list(torch.split(x, sizes.tolist(), axis))

    return run


@operator("Optional", since=15)
def optional(_node: Node) -> Run:
    """A value that may be left out."""
    return lambda value=None: value


@operator("OptionalHasElement", since=15)
def optional_has_element(_node: Node) -> Run:
    """Whether there is a value, a scalar of booleans."""
    return lambda value=None: torch.tensor(value is not None)


@operator("OptionalGetElement", since=15)
def optional_get_element(_node: Node) -> Run:
    """The value, which must be there."""

    def run(value: Value) -> Value:
        if value is None:
            raise ValueError("the optional value is empty")
        return value

    return run


def _place(number: int, parts: list[Tensor], last: int) -> int:
    """A place from the front, from zero to ``last``."""
    where = number + len(parts) if number < 0 else number
    if not 0 <= where <= last:
        raise IndexError(f"there is no place {number} in a sequence of {len(parts)} tensors")
    return where
