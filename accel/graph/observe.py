"""Run a graph and see what flows inside it, reduced in the graph itself as far as possible."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt

from accel.context import rows_in
from accel.errors import TechniqueFailed
from accel.graph.load import copied
from accel.graph.temporary import opened
from accel.runtimes.onnxruntime import Session

if TYPE_CHECKING:
    import onnx_ir as ir

Array = npt.NDArray[np.generic]
Reduction = Literal["all", "extremes", "maximum", "sample", "channel_extremes", "channel_mean"]

_SAMPLE = 8192
"""About so many values of a tensor are drawn from each row."""
_START = "accel_sample_start"


@dataclass(frozen=True, slots=True)
class Probe:
    """Something to see of a value on each run.

    ``all`` gives the value; ``extremes`` its minimum and maximum; ``maximum`` the maximum alone; ``sample`` values at even distances, about 8,192 a row;
    ``channel_extremes`` and ``channel_mean`` the same as ``extremes`` and the mean for each index of ``axis``.
    """

    value: str
    reduction: Reduction
    axis: int | None = None


@dataclass(frozen=True, slots=True)
class Observed:
    """A graph with probes in it."""

    session: Session
    outputs: dict[Probe, tuple[str, ...]]

    def run(self, feed: Mapping[str, Array], *, start: int = 0) -> dict[Probe, tuple[Array, ...]]:
        """Run once.

        Args:
            feed: The model's inputs.
            start: Where the samples begin; another one for each run, so that they see all places.
        """
        names = {port.name for port in self.session.inputs}
        given = {name: array for name, array in feed.items() if name in names}
        if _START in names:
            given[_START] = np.array([start], np.int64)
        wanted = [name for outputs in self.outputs.values() for name in outputs]
        found = self.session.run(given, list(dict.fromkeys(wanted)))
        return {probe: tuple(found[name] for name in outputs) for probe, outputs in self.outputs.items()}


def observe(model: ir.Model, probes: Sequence[Probe], example: Mapping[str, Array], workspace: Path) -> Observed:
    """Load a copy of a graph that gives what the probes ask for instead of its outputs.

    Args:
        model: A graph; it stays as it was.
        probes: What to see. Values that are no floats are refused, except by ``all``.
        example: Inputs of one batch, run once to learn ranks and sizes.
        workspace: Folder for the file that the runtime loads; it is removed.

    Raises:
        RuntimeFailed: The graph does not run on the example.
        TechniqueFailed: A value is not made of floats.
    """
    from onnx_ir.passes.common import ShapeInferencePass

    copy = copied(model)
    graph = copy.graph
    values = {value.name: value for value in (*graph.inputs, *(v for node in graph for v in node.outputs))}
    if any(probe.reduction != "all" for probe in probes):
        ShapeInferencePass()(copy)
    open_ones = sorted({probe.value for probe in probes if not _is_known(probe, values[probe.value])})
    ranks, sizes = _shapes(model, open_ones, example, workspace) if open_ones else ({}, {})
    graph.outputs.clear()
    rows = rows_in(example)
    writer = _Writer(graph, copy.opset_imports.get("", 0))
    outputs = {
        probe: writer.write(
            probe,
            values[probe.value],
            ranks.get(probe.value) or _rank(values[probe.value]),
            sizes.get(probe.value, 0),
            rows,
        )
        for probe in dict.fromkeys(probes)
    }
    graph.sort()
    return Observed(_opened(copy, workspace), outputs)


def _is_known(probe: Probe, value: ir.Value) -> bool:
    """Whether the graph itself says what a probe must know of a value, so that no run need tell."""
    import onnx_ir as ir

    if probe.reduction == "all":
        return True
    return probe.reduction != "sample" and value.dtype == ir.DataType.FLOAT and value.shape is not None


def _rank(value: ir.Value) -> int:
    return 0 if value.shape is None else len(value.shape)


def _shapes(
    model: ir.Model, names: Sequence[str], example: Mapping[str, Array], workspace: Path
) -> tuple[dict[str, int], dict[str, int]]:
    copy = copied(model)
    values = {value.name: value for value in (*copy.graph.inputs, *(v for node in copy.graph for v in node.outputs))}
    copy.graph.outputs.clear()
    for name in names:
        copy.graph.outputs.append(values[name])
    session = _opened(copy, workspace)
    taken = {port.name for port in session.inputs}
    found = session.run({name: array for name, array in example.items() if name in taken}, names)
    for name, array in found.items():
        if array.dtype.kind != "f":
            raise TechniqueFailed(f"The value {name!r} holds {array.dtype}, not floats; it cannot be measured.")
    return {name: array.ndim for name, array in found.items()}, {name: array.size for name, array in found.items()}


def _opened(model: ir.Model, workspace: Path) -> Session:
    """Load a graph that belongs to this module alone."""
    from onnx_ir.passes.common import RemoveUnusedNodesPass

    RemoveUnusedNodesPass()(model)  # the runtime would run what nothing asks for
    return opened(model, workspace)


class _Writer:
    """Puts probes into a graph."""

    def __init__(self, graph: ir.Graph, opset: int) -> None:
        self._graph, self._opset = graph, opset
        self._start: ir.Value | None = None

    def write(self, probe: Probe, value: ir.Value, rank: int, size: int, rows: int) -> tuple[str, ...]:
        match probe.reduction:
            case "all":
                return (self._given(self._node("Identity", [value])),)
            case "extremes":
                return tuple(self._given(self._reduced(kind, value, None, rank)) for kind in ("ReduceMin", "ReduceMax"))
            case "maximum":
                return (self._given(self._reduced("ReduceMax", value, None, rank)),)
            case "channel_extremes":
                return tuple(
                    self._given(self._reduced(kind, value, probe.axis, rank)) for kind in ("ReduceMin", "ReduceMax")
                )
            case "channel_mean":
                return (self._given(self._reduced("ReduceMean", value, probe.axis, rank)),)
            case "sample":
                return (self._given(self._sampled(value, size, rows)),)

    def _sampled(self, value: ir.Value, size: int, rows: int) -> ir.Value:
        import onnx_ir as ir

        flat = self._node("Reshape", [value, self._constant(np.array([-1], np.int64))])
        step = size // (_SAMPLE * rows)
        if step <= 1:
            return flat
        step += 1 - step % 2  # odd, so that it falls out of step with widths and channel counts
        if self._start is None:
            self._start = ir.Value(name=_START, shape=ir.Shape([1]), type=ir.TensorType(ir.DataType.INT64))
            self._graph.inputs.append(self._start)
        begin = self._node("Mod", [self._start, self._constant(np.array([step], np.int64))], ir.DataType.INT64)
        end, axes = self._constant(np.array([np.iinfo(np.int64).max])), self._constant(np.array([0], np.int64))
        return self._node("Slice", [flat, begin, end, axes, self._constant(np.array([step], np.int64))])

    def _reduced(self, kind: str, value: ir.Value, axis: int | None, rank: int) -> ir.Value:
        import onnx_ir as ir

        attributes = [ir.AttrInt64("keepdims", 0)]
        inputs = [value]
        if axis is not None:
            axes = [a for a in range(rank) if a != axis % rank]
            if not axes:
                return self._node("Identity", [value])
            if self._opset >= 18:  # noqa: PLR2004  (since when axes are an input)
                inputs.append(self._constant(np.array(axes, np.int64)))
            else:
                attributes.append(ir.AttrInt64s("axes", axes))
        return self._node(kind, inputs, attributes=attributes)

    def _node(
        self,
        operator: str,
        inputs: list[ir.Value],
        dtype: ir.DataType | None = None,
        attributes: Sequence[ir.Attr] = (),
    ) -> ir.Value:
        import onnx_ir as ir

        node = ir.Node("", operator, inputs, list(attributes))
        self._graph.append(node)
        node.outputs[0].name = f"accel_probe_{len(self._graph)}"
        if dtype is not None:
            node.outputs[0].type = ir.TensorType(dtype)
        return node.outputs[0]

    def _constant(self, array: Array) -> ir.Value:
        from accel.graph.prepare import named_constant

        return named_constant(self._graph, f"accel_probe_constant_{len(self._graph.initializers)}", array)

    def _given(self, value: ir.Value) -> str:
        self._graph.outputs.append(value)
        return str(value.name)
