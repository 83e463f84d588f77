"""Certify what a quantized model does on x86-64 processors without VNNI, layer by layer."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt

from accel.context import Tell, rows_in
from accel.errors import BadDataset
from accel.graph.load import copied
from accel.graph.quantized import quantized_layers
from accel.graph.saturating import Exposure, exposure
from accel.graph.temporary import opened
from accel.numerics.saturation import Bytes, Pairs, pairs_at_risk, safe_in_any_order
from accel.runtimes.onnxruntime import Session

if TYPE_CHECKING:
    import onnx_ir as ir

Array = npt.NDArray[np.generic]
Verdict = Literal["safe", "safe_on_data", "at_risk"]

_DOTS = 2**14
"""Dot products of a channel that are looked at together."""
_ELEMENTS = 2**22
"""Sums of two products that are held at once."""


@dataclass(frozen=True, slots=True)
class LayerCertificate:
    """What one layer does where sums of two products saturate at 16 bits."""

    name: str
    operator: str
    verdict: Verdict
    """``safe``: no input saturates; ``safe_on_data``: none of the samples did; ``at_risk``: some did, or it is unknown."""
    reason: str
    any_order: bool = True
    """Whether it would be safe too for a kernel that pairs other products (of another runtime)."""
    pairs: int = 0
    """Pairs of weights, over all output channels."""
    risky: int = 0
    """Pairs that some input saturates."""
    saturated: Pairs | None = None
    """Pairs that a sample saturated."""
    share: float = 0.0
    """Share of the dot products with at least one pair that saturated, 0 to 1."""
    largest_error: float | None = None
    """Largest change of an output by saturation, relative to the layer's largest output; None where nothing was run."""


@dataclass(frozen=True, slots=True)
class Certificate:
    """What a quantized model does on processors without VNNI."""

    layers: tuple[LayerCertificate, ...]
    samples: int
    """Samples that were looked at; 0 where all layers are safe."""

    def named(self, verdict: Verdict) -> tuple[str, ...]:
        """The layers with this verdict, in the graph's order."""
        return tuple(layer.name for layer in self.layers if layer.verdict == verdict)


def certify(
    model: ir.Model, batches: Iterable[Mapping[str, Array]], workspace: Path, *, tell: Tell = lambda *_: None
) -> Certificate:
    """Say of each quantized layer whether 16-bit sums of processors without VNNI can saturate in it, and whether they do.

    Layers are proved safe from their weights. Of the others the inputs are watched while the model runs, and each pair of
    products that its inputs allow to saturate is computed. Memory is that of the watched inputs of one batch, as bytes.

    Args:
        model: A QDQ graph as :func:`accel.graph.qdq.insert` makes it; it stays as it was.
        batches: Inputs of the model, read as they are needed, and not at all where every layer is safe.
        workspace: Folder for the graph that is run.
        tell: Told of the progress.

    Raises:
        BadDataset: A layer needs samples, and there is none.
    """
    found: dict[str, LayerCertificate | _Watch] = {}
    for layer in quantized_layers(model.graph):
        exposed = exposure(layer)
        found[layer.name] = (
            LayerCertificate(layer.name, layer.node.op_type, "safe", exposed)
            if isinstance(exposed, str)
            else _by_weights(exposed)
        )
    watches = [watch for watch in found.values() if isinstance(watch, _Watch)]
    samples = 0
    if watches:
        session = _watched(model, watches, workspace)
        for batch in batches:
            seen = session.run({port.name: batch[port.name] for port in session.inputs})
            for watch in watches:
                watch.look(seen)
            samples += rows_in(batch)
            tell("certifying", samples, None, "")
        if not samples:
            raise BadDataset("There is no sample to certify on.", hint="Give a dataset with rows in the split `train`.")
    return Certificate(
        tuple(entry.certificate() if isinstance(entry, _Watch) else entry for entry in found.values()), samples
    )


def can_saturate(model: ir.Model) -> frozenset[str]:
    """Names of the layers that are not proved safe by their weights: some input may saturate in them."""
    exposed = {layer.name: exposure(layer) for layer in quantized_layers(model.graph)}
    return frozenset(
        name for name, found in exposed.items() if not isinstance(found, str) and len(pairs_at_risk(found.weights))
    )


