"""A graph's nodes in order, each with what it reads and what is no longer needed after it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import onnx_ir as ir
import torch

from accel.errors import TrainingFailed
from accel.graph.torch_graph.node import Body, Mode, Node, Value
from accel.graph.torch_graph.pairs import needless, rounding, rounding_pairs
from accel.graph.torch_graph.registry import Run, build, is_random

_LARGEST_FOLDED = 1 << 24
"""Elements of a result that is worth keeping; what expands beyond is computed each time."""
_ABSENT = -1
_FAILURES = (RuntimeError, TypeError, ValueError, IndexError, NotImplementedError)
"""What PyTorch raises where the inputs of a node do not fit."""


@dataclass(frozen=True, slots=True)
class Step:
    """One node, ready to run."""

    node: Node
    run: Run
    inputs: tuple[int, ...]
    """Places that it reads; behind them those that its sub-graphs read."""
    outputs: tuple[int, ...]
    ended: tuple[int, ...]
    """Places that nothing reads afterwards."""


@dataclass(frozen=True, slots=True)
class Shared:
    """What a graph and its sub-graphs have in common."""

    mode: Mode
    versions: Mapping[str, int]
    """Of the operator sets, by domain."""
    store: dict[ir.Value, torch.Tensor]
    """What is known before anything runs: initialisers, and what follows from them alone."""
    fixed: set[ir.Value]
    """Those of the store that never change."""


class Plan:
    """How one graph is run."""

    def __init__(self, graph: ir.Graph, shared: Shared, inner: Sequence[ir.Value] = ()) -> None:
        """Read a graph; sub-graphs get plans of their own. What is known already is added to the store.

        Args:
            graph: The graph.
            shared: What it has in common with its sub-graphs.
            inner: Values of the graph that are given besides its outputs.

        Raises:
            UnsupportedOperator: A node is not covered; the message names it.
        """
        self._shared = shared
        self._places: dict[ir.Value, int] = {}
        self.captured: list[ir.Value] = []
        """Values of the graphs around this one that it reads while it runs."""
        self._inputs = tuple(self._place(value) for value in graph.inputs)
        inside = set(graph.inputs) | {output for node in graph for output in node.outputs}
        self._pairs = rounding_pairs(graph, self._same)
        skipped = needless(self._pairs, (*graph.outputs, *inner))
        drafts = [draft for node in graph if node not in skipped and (draft := self._draft(node, inside)) is not None]
        self._outputs = tuple(self._read(value, inside) for value in (*graph.outputs, *inner))
        self.steps = tuple(self._with_ends(drafts))
        self._known = tuple((place, value) for value, place in self._places.items() if value in shared.store)
        self._outer = tuple((value, self._places[value]) for value in self.captured)

    def run(self, inputs: Sequence[Value], outer: Mapping[ir.Value, Value]) -> list[Value]:
        """Compute the graph's outputs, and behind them the inner values that are given, too."""
        slots = self._slots()
        for value, place in self._outer:
            slots[place] = outer[value]
        for place, given in zip(self._inputs, inputs, strict=False):
            slots[place] = given
        read = slots.__getitem__
        for step in self.steps:  # what a node costs besides its own arithmetic is here: about a microsecond
            try:
                found = step.run(*map(read, step.inputs))
            except torch.OutOfMemoryError:
                raise
            except _FAILURES as error:
                raise _failure(step.node, error) from error
            if isinstance(found, tuple):
                for place, result in zip(step.outputs, found, strict=False):
                    slots[place] = result
            else:
                slots[step.outputs[0]] = found
            for place in step.ended:
                slots[place] = None
        return [slots[place] for place in self._outputs]

    def apart(self, given: Mapping[str, Value]) -> dict[str, Value]:
        """Compute each node for itself, from values that are given instead of those that the nodes before it gave.

        Args:
            given: Inputs and inner values by name; where one is missing, what its own node gave is taken.

        Returns:
            What each node gave, and what was known before anything ran.
        """
        slots = self._slots()
        found = {value.name or "": slots[place] for place, value in self._known}
        for value, place in self._places.items():
            name = value.name or ""
            if name in given and name not in found:
                slots[place] = given[name]
        for step in self.steps:
            results = _compute(step.node, step.run, [slots[place] for place in step.inputs])
            for value, place, result in zip(step.node.native.outputs, step.outputs, results, strict=False):
                found[value.name or ""] = result
                if value.name not in given:
                    slots[place] = result
        return found

    def _slots(self) -> list[Any]:
        """Where values are while the graph runs: those that are known are there, the others None."""
        slots: list[Any] = [None] * (len(self._places) + 1)  # the last one is what is left out, always None
        for place, value in self._known:
            slots[place] = self._shared.store[value]
        return slots

    def _draft(self, native: ir.Node, inside: set[ir.Value]) -> Step | None:
        """A node; None if its outputs are known already."""
        plans = {
            name: Plan(attribute.as_graph(), self._shared)
            for name, attribute in native.attributes.items()
            if attribute.type == ir.AttributeType.GRAPH
        }
        bodies: dict[str, Body] = {name: plan.run for name, plan in plans.items()}
        version = native.version or self._shared.versions.get(native.domain, 1)
        node = Node(native, version, self._shared.mode, bodies)
        source = self._pairs.get(native)
        run = build(node) if source is None else rounding(source)
        given = native.inputs if source is None else (source.inputs[0], *native.inputs[1:])
        if not bodies and self._folded(node, run, given):
            return None
        inputs = [_ABSENT if value is None else self._read(value, inside) for value in given]
        if bodies:
            captured = tuple(dict.fromkeys(value for plan in plans.values() for value in plan.captured))
            run = _with_outer(run, len(inputs), captured)
            inputs += [self._read(value, inside) for value in captured]
        return Step(node, run, tuple(inputs), tuple(self._place(value) for value in native.outputs), ())

    def _folded(self, node: Node, run: Run, given: Sequence[ir.Value | None]) -> bool:
        """Whether a node's result is known now."""
        native, store, fixed = node.native, self._shared.store, self._shared.fixed
        if native.outputs and all(value in store for value in native.outputs):  # a Constant, which may be trained
            return True
        if any(value is not None and value not in fixed for value in given):
            return False
        if is_random(native.domain, native.op_type):
            return False
        with torch.no_grad():
            results = _compute(node, run, [None if value is None else store[value] for value in given])
        if not all(isinstance(result, torch.Tensor) and result.numel() <= _LARGEST_FOLDED for result in results):
            return False
        for value, result in zip(native.outputs, results, strict=False):
            if isinstance(result, torch.Tensor):
                store[value] = result
                fixed.add(value)
        return True

    def _same(self, one: ir.Value | None, other: ir.Value | None) -> bool:
        """Whether two inputs are one value, or hold the same numbers and are not trained."""
        if one is other or one is None or other is None:
            return one is other
        store, fixed = self._shared.store, self._shared.fixed
        return one in fixed and other in fixed and torch.equal(store[one], store[other])

    def _place(self, value: ir.Value) -> int:
        return self._places.setdefault(value, len(self._places))

    def _read(self, value: ir.Value, inside: set[ir.Value]) -> int:
        if value not in inside and value not in self._shared.store and value not in self.captured:
            self.captured.append(value)
        return self._place(value)

    def _with_ends(self, drafts: Iterable[Step]) -> Iterable[Step]:
        kept, found = set(self._outputs), []
        for step in reversed(list(drafts)):
            read = set(step.inputs) - {_ABSENT}
            ended = tuple(sorted((read | set(step.outputs)) - kept))
            kept |= read
            found.append(replace(step, ended=ended))
        return reversed(found)


def _with_outer(run: Run, inputs: int, captured: tuple[ir.Value, ...]) -> Run:
    """The operator of a node with sub-graphs, given what these read behind the node's own inputs."""
    return lambda *given: run(*given[:inputs], outer=dict(zip(captured, given[inputs:], strict=True)))


def _compute(node: Node, run: Run, given: Sequence[Value]) -> tuple[Value, ...]:
    """One node for itself."""
    try:
        found = run(*given)
    except torch.OutOfMemoryError:
        raise
    except _FAILURES as error:
        raise _failure(node, error) from error
    return found if isinstance(found, tuple) else (found,)


def _failure(node: Node, error: Exception) -> TrainingFailed | MemoryError:
    """What a node's own error is to others."""
    said = str(error).partition("\n")[0][:300]
    if "allocate memory" in said:  # what PyTorch says on a processor
        return MemoryError(said)
    return TrainingFailed(
        f"The node {node.name!r} ({node.operator}) could not be run in PyTorch: {said}",
        hint="Compare the model's inputs with those that it was made for.",
    )
