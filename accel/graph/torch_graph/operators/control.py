"""Sub-graphs that run under a condition, in a loop, or over the slices or parts of a value."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count

import onnx_ir as ir
import torch
from torch import Tensor

from accel.graph.torch_graph.dtypes import torch_dtype
from accel.graph.torch_graph.node import Node, Value
from accel.graph.torch_graph.registry import Run, operator

Outer = dict[ir.Value, Value]
"""The values of the graphs around a body that it reads."""


@operator("If")
def branch(node: Node) -> Run:
    """One of two graphs."""
    then, otherwise = node.bodies["then_branch"], node.bodies["else_branch"]

    def run(condition: Tensor, *, outer: Outer) -> tuple[Value, ...]:
        return tuple((then if condition else otherwise)((), outer))

    return run


@operator("Loop")
def loop(node: Node) -> Run:
    """A graph that is run again on what it gave: so many times, and as long as a condition holds.

    The condition that the graph gives ends the loop even where the node is given none. The text of the standard
    ignores it there; ONNX Runtime and the standard's own reference do not.
    """
    body = node.bodies["body"]

    def run(trips: Tensor | None, condition: Tensor | None, *carried: Value, outer: Outer) -> tuple[Value, ...]:
        state, scanned = list(carried), _Scanned(node, len(carried) + 1)
        going = torch.tensor(data=True) if condition is None else condition
        for number in count() if trips is None else range(int(trips)):
            if not going:
                break
            going, *found = body((torch.tensor(number), going, *state), outer)  # type: ignore[assignment]
            state = found[: len(carried)]
            scanned.add(found[len(carried) :])
        return (*state, *scanned.stacked())

    return run


@operator("Scan", since=9)
def scan(node: Node) -> Run:
    """A graph that is run on each slice of some tensors, and hands a state on; what else it gives is stacked."""
    body, inputs = node.bodies["body"], node.int("num_scan_inputs", 1)
    axes = node.ints("scan_input_axes", [0] * inputs)
    backwards = node.ints("scan_input_directions", [0] * inputs)
    output_axes, output_backwards = node.ints("scan_output_axes"), node.ints("scan_output_directions")

    def run(*given: Value, outer: Outer) -> tuple[Value, ...]:
        states = len(given) - inputs
        state, scanned = list(given[:states]), _Scanned(node, states)
        for slices in _slices(given[states:], axes, backwards):
            found = body((*state, *slices), outer)
            state = found[:states]
            scanned.add(found[states:])
        return (*state, *scanned.stacked(output_axes, output_backwards))

    return run


@operator("Scan", since=8)
def scan_8(node: Node) -> Run:
    """A graph that is run on each step of sequences [batch, steps, ...], for each of the batch by itself.

    Behind a sequence that is shorter than the others, what is stacked is filled with zeros.
    """
    body, inputs = node.bodies["body"], node.int("num_scan_inputs", 1)
    backwards = node.ints("directions", [0] * inputs)

    def one(given: Sequence[Tensor], states: int, length: int, outer: Outer) -> list[Value]:
        state: list[Value] = list(given[:states])
        scanned = _Scanned(node, states)
        sequences = [x.narrow(0, 0, length) for x in given[states:]]
        for slices in _slices(sequences, [0] * inputs, backwards):
            found = body((*state, *slices), outer)
            state = found[:states]
            scanned.add(found[states:])
        steps = given[-1].shape[0]
        padded = (torch.cat([x, x.new_zeros(steps - length, *x.shape[1:])]) for x in scanned.stacked())
        return [*state, *padded]

    def run(lengths: Tensor | None, *given: Tensor, outer: Outer) -> tuple[Value, ...]:
        batch, steps = given[-1].shape[:2]
        states = len(given) - inputs
        each = [steps] * batch if lengths is None else lengths.tolist()
        found = [one([x[row] for x in given], states, length, outer) for row, length in enumerate(each)]
        return tuple(torch.stack(parts) for parts in zip(*found, strict=True))

    return run


@operator("SequenceMap", since=17)
def sequence_map(node: Node) -> Run:
    """A graph that is run on each part of a sequence; of other sequences it gets the part of the same place."""
    body = node.bodies["body"]

    def run(parts: list[Tensor], *more: Value, outer: Outer) -> tuple[Value, ...]:
        found = [
            body((part, *(other[place] if isinstance(other, list) else other for other in more)), outer)
            for place, part in enumerate(parts)
        ]
        return tuple([results[place] for results in found] for place in range(node.outputs))  # type: ignore[misc]

    return run


class _Scanned:
    """What a body gives besides its state, collected over its runs."""

    def __init__(self, node: Node, first: int) -> None:
        self._declared = node.native.attributes["body"].as_graph().outputs[first:]
        self._found: list[list[Tensor]] = [[] for _ in self._declared]

    def add(self, values: Sequence[Value]) -> None:
        """Keep the values of one run."""
        for kept, value in zip(self._found, values, strict=True):
            kept.append(value)  # type: ignore[arg-type]

    def stacked(self, axes: Sequence[int] = (), backwards: Sequence[int] = ()) -> list[Tensor]:
        """One tensor of each output over all runs, along axes of their own, the last run first where asked."""
        return [
            torch.stack(kept[::-1] if backwards and backwards[place] else kept, axes[place] if axes else 0)
            if kept
            else self._none(place, axes[place] if axes else 0)
            for place, kept in enumerate(self._found)
        ]

    def _none(self, place: int, axis: int) -> Tensor:
        """What no run gave: no slices, of the shape that the file tells; what it leaves open is taken as zero."""
        value = self._declared[place]
        sizes = [size if isinstance(size, int) else 0 for size in value.shape or ()]
        sizes.insert(axis % (len(sizes) + 1), 0)
        return torch.zeros(sizes, dtype=torch.float32 if value.dtype is None else torch_dtype(value.dtype))


def _slices(tensors: Sequence[Value], axes: Sequence[int], backwards: Sequence[int]) -> list[tuple[Tensor, ...]]:
    """Slices of several tensors, walked together."""
    each = [x.unbind(axis) for x, axis in zip(tensors, axes, strict=True)]  # type: ignore[union-attr]
    return list(
        zip(*(parts[::-1] if back else parts for parts, back in zip(each, backwards, strict=True)), strict=True)
    )
