"""Which layers read what a layer writes, through operators that let a scale for each channel pass."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from accel.graph.layers import Layer, constant

if TYPE_CHECKING:
    import onnx_ir as ir

Shapes = Mapping[str, tuple[int | None, ...]]

_ELEMENTWISE = frozenset({"Identity", "LeakyRelu", "PRelu", "Relu"})
"""Operators with f(s x) = s f(x) for every s > 0."""
_POOLS = frozenset({"AveragePool", "GlobalAveragePool", "GlobalMaxPool", "MaxPool"})
_REDUCTIONS = frozenset({"ReduceMax", "ReduceMean", "ReduceSum"})
_FACTORS = frozenset({"Div", "Mul"})
_TERMS = frozenset({"Add", "Sub"})
_MATRIX = 2
"""Axes of a matrix."""
_LOWEST = -3e38
"""What exporters write for a Clip without a bound."""
NORMS = frozenset({"LayerNormalization", "RMSNormalization"})


@dataclass(frozen=True, slots=True)
class Source:
    """A node that can write its channels in another scale, because constants of its own multiply them."""

    node: ir.Node
    channels: int
    axis: int
    """The axis of its output that runs over channels, counted from the end."""
    rank: int | None
    """Rank of its output, where it is known."""
    layer: Layer | None = None


@dataclass(frozen=True, slots=True)
class Reader:
    """A layer that reads the channels."""

    layer: Layer
    spread: int
    """Inputs of the layer that stand for one channel: more than 1 behind a Flatten."""


@dataclass(frozen=True, slots=True)
class Term:
    """A constant that is added to the channels on their way, and has to be scaled with them."""

    node: ir.Node
    position: int
    axis: int


@dataclass(frozen=True, slots=True)
class Bound:
    """A Clip on the way whose upper bound has to be scaled with each channel."""

    node: ir.Node
    upper: float
    axis: int


@dataclass(frozen=True, slots=True)
class Chain:
    """A source, and all that read its channels."""

    source: Source
    readers: tuple[Reader, ...]
    terms: tuple[Term, ...]
    activated: ir.Value
    """The channels behind what directly follows the source: added constants and the activation."""
    bounds: tuple[Bound, ...]
    """What no scale passes unless each channel gets a bound of its own."""
    shifts: bool
    """Whether what is added to a channel of ``activated``, which stays positive, reaches every reader unchanged."""


@dataclass(frozen=True, slots=True)
class Broken:
    """A source whose channels cannot be scaled."""

    source: Source
    reason: str


class _Blocked(Exception):
    """Something that lets no scale pass."""


@dataclass(slots=True)
class _Place:
    """Where the channels are."""

    value: ir.Value
    axis: int
    rank: int | None
    flat: bool = False


@dataclass(slots=True)
class _Walk:
    source: Source
    known: Mapping[ir.Node, Layer]
    shapes: Shapes
    readers: list[Reader] = field(default_factory=list)
    terms: list[Term] = field(default_factory=list)
    bounds: list[Bound] = field(default_factory=list)
    shifts: bool = True

    def follow(self, place: _Place) -> None:
        if place.value.is_graph_output():
            raise _Blocked("the model gives it as an output")
        for node, position in place.value.uses():
            if node.graph is not self.source.node.graph:
                raise _Blocked("a sub-graph reads it")
            layer = self.known.get(node)
            if layer is not None and position == 0:
                self.readers.append(self._reader(layer, place))
            else:
                self.follow(self._passed(node, position, place))

    def _reader(self, layer: Layer, place: _Place) -> Reader:
        node, inputs = layer.node, input_channels(layer)
        if len(node.inputs[1].uses()) > 1:  # type: ignore[union-attr]  # a layer has a weight
            raise _Blocked(f"{layer.name} shares its weight with another layer")
        matrix = layer.operator in {"Gemm", "MatMul"}
        flat_matrix = layer.operator != "MatMul" or layer.weight.ndim == _MATRIX
        fits = place.axis == -1 and flat_matrix if matrix else not place.flat and place.axis == 1 - layer.weight.ndim
        spread, rest = divmod(inputs, self.source.channels)
        if not fits or rest or (spread != 1 and not place.flat):
            raise _Blocked(f"{layer.name} mixes its channels")
        if not matrix and (layer.operator != "Conv" or _padded(node)):
            self.shifts = False
        return Reader(layer, spread)

    def _passed(self, node: ir.Node, position: int, place: _Place) -> _Place:
        """Where the channels are behind a node."""
        operator, output = node.op_type, node.outputs[0]
        after = _Place(output, place.axis, place.rank, place.flat)
        if position == 0 and (operator in _ELEMENTWISE or (operator == "Clip" and self._clips(node, place))):
            return after
        if operator in _FACTORS | _TERMS and self._computes(node, position, place):
            return after
        if position != 0 or place.flat:
            raise _Blocked(f"{operator} reads it")
        if operator in _POOLS or (operator == "Pad" and self._pads(node, place)):
            self.shifts &= operator != "Pad" and (operator != "AveragePool" or not _padded(node))
            return after
        if operator in _REDUCTIONS | {"Squeeze", "Transpose"} and place.rank is not None:
            self.shifts &= operator != "ReduceSum"
            return _moved(node, place, place.rank)
        if operator in {"Flatten", "Reshape"} and self._flattens(node, place):
            return _Place(output, -1, 2, flat=True)
        raise _Blocked(f"{operator} reads it")

    def _clips(self, node: ir.Node, place: _Place) -> bool:
        given = [value for value in node.inputs[1:] if value is not None]
        if any(constant(value) is None for value in given):
            return False
        low, high = (_number(node, position) for position in (1, 2))
        if low is not None and low != 0.0 and low > _LOWEST:
            return False
        if high is None or high >= -_LOWEST:
            return True
        if high <= 0 or place.flat:
            return False
        self.bounds.append(Bound(node, high, place.axis))
        return True

    def _computes(self, node: ir.Node, position: int, place: _Place) -> bool:
        """Whether a constant is added or multiplied; what is added is noted."""
        other = constant(node.inputs[1 - position])
        if other is None or place.flat or (position == 1 and node.op_type in {"Div", "Sub"}):
            return False
        if place.rank is not None and other.ndim > place.rank:
            return False
        if other.ndim >= -place.axis and other.shape[place.axis] not in {1, self.source.channels}:
            return False
        if node.op_type in _TERMS:
            self.terms.append(Term(node, 1 - position, place.axis))
        else:
            self.shifts = False
        return True

    def _pads(self, node: ir.Node, place: _Place) -> bool:
        amounts = constant(node.inputs[1]) if len(node.inputs) > 1 else None
        if amounts is None or place.rank is None or amounts.size != 2 * place.rank or len(node.inputs) > 3:  # noqa: PLR2004
            return False
        value = constant(node.inputs[2]) if len(node.inputs) > 2 and node.inputs[2] is not None else np.zeros(())  # noqa: PLR2004
        return not amounts.reshape(2, -1)[:, place.axis].any() and value is not None and not value.any()

    def _flattens(self, node: ir.Node, place: _Place) -> bool:
        """Whether a row's channels come out one after the other."""
        if place.rank is None or place.axis != 1 - place.rank:
            return False
        if node.op_type == "Flatten":
            return node.attributes.get_int("axis", 1) == 1
        target = constant(node.inputs[1])
        if target is None or target.size != 2:  # noqa: PLR2004
            return False
        if target[0] == 0 and not node.attributes.get_int("allowzero", 0):
            return True
        row = self.shapes.get(str(place.value.name), (None, None))[1:]
        return None not in row and int(target[1]) == math.prod(size or 0 for size in row)