def _by_weights(exposed: Exposure) -> LayerCertificate | _Watch:
    """Judge by the weights alone, where that is enough."""
    risky = pairs_at_risk(exposed.weights)
    name, operator, weights = exposed.layer.name, exposed.layer.node.op_type, exposed.weights
    any_order, pairs = safe_in_any_order(weights), len(weights) * (weights.shape[1] // 2)
    if not len(risky):
        return LayerCertificate(
            name, operator, "safe", "No pair of its weights can exceed 16 bits.", any_order=any_order, pairs=pairs
        )
    if not exposed.emulated:
        reason = "Pairs of its weights can exceed 16 bits; with a stack of matrices it is not emulated on samples."
        return LayerCertificate(name, operator, "at_risk", reason, any_order=any_order, pairs=pairs, risky=len(risky))
    return _Watch(exposed, risky, pairs, np.zeros(len(risky), np.bool_))


@dataclass(slots=True)
class _Watch:
    """A layer whose inputs are looked at."""

    exposed: Exposure
    risky: Pairs
    pairs: int
    saturated: npt.NDArray[np.bool_]
    output: tuple[str, str] = ("", "")
    """The names of its lowest and its highest output."""
    hit: int = 0
    dots: int = 0
    largest: float = 0.0
    magnitude: float = 0.0
    reaches: list[npt.NDArray[np.intp]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.reaches = [self.exposed.sources(self.risky, offset)[1] for offset in (0, 1)]

    def look(self, seen: Mapping[str, Array]) -> None:
        """Take in a batch."""
        inputs = _as_unsigned(seen[str(self.exposed.input.name)])
        window = self.exposed.window
        if window is None:
            inputs = inputs.reshape(-1, inputs.shape[-1])
        self.magnitude = max(self.magnitude, *(abs(float(seen[name])) for name in self.output))
        places = math.prod(window.size(inputs.shape[2:])) if window is not None else 1
        self.dots += len(inputs) * places * len(self.exposed.weights)
        if not inputs.size:
            return
        # By the highest value that came in on each channel, most pairs need not be computed.
        highest = np.maximum(
            inputs.max(tuple(axis for axis in range(inputs.ndim) if axis != 1)), self.exposed.zero_point
        )
        (possible,) = np.nonzero(self.risky.can_saturate(*(highest[reach] for reach in self.reaches)))
        chosen = self.risky.where(possible)
        rows = max(1, _DOTS // places)
        for start in range(0, len(inputs), rows):
            block = inputs[start : start + rows]
            for part in chosen.parts(max(1, _ELEMENTS // (len(block) * places))):
                self._compute(block, chosen.where(part), possible[part])

    def _compute(self, inputs: Bytes, pairs: Pairs, number: npt.NDArray[np.intp]) -> None:
        excess = pairs.excess(*(self.exposed.columns(inputs, pairs, offset) for offset in (0, 1)))
        hit: npt.NDArray[np.bool_] = (excess != 0).any(1)
        if not hit.any():
            return
        self.saturated[number] |= hit
        excess, pairs = excess[hit], pairs.where(hit)
        scale = np.broadcast_to(self.exposed.scale, len(self.exposed.weights))
        for channel, own in pairs.channels():
            self.hit += int(np.count_nonzero(excess[own].any(0)))
            self.largest = max(self.largest, float(np.abs(excess[own].sum(0)).max() * scale[channel]))

    def certificate(self) -> LayerCertificate:
        """The verdict after all batches."""
        count = int(self.saturated.sum())
        return LayerCertificate(
            self.exposed.layer.name,
            self.exposed.layer.node.op_type,
            "at_risk" if count else "safe_on_data",
            f"{count} pairs of its weights saturated on the samples."
            if count
            else "Pairs of its weights can exceed 16 bits, and none did on the samples.",
            any_order=False,
            pairs=self.pairs,
            risky=len(self.risky),
            saturated=self.risky.where(self.saturated),
            share=self.hit / self.dots if self.dots else 0.0,
            largest_error=self.largest / self.magnitude if self.magnitude else 0.0,
        )


def _as_unsigned(integers: Array) -> Bytes:
    """Signed bytes plus 128."""
    return (
        integers.view(np.uint8) ^ np.uint8(128) if integers.dtype == np.int8 else integers.astype(np.uint8, copy=False)
    )


def _watched(model: ir.Model, watches: Iterable[_Watch], workspace: Path) -> Session:
    """Load a copy that gives the integers that go into each layer, and the extremes of what comes out."""
    import onnx_ir as ir

    copy = copied(model)
    graph = copy.graph
    values = {value.name: value for value in (*graph.inputs, *(value for node in graph for value in node.outputs))}
    graph.outputs.clear()
    for watch in watches:
        value = values[watch.exposed.input.name]
        value.type = ir.TensorType(ir.DataType.INT8 if watch.exposed.signed else ir.DataType.UINT8)
        if not value.is_graph_output():
            graph.outputs.append(value)
        names = []
        for kind in ("ReduceMin", "ReduceMax"):
            node = ir.Node(
                "", kind, [_visible(values[watch.exposed.layer.node.outputs[0].name])], [ir.AttrInt64("keepdims", 0)]
            )
            node.outputs[0].name = f"accel_{kind}_{len(graph)}"
            node.outputs[0].type = ir.TensorType(ir.DataType.FLOAT)
            graph.append(node)
            graph.outputs.append(node.outputs[0])
            names.append(node.outputs[0].name)
        watch.output = (names[0], names[1])
    return opened(copy, workspace)


def _visible(value: ir.Value) -> ir.Value:
    """A layer's output where reading it leaves the layer in integers: behind its activation and its DequantizeLinear."""
    for operators in ({"Relu", "Clip"}, {"QuantizeLinear"}, {"DequantizeLinear"}):
        users = [use.node for use in value.uses()]
        if len(users) == 1 and users[0].op_type in operators:
            value = users[0].outputs[0]
    return value
