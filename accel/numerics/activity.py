"""What the channels of an input are on samples, and what the graph says they should be."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt

from accel.graph.layers import LAYER_OPERATORS
from accel.graph.load import copied
from accel.graph.observe import Observed, Probe, observe

if TYPE_CHECKING:
    import onnx_ir as ir

Array = npt.NDArray[np.generic]
Float64 = npt.NDArray[np.float64]

_PASSING = frozenset({"Cast", "Flatten", "Identity", "Pad", "Reshape", "Slice", "Squeeze", "Transpose", "Unsqueeze"})
"""Operators behind which the values are the same."""
_BATCH_NORM = 5
"""Inputs of a BatchNormalization: data, scale, bias, mean, variance."""


@dataclass(frozen=True, slots=True)
class Moments:
    """Mean and standard deviation of each index of an axis, over everything else."""

    mean: Float64
    spread: Float64

    @property
    def floored(self) -> Float64:
        """The spreads; channels that hardly move get a part of the median, so that they weigh no more than all others."""
        return np.maximum(self.spread, max(1e-2 * float(np.median(self.spread)), 1e-12))

    def distance(self, seen: Moments) -> tuple[float, float]:
        """Medians over channels: how far the other mean is off in these standard deviations, and the ratio of spreads."""
        off = np.abs(seen.mean - self.mean) / self.floored
        ratio = np.maximum(seen.spread, 1e-12) / self.floored
        return float(np.median(off)), float(np.exp(np.median(np.log(ratio))))

    def misfit(self, seen: Moments) -> float:
        """Mean over channels of log(1 + J), J being Jeffreys' divergence between normal distributions; 0 where all fits."""
        first = self.floored
        second = np.maximum(seen.spread, 1e-3 * first)
        shift = np.square(seen.mean - self.mean)
        divergence = ((second**2 + shift) / first**2 + (first**2 + shift) / second**2) / 2 - 1
        return float(np.log1p(np.maximum(divergence, 0.0)).mean())


@dataclass(frozen=True, slots=True)
class Expectation:
    """What a graph says about the channels of a value."""

    value: str
    axis: int | None
    """None where one mean and one spread are for all channels."""
    moments: Moments
    """One entry for each channel, or a single one for all of them."""
    source: str
    """The node that says it."""
    kind: Literal["normalisation", "scale", "batch norm"]
    """A shift and a scale in front of everything, a scale alone (whose mean is 0), or statistics of the training."""


def expectation(model: ir.Model, name: str) -> Expectation | None:
    """What a graph says about the mean and the spread of what it is fed; None where it says nothing.

    Known are a normalisation by constants right behind the input, and the running statistics of a batch norm, the first one
    on the way from the input: those of the training samples at that place.

    Args:
        model: A float graph as it was exported: simplification folds batch norms away.
        name: The input.
    """
    start = next((value for value in model.graph.inputs if value.name == name), None)
    if start is None:
        return None
    return _normalisation(start) or _batch_norm(model.graph, start)


def first_layer(model: ir.Model, name: str) -> ir.Node | None:
    """The layer that gets an input as it is fed; None where something changes the values before, or where it branches."""
    value = next((value for value in model.graph.inputs if value.name == name), None)
    while value is not None:
        node = _only_user(value)
        if node is None or node.inputs[0] is not value:
            return None
        if node.op_type in LAYER_OPERATORS:
            return node
        value = node.outputs[0] if node.op_type in _PASSING else None
    return None


def _only_user(value: ir.Value) -> ir.Node | None:
    users = [use.node for use in value.uses() if use.node.op_type not in {"Shape", "Size"}]
    return users[0] if len(users) == 1 and users[0].graph is value.graph else None


def _normalisation(value: ir.Value) -> Expectation | None:
    from onnx_ir.convenience import get_const_tensor

    node = _only_user(value)
    while node is not None and node.op_type in {"Cast", "Identity"}:
        value = node.outputs[0]
        node = _only_user(value)
    factor, shift = np.ones(1), np.zeros(1)
    source, last = None, value
    while node is not None and node.op_type in {"Add", "Sub", "Mul", "Div"}:
        first = node.inputs[0] is last
        value_of = node.inputs[1 if first else 0]
        other = None if value_of is None else get_const_tensor(value_of)
        if other is None or (node.op_type == "Div" and not first):
            break
        number = other.numpy().astype(np.float64)
        match node.op_type:
            case "Add":
                shift = shift + number
            case "Sub":
                factor, shift = (factor, shift - number) if first else (-factor, number - shift)
            case "Mul":
                factor, shift = factor * number, shift * number
            case _:
                factor, shift = factor / number, shift / number
        source, last = source or node.name or node.op_type, node.outputs[0]
        node = _only_user(last)
    if source is None or (factor == 1).all() or not (factor != 0).all():
        return None
    factor, shift = np.broadcast_arrays(factor, shift)
    long = [axis for axis in range(-factor.ndim, 0) if factor.shape[axis] > 1]
    if len(long) > 1:
        return None
    axis = long[0] if long else None
    moments = Moments((-shift / factor).reshape(-1), np.abs(1 / factor).reshape(-1))
    return Expectation(str(value.name), axis, moments, source, "normalisation" if shift.any() else "scale")