def _moved(node: ir.Node, place: _Place, rank: int) -> _Place:
    """Behind a Transpose, or behind an operator that removes other axes."""
    if node.op_type == "Transpose":
        order = list(node.attributes.get_ints("perm", tuple(reversed(range(rank)))))
        return _Place(node.outputs[0], order.index(place.axis % rank) - rank, rank)
    given = node.attributes.get_ints("axes", ())
    if len(node.inputs) > 1 and node.inputs[1] is not None:
        found = constant(node.inputs[1])
        given = () if found is None else tuple(int(axis) for axis in found)
    axes = {axis % rank for axis in given}
    if not axes or place.axis % rank in axes:
        raise _Blocked(f"{node.op_type} reads it")
    if node.op_type in _REDUCTIONS and node.attributes.get_int("keepdims", 1) != 0:
        return _Place(node.outputs[0], place.axis, rank)
    behind = sum(axis > place.axis % rank for axis in axes)
    return _Place(node.outputs[0], place.axis + behind, rank - len(axes))


def _number(node: ir.Node, position: int) -> float | None:
    found = constant(node.inputs[position]) if len(node.inputs) > position else None
    return None if found is None else float(found.astype(np.float64))


def _padded(node: ir.Node) -> bool:
    automatic = node.attributes.get_string("auto_pad", "NOTSET")
    return any(node.attributes.get_ints("pads", ())) or automatic not in {"NOTSET", "VALID"}


