"""Proof that a graph computes in PyTorch what ONNX Runtime computes of it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import onnx_ir as ir
import torch
from onnx_ir.passes.common import ShapeInferencePass
from torch import Tensor

from accel.errors import RuntimeFailed, TrainingFailed
from accel.graph.load import copied
from accel.graph.temporary import opened
from accel.graph.torch_graph.branches import with_branch
from accel.graph.torch_graph.chance import by_chance
from accel.graph.torch_graph.closeness import EDGES, Array, apart, rounded_apart, tolerance, tolerance_of
from accel.graph.torch_graph.dtypes import to_torch, torch_dtype
from accel.graph.torch_graph.graph import TorchGraph, nothing
from accel.graph.torch_graph.node import Value

_D = ir.DataType
_LACKING = frozenset({
    _D.BFLOAT16, _D.INT4, _D.UINT4, _D.INT2, _D.UINT2,
    _D.FLOAT8E4M3FN, _D.FLOAT8E4M3FNUZ, _D.FLOAT8E5M2, _D.FLOAT8E5M2FNUZ,
})  # fmt: skip
"""Types that ONNX Runtime does not hand over as numbers of NumPy: they are cast to float32 in the graph."""
_ROUNDING = frozenset({"QuantizeLinear", "DynamicQuantizeLinear", "DequantizeLinear", "QLinearConv", "QLinearMatMul"})
"""Operators of which a value on the edge may be rounded to the other integer. DequantizeLinear is one of them, as the two
that quantize and dequantize a value are run as one."""
_INTEGER = frozenset({"MatMulInteger", "ConvInteger", "QLinearConv", "QLinearMatMul"})
_HINT = (
    "The fault is not in the model: report the operator with its attributes. Techniques that do not train still work on this "
    "model."
)
_SATURATES = (
    "Without VNNI, ONNX Runtime's integer kernels cut sums of two products to 16 bits, which PyTorch does not: the processor may "
    "be the reason. The graphs of quantize_static are not computed so, and can be trained."
)


@dataclass(frozen=True, slots=True)
class Difference:
    """How far apart one value is in the two runtimes."""

    value: str
    share: float
    """Largest difference, as a share of the largest value; of integers the share of the elements that differ."""
    allowed: float

    @property
    def is_too_large(self) -> bool:
        """Whether it is no matter of rounding."""
        return not self.share <= self.allowed

    def __str__(self) -> str:
        if self.share == math.inf:
            return f"{self.value!r} is of another shape, or not finite in the same places"
        return f"{self.value!r} differs by {self.share:.1e} of its largest value, where {self.allowed:.0e} is allowed"


@dataclass(frozen=True, slots=True)
class Agreement:
    """What a comparison found where the two runtimes agree."""

    outputs: tuple[Difference, ...]
    left_out: tuple[str, ...]
    """Outputs that depend on chance, or are no tensors of numbers."""
    node: Difference | None = None
    """Of the node that differs most by itself, where the model makes more of rounding than the tolerance of its outputs allows."""

    @property
    def largest(self) -> Difference | None:
        """The output that differs most; None where none could be compared."""
        return max(self.outputs, key=_severity, default=None)

    def describe(self) -> str:
        """The largest difference in words, for a report."""
        most = self.largest
        if most is None:
            left_out = ", ".join(map(repr, self.left_out))
            return f"PyTorch and ONNX Runtime were not compared: {left_out} depends on chance, or is no tensor."
        if self.node is None:
            return f"PyTorch computes what ONNX Runtime does: {most}."
        return (
            f"Each node computes in PyTorch what it does in ONNX Runtime: at most, {self.node}. The model makes more of such "
            f"differences: {most}."
        )


def prove(graph: TorchGraph, model: ir.Model, feeds: Mapping[str, Array], workspace: Path) -> Agreement:
    """Run a graph in both runtimes as it is, and compare all outputs.

    If an output differs beyond the tolerances of ``closeness``, every node is compared by itself, from the same inputs. Where
    none differs, the model makes much of little differences, as those with an ill-conditioned formula do, and the two agree.

    Args:
        graph: What was made of the model, on the processor. Nothing of it is changed.
        model: The model, as it is executed.
        feeds: A few rows for each input.
        workspace: Folder for the files that ONNX Runtime loads; they are removed.

    Raises:
        RuntimeFailed: ONNX Runtime does not run the model.
        TrainingFailed: The two do not agree; the message names the first node that differs.
    """
    chance = by_chance(model.graph)
    wanted = [value.name or "" for value in model.graph.outputs if value not in chance]
    expected = _expected(model, wanted, feeds, workspace)
    with _at_rest(graph):
        found = graph(_tensors(model, feeds))
    share = tolerance(model)
    outputs = tuple(
        Difference(name, apart(array, found[name]), max(share, EDGES) if array.dtype.kind in "biu" else share)
        for name, array in expected.items()
    )
    agreement = Agreement(outputs, tuple(name for name in graph.outputs if name not in expected))
    worst = agreement.largest
    if worst is None or not worst.is_too_large:
        return agreement
    return replace(agreement, node=_compared_by_node(worst, graph, model, feeds, workspace))


def _compared_by_node(
    worst: Difference, graph: TorchGraph, model: ir.Model, feeds: Mapping[str, Array], workspace: Path
) -> Difference:
    """The largest difference of a node by itself.

    Raises:
        TrainingFailed: A node differs beyond tolerance, or they cannot be compared one by one.
    """
    said = f"PyTorch and ONNX Runtime do not agree: {worst}."
    try:
        suspect = _suspect(graph, model, feeds, workspace)
    except (RuntimeFailed, TrainingFailed) as error:
        raise TrainingFailed(
            f"{said} At which node it begins could not be found: {error.message}", hint=_HINT
        ) from error
    if suspect.difference.is_too_large:
        hint = _SATURATES if suspect.node.op_type in _INTEGER else _HINT
        raise TrainingFailed(f"{said} It begins at {suspect}: {suspect.difference}.", hint=hint)
    return suspect.difference


@dataclass(frozen=True, slots=True)
class _Suspect:
    """A node, and how far its own result differs where both runtimes give it the same inputs."""

    node: ir.Node
    difference: Difference

    def __str__(self) -> str:
        return f"the node {self.node.name or self.node.outputs[0].name!r} ({self.node.op_type})"


def _suspect(graph: TorchGraph, model: ir.Model, feeds: Mapping[str, Array], workspace: Path) -> _Suspect:
    """The first node that differs, or the one that differs most; within the branch of an If that was taken."""
    model = copied(model)
    ShapeInferencePass()(model)  # for the types of inner values
    chance = by_chance(model.graph)
    wanted = [value.name or "" for node in model.graph for value in node.outputs if value.name and value not in chance]
    expected = _expected(model, wanted, feeds, workspace)
    with _at_rest(graph):
        found = graph.apart(_tensors(model, {**feeds, **expected}))
    suspects = []
    for node in model.graph:
        for value in node.outputs:
            name = value.name or ""
            # A QuantizeLinear that is run as one with its DequantizeLinear gives nothing of its own.
            if name not in expected or name not in found or node.op_type == "Constant":
                continue
            suspect = _Suspect(node, _own_difference(node, value, expected[name], found))
            if not suspect.difference.is_too_large:
                suspects.append(suspect)
                continue
            condition = _condition(node, {**feeds, **expected})
            if condition is None:
                return suspect
            inside = with_branch(model, name, taken=bool(condition))
            deeper = _suspect(TorchGraph(inside, nothing), inside, feeds, workspace)
            return deeper if deeper.difference.is_too_large else suspect
    unseen = [name for name in wanted if name not in expected]
    if unseen or not suspects:
        raise TrainingFailed(f"{unseen[0] if unseen else 'nothing'!r} is no tensor that could be compared.")
    return max(suspects, key=lambda one: _severity(one.difference))


def _condition(node: ir.Node, known: Mapping[str, Array]) -> Array | None:
    """The condition of an If; None of what is none."""
    value = node.inputs[0] if node.op_type == "If" else None
    if value is None:
        return None
    return known.get(value.name or "") if value.const_value is None else value.const_value.numpy()


def _own_difference(node: ir.Node, value: ir.Value, expected: Array, found: Mapping[str, Value]) -> Difference:
    """How far one output of a node differs, the inputs being the same."""
    name = value.name or ""
    own = Difference(name, apart(expected, found.get(name)), tolerance_of(value.dtype))
    if not own.is_too_large or node.op_type not in _ROUNDING:
        return own
    scale = found.get(node.inputs[1].name or "") if node.op_type == "DequantizeLinear" and node.inputs[1] else None
    step = float(scale.abs().max()) if isinstance(scale, Tensor) else 1.0
    return Difference(name, rounded_apart(expected, found.get(name), step), max(EDGES, 1 / max(1, expected.size)))


def _expected(model: ir.Model, names: Sequence[str], feeds: Mapping[str, Array], workspace: Path) -> dict[str, Array]:
    """Values of a graph in ONNX Runtime by name, without those that are no tensors."""
    if not names:
        return {}
    ready, asked = model, list(names)
    inner = set(names) - {value.name for value in model.graph.outputs}
    if inner or any(value.dtype in _LACKING for value in model.graph.outputs):
        ready, asked = _exposed(model, names)
    session = opened(ready, workspace)
    given = {port.name: feeds[port.name] for port in session.inputs if port.name in feeds}
    found = session.run(given, asked)
    return {name: found[key] for name, key in zip(names, asked, strict=True) if _is_numeric(found.get(key))}


def _exposed(model: ir.Model, names: Sequence[str]) -> tuple[ir.Model, list[str]]:
    """A copy that gives inner values, and what each is called there."""
    copy = copied(model)
    graph = copy.graph
    values = {value.name: value for node in graph for value in node.outputs}
    values |= {value.name: value for value in (*graph.inputs, *graph.initializers.values())}
    graph.outputs.clear()
    asked = []
    for name in names:
        value = values[name]
        if value.dtype in _LACKING:
            cast = ir.Node("", "Cast", [value], [ir.AttrInt64("to", _D.FLOAT)])
            graph.append(cast)
            value = cast.outputs[0]
            value.name, value.type = f"accel_float_{name}", ir.TensorType(_D.FLOAT)
        graph.outputs.append(value)
        asked.append(value.name or "")
    return copy, asked


def _tensors(model: ir.Model, arrays: Mapping[str, Array]) -> dict[str, Value]:
    """Inputs and inner values as the graph holds them."""
    values = {value.name: value for node in model.graph for value in node.outputs}
    values |= {value.name: value for value in model.graph.inputs}
    found: dict[str, Value] = {}
    for name, array in arrays.items():
        tensor, dtype = to_torch(ir.tensor(array)), values[name].dtype if name in values else None
        found[name] = tensor.to(torch_dtype(dtype)) if dtype in _LACKING else tensor
    return found


def _is_numeric(array: Array | None) -> bool:
    return array is not None and array.dtype.kind in "biufc"


@contextmanager
def _at_rest(graph: TorchGraph) -> Iterator[None]:
    """A graph that neither drops nor learns statistics, and gets no gradients; as it was when this ends."""
    training, batch_norm = graph.training, graph.mode.batch_norm
    graph.eval()
    graph.mode.batch_norm = "hold"
    try:
        with torch.no_grad():
            yield
    finally:
        graph.train(training)
        graph.mode.batch_norm = batch_norm


def _severity(difference: Difference) -> float:
    return difference.share / difference.allowed