def _batch_norm(graph: ir.Graph, start: ir.Value) -> Expectation | None:
    from onnx_ir.convenience import get_const_tensor

    reached = {start}
    for node in graph:
        if not reached.intersection(value for value in node.inputs if value is not None):
            continue
        if node.op_type == "BatchNormalization" and len(node.inputs) == _BATCH_NORM and node.inputs[0] is not None:
            mean, variance = (None if value is None else get_const_tensor(value) for value in node.inputs[3:])
            if mean is not None and variance is not None:
                epsilon = node.attributes.get_float("epsilon", 1e-5)
                moments = Moments(
                    mean.numpy().astype(np.float64), np.sqrt(variance.numpy().astype(np.float64) + epsilon)
                )
                return Expectation(str(node.inputs[0].name), 1, moments, node.name or node.op_type, "batch norm")
        reached.update(node.outputs)
    return None


@dataclass(frozen=True, slots=True)
class ChannelMeter:
    """A part of a graph that measures the channels of some values."""

    observed: Observed
    probes: dict[str, tuple[Probe, Probe]]

    def measure(self, batches: Iterable[Mapping[str, Array]]) -> dict[str, Moments]:
        """The mean and the spread of every channel; each batch is reduced in the graph.

        Args:
            batches: Inputs of the model, each of as many rows; at least one.

        Raises:
            ValueError: There is no batch.
            RuntimeFailed: The graph does not run on the batches.
        """
        sums: dict[str, tuple[Float64, Float64]] = {}
        count = 0
        for batch in batches:
            found = self.observed.run(batch)
            for name, pair in self.probes.items():
                first, second = (np.atleast_1d(found[probe][0]).astype(np.float64) for probe in pair)
                before = sums.get(name)
                sums[name] = (first, second) if before is None else (before[0] + first, before[1] + second)
            count += 1
        if not count:
            raise ValueError("there is no batch to measure channels on")
        moments = {}
        for name, (first, second) in sums.items():
            mean = first / count
            moments[name] = Moments(mean, np.sqrt(np.maximum(second / count - mean**2, 0.0)))
        return moments


def channel_meter(
    model: ir.Model, values: Mapping[str, int | None], example: Mapping[str, Array], workspace: Path
) -> ChannelMeter:
    """Prepare to measure channels; only the part of the graph that leads to the values is run.

    Args:
        model: A graph; it stays as it was.
        values: For each value of floats (an input, or what a node gives) the axis of its channels; None takes all
            channels together.
        example: Inputs of one batch.
        workspace: Folder for the instrumented graph.

    Raises:
        RuntimeFailed: The graph does not run on the example.
    """
    part, probes = _with_squares(model, values)
    return ChannelMeter(observe(part, [p for pair in probes.values() for p in pair], example, workspace), probes)


def _with_squares(model: ir.Model, values: Mapping[str, int | None]) -> tuple[ir.Model, dict[str, tuple[Probe, Probe]]]:
    """The part of a graph that leads to some values, with their squares."""
    import onnx_ir as ir
    from onnx_ir.passes.common import RemoveUnusedNodesPass

    copy = copied(model)
    graph = copy.graph
    known = {value.name: value for value in (*graph.inputs, *(v for node in graph for v in node.outputs))}
    graph.outputs.clear()
    probes = {}
    for number, (name, axis) in enumerate(values.items()):
        plain = ir.Node("", "Cast", [known[name]], [ir.AttrInt64("to", ir.DataType.FLOAT)])
        squared = ir.Node("", "Mul", [plain.outputs[0], plain.outputs[0]])
        for node, label in ((plain, "plain"), (squared, "squared")):
            node.outputs[0].name = f"accel_{label}_{number}"
            node.outputs[0].type = ir.TensorType(ir.DataType.FLOAT)
            graph.append(node)
            graph.outputs.append(node.outputs[0])
        first, second = (Probe(f"accel_{label}_{number}", "channel_mean", axis) for label in ("plain", "squared"))
        probes[name] = first, second
    RemoveUnusedNodesPass()(copy)
    return copy, probes