def layer_source(layer: Layer) -> Source:
    """A layer as a source of channels."""
    convolution = layer.operator in {"Conv", "ConvTranspose"}
    rank = layer.weight.ndim if convolution else 2 if layer.operator == "Gemm" else None
    channels = output_channels(layer)
    return Source(layer.node, channels, 1 - layer.weight.ndim if convolution else -1, rank, layer)


def constant_sources(graph: ir.Graph) -> Iterator[Source]:
    """Norms with a scale for each channel, and products with a constant for each channel, in order."""
    for node in graph:
        if node.op_type in NORMS:
            scale = constant(node.inputs[1])
            bias = node.inputs[2] if len(node.inputs) > 2 else None  # noqa: PLR2004
            if scale is not None and scale.ndim == 1 and (bias is None or constant(bias) is not None):
                yield Source(node, scale.size, -1, None)
        elif node.op_type == "Mul":
            for value in node.inputs:
                factor = constant(value)
                if (
                    factor is not None
                    and factor.dtype.kind == "f"
                    and factor.size > 1
                    and factor.size == factor.shape[-1]
                ):
                    yield Source(node, factor.size, -1, None)


def chain(source: Source, known: Iterable[Layer], shapes: Shapes) -> Chain | Broken:
    """Follow the channels of a source to all that read them.

    Args:
        source: Where they are written.
        known: All layers of the graph.
        shapes: Shapes of values as far as they are known; they tell whether a Reshape keeps the channels apart.
    """
    if source.layer is not None and (reason := unfit(source.layer)):
        return Broken(source, reason)
    start = _Place(source.node.outputs[0], source.axis, source.rank)
    walk = _Walk(source, {layer.node: layer for layer in known}, shapes)
    try:
        walk.follow(start)
    except _Blocked as blocked:
        return Broken(source, str(blocked))
    if not walk.readers:
        return Broken(source, "nothing reads it")
    return Chain(
        source=source,
        readers=tuple(walk.readers),
        terms=tuple(walk.terms),
        activated=_activated(start.value),
        bounds=tuple(walk.bounds),
        shifts=walk.shifts,
    )


def unfit(layer: Layer) -> str:
    """Why the weights of a layer cannot be scaled; empty where they can."""
    bias = layer.node.inputs[2] if len(layer.node.inputs) > 2 else None  # noqa: PLR2004
    if bias is not None and (layer.bias is None or layer.bias.size not in {1, output_channels(layer)}):
        return "its bias is not a constant for each channel"
    if len(layer.node.inputs[1].uses()) > 1:  # type: ignore[union-attr]  # a layer has a weight
        return "it shares its weight with another layer"
    return "its weight has more than two axes" if layer.operator == "MatMul" and layer.weight.ndim > _MATRIX else ""


def _activated(value: ir.Value) -> ir.Value:
    while len(users := tuple(value.uses())) == 1 and not value.is_graph_output():
        node: ir.Node = users[0].node
        if node.op_type in _ELEMENTWISE | {"Clip"}:
            return node.outputs[0]
        if node.op_type not in _TERMS or all(constant(part) is None for part in node.inputs):
            break
        value = node.outputs[0]
    return value


def output_channels(layer: Layer) -> int:
    """How many channels a layer writes."""
    size = int(layer.weight.shape[layer.channel_axis])
    return size * layer.group if layer.operator == "ConvTranspose" else size


def input_channels(layer: Layer) -> int:
    """How many channels, or inputs, a layer reads."""
    match layer.operator:
        case "Conv":
            return int(layer.weight.shape[1]) * layer.group
        case "ConvTranspose":
            return int(layer.weight.shape[0])
        case _:
            return int(layer.weight.shape[layer.weight.ndim - 1 if layer.channel_axis == 0 else layer.weight.ndim - 2])


def known_shapes(model: ir.Model) -> dict[str, tuple[int | None, ...]]:
    """Shapes of the values of a graph as far as ONNX infers them; None stands for an open axis."""
    import onnx
    import onnx_ir as ir

    inferred = onnx.shape_inference.infer_shapes(ir.to_proto(model), data_prop=True).graph
    return {
        value.name: tuple(
            dim.dim_value if dim.HasField("dim_value") else None for dim in value.type.tensor_type.shape.dim
        )
        for value in (*inferred.value_info, *inferred.input)
    }
