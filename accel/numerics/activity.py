"""What single channels do on samples, what the graph says they should do, and which of them serve for nothing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt

from accel.graph.layers import LAYER_OPERATORS, Layer, constant
from accel.graph.observe import Observed, Probe, observe
from accel.numerics.scales import ACTIVATIONS
from accel.report_quantization import Finding

if TYPE_CHECKING:
    import onnx_ir as ir

Array = npt.NDArray[np.generic]
Float64 = npt.NDArray[np.float64]

_STEPS = 4
"""A channel that a shared scale leaves fewer steps than this has little left of its shape."""
_NAMED = 10
_PASSING = frozenset({"Cast", "Flatten", "Identity", "Pad", "Reshape", "Slice", "Squeeze", "Transpose", "Unsqueeze"})
"""Operators behind which the values are the same."""
_BATCH_NORM = 5
"""Inputs of a BatchNormalization: data, scale, bias, mean, variance."""
_MANY = {"dead_channels": 0.9, "saturated_channels": 0.25, "uneven_channels": 0.25}
"""Share of a layer's channels from where a person should look; half of a squeeze layer is dead in many good models."""


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


@dataclass(frozen=True, slots=True)
class _Counted:
    """How many channels of a layer are in some state."""

    name: str
    channels: int
    of: int

    @property
    def share(self) -> float:
        return self.channels / self.of


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

    copy = ir.from_proto(ir.to_proto(model))
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


def channel_activity(
    model: ir.Model, layers: Sequence[Layer], batches: Iterable[Mapping[str, Array]], workspace: Path
) -> tuple[Finding, ...]:
    """Find channels that are dead, saturated, or too small for the scale that they share with their layer.

    The smallest and the largest value of each channel are kept, so that memory does not grow with the samples. A row costs
    about twice as much as running the model on it; some 16 to 32 rows tell enough.

    Args:
        model: A prepared float graph.
        layers: Layers of this graph; what comes out of each after its Relu or Clip is looked at.
        batches: Inputs of the model.
        workspace: Folder for the instrumented graph.
    """
    probes = {layer.name: Probe(str(layer.output.name), "channel_extremes", _axis(layer)) for layer in layers}
    observed: Observed | None = None
    seen: dict[str, tuple[Float64, Float64]] = {}
    samples = 0
    for batch in batches if probes else ():
        observed = observed or observe(model, list(probes.values()), batch, workspace)
        found = observed.run(batch)
        for name, probe in probes.items():
            low, high = (part.astype(np.float64) for part in found[probe])
            before = seen.get(name)
            seen[name] = (low, high) if before is None else (np.minimum(before[0], low), np.maximum(before[1], high))
        samples += max((len(array) for array in batch.values() if array.ndim), default=1)
    dead: list[_Counted] = []
    saturated: list[_Counted] = []
    weak: list[_Counted] = []
    for layer in layers:
        if layer.name not in seen or not all(np.isfinite(part).all() for part in seen[layer.name]):
            continue
        low, high = seen[layer.name]
        bound = _upper_bound(layer)
        full = np.zeros(low.shape, bool) if bound is None else low >= bound
        still = (high == low) & ~full
        step = (max(float(high.max()), 0.0) - min(float(low.min()), 0.0)) / (ACTIVATIONS.high - ACTIVATIONS.low)
        small = (high - low < _STEPS * step) & ~still & ~full
        for states, state in ((dead, still), (saturated, full), (weak, small)):
            states.append(_Counted(layer.name, int(state.sum()), state.size))
    return tuple(
        finding
        for finding in (
            _finding(
                "dead_channels",
                dead,
                f"never changed on {samples} samples",
                "They cost time and space for nothing: prune them. Where most of a layer is dead, look at the preprocessing"
                " of the samples first, and use more of them.",
            ),
            _finding(
                "saturated_channels",
                saturated,
                f"were at the upper bound of their Clip all the time on {samples} samples",
                "What is fed is probably larger than the model was trained on: compare the scaling of the samples with"
                " that of the training.",
            ),
            _finding(
                "uneven_channels",
                weak,
                f"have fewer than {_STEPS} of the 256 steps of the scale that they share with their layer"
                f" ({samples} samples)",
                "Put `equalize` before this step, or leave these layers in float with `exclude`, if the accuracy is not"
                " good enough.",
            ),
        )
        if finding is not None
    )


def _axis(layer: Layer) -> int:
    return 1 if layer.operator in {"Conv", "ConvTranspose"} else -1


def _upper_bound(layer: Layer) -> float | None:
    """Where the Clip behind a layer cuts; None where there is none."""
    node = layer.output.producer()
    if node is None or node.op_type != "Clip" or len(node.inputs) < 3:  # noqa: PLR2004  (data, min, max)
        return None
    bound = constant(node.inputs[2])
    return None if bound is None else float(bound.reshape(()))


def _finding(code: str, counted: Sequence[_Counted], what: str, hint: str) -> Finding | None:
    """One finding for all layers, with the worst of them by name; None where no channel is concerned."""
    concerned = sorted((c for c in counted if c.channels), key=lambda c: (-c.share, -c.channels, c.name))
    if not concerned:
        return None
    named = ", ".join(f"{c.name} ({c.channels} of {c.of})" for c in concerned[:_NAMED])
    more = f" and {len(concerned) - _NAMED} more layers" if len(concerned) > _NAMED else ""
    channels, of = sum(c.channels for c in concerned), sum(c.of for c in counted)
    return Finding(
        code=code,
        severity="warning" if concerned[0].share >= _MANY[code] else "info",
        message=f"{channels:,} of {of:,} channels {what}: {named}{more}.",
        hint=hint,
    )
