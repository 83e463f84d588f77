"""Rewrite layers so that they compute in integers, with activations quantized while the model runs.

A layer becomes ``DynamicQuantizeLinear``, an integer product, and its way back to floats, written in the order of
operands that ONNX Runtime fuses into one kernel (``DynamicQuantizeMatMul``, or ``MatMulIntegerToFloat`` where several
layers read the same input). Only standard operators come out, except for LSTM, whose integer form ONNX does not have.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from accel.errors import TechniqueFailed
from accel.graph.layers import Layer, constant
from accel.graph.prepare import graph_constant
from accel.numerics.scales import (
    PER_TENSOR,
    WEIGHTS,
    Float32,
    Granularity,
    Scheme,
    dequantize,
    noise_db,
    quantize_tensor,
)
from accel.report.quantization import LayerReport

if TYPE_CHECKING:
    import onnx_ir as ir

MICROSOFT = "com.microsoft"
_TABLE = 4096
"""Tables with fewer numbers are not worth the operators that bring their integers back."""
_WEIGHT, _RECURRENCE = 1, 2
"""Positions of the weights among the inputs of an LSTM; the first is also that of a layer's weight."""


@dataclass(frozen=True, slots=True)
class Embedding:
    """A Gather that takes rows out of a constant table of floats."""

    node: ir.Node
    table: Float32
    """[rows, ...]"""

    @property
    def name(self) -> str:
        """The node's name."""
        return str(self.node.name)


def embeddings(graph: ir.Graph) -> list[Embedding]:
    """The Gathers of a prepared graph whose table has 4,096 numbers or more, in order."""
    found = []
    for node in graph:
        if node.op_type != "Gather" or node.domain or node.attributes.get_int("axis", 0) != 0:
            continue
        table = constant(node.inputs[0])
        if table is not None and table.dtype == np.float32 and table.ndim > 1 and table.size >= _TABLE:
            found.append(Embedding(node, table.astype(np.float32, copy=False)))
    return found


def recurrent(graph: ir.Graph) -> list[ir.Node]:
    """The LSTM nodes of a prepared graph that have an integer form: constant float weights, time as the first axis."""
    return [
        node
        for node in graph
        if node.op_type == "LSTM"
        and not node.domain
        and node.attributes.get_int("layout", 0) == 0
        and all(
            (weight := constant(node.inputs[position])) is not None and weight.dtype == np.float32
            for position in (_WEIGHT, _RECURRENCE)
        )
    ]


def rewrite(
    model: ir.Model,
    layers: Sequence[Layer],
    tables: Sequence[Embedding] = (),
    lstms: Sequence[ir.Node] = (),
    *,
    scheme: Scheme = WEIGHTS,
    per_channel: bool = True,
) -> list[LayerReport]:
    """Rewrite nodes of a prepared graph in place, and tell what became of each.

    Args:
        model: The graph.
        layers: Conv, Gemm and MatMul layers; weights of convolutions are symmetric whatever the scheme says.
        tables: Embeddings; each row gets a scale of its own.
        lstms: LSTM nodes, as :func:`recurrent` finds them.
        scheme: Signed integers of 8 bits at most for the weights.
        per_channel: One scale for each output channel instead of one for the tensor.

    Raises:
        TechniqueFailed: A weight holds NaN or infinity.
    """
    writer = _Writer(model.graph, scheme, per_channel)
    weights = [part.node.inputs[_WEIGHT] for part in layers] + [part.node.inputs[0] for part in tables]
    weights += [node.inputs[position] for node in lstms for position in (_WEIGHT, _RECURRENCE)]
    reports = [writer.layer(layer) for layer in layers]
    reports += [writer.embedding(table) for table in tables]
    reports += [writer.lstm(node) for node in lstms]
    if lstms:
        model.opset_imports[MICROSOFT] = 1
    initializers = model.graph.initializers
    for value in weights:
        if value is None or value.uses() or value.is_graph_output():
            continue
        if value.name is not None and value.name in initializers:  # another node may have had it too
            del initializers[value.name]
    return reports


@dataclass(frozen=True, slots=True)
class _Quantized:
    """The values that stand for one of floats."""

    integers: ir.Value
    scale: ir.Value
    zero: ir.Value


@dataclass(frozen=True, slots=True)
class _Weight:
    """A weight among the initializers, and what quantizing did to it."""

    stored: _Quantized
    granularity: Granularity
    scales: tuple[float, float]
    snr_db: float | None

    def report(self, name: str, operator: str, bits: int, *, activation_bits: int | None = 8) -> LayerReport:
        return LayerReport(
            name=name,
            operator=operator,
            weight_bits=bits,
            activation_bits=activation_bits,
            granularity="tensor" if self.granularity.axis is None else "channel",
            weight_scale=self.scales,
            weight_snr_db=self.snr_db,
        )


class _Writer:
    """Writes the integer form of nodes; what several of them read is quantized once."""

    def __init__(self, graph: ir.Graph, scheme: Scheme, per_channel: bool) -> None:  # noqa: FBT001
        self._graph, self._scheme, self._per_channel = graph, scheme, per_channel
        self._symmetric = Scheme(scheme.bits)
        self._activations: dict[ir.Value, _Quantized] = {}
        self._weights: dict[tuple[ir.Value, str], _Weight] = {}

    def layer(self, layer: Layer) -> LayerReport:
        """The integer product, its scale, its bias."""
        import onnx_ir as ir

        node, name = layer.node, layer.name
        activation = self._quantized(layer.input, node)
        weight = self._weight(layer)
        inputs = [activation.integers, weight.stored.integers, activation.zero]
        if layer.operator == "Conv":
            product = ir.Node("", "ConvInteger", inputs, dict(node.attributes), name=f"{name}_integer")
        else:
            product = ir.Node("", "MatMulInteger", [*inputs, weight.stored.zero], name=f"{name}_integer")
        cast = _to_float(product.outputs[0], f"{name}_cast")
        scale = ir.Node("", "Mul", [activation.scale, weight.stored.scale], name=f"{name}_scale")
        result = ir.Node("", "Mul", [cast.outputs[0], scale.outputs[0]], name=f"{name}_scaled")
        nodes = [product, cast, scale, result]
        bias = node.inputs[2] if len(node.inputs) > 2 else None  # noqa: PLR2004
        if bias is not None:
            if layer.operator == "Conv":
                bias = self._along_channels(bias, layer, nodes)
            result = ir.Node("", "Add", [result.outputs[0], bias], name=f"{name}_bias")
            nodes.append(result)
        self._replace(node, nodes, result.outputs[0])
        if layer.operator == "MatMul":
            _bias_last(result.outputs[0])
        return weight.report(name, layer.operator, self._scheme.bits)

    def embedding(self, embedding: Embedding) -> LayerReport:
        """Rows of integers, times the scales of the rows."""
        import onnx_ir as ir

        node, name, table = embedding.node, embedding.name, embedding.table
        rows = (-1, *(1,) * (table.ndim - 1))
        weight = self._store(node.inputs[0], "rows", table, self._symmetric, Granularity(0), rows)
        indices = node.inputs[1]
        integers = ir.Node("", "Gather", [weight.stored.integers, indices], name=f"{name}_integer")
        cast = _to_float(integers.outputs[0], f"{name}_cast")
        scale = ir.Node("", "Gather", [weight.stored.scale, indices], name=f"{name}_scale")
        result = ir.Node("", "Mul", [cast.outputs[0], scale.outputs[0]], name=f"{name}_scaled")
        self._replace(node, [integers, cast, scale, result], result.outputs[0])
        return weight.report(name, "Gather", self._scheme.bits, activation_bits=None)

    def lstm(self, node: ir.Node) -> LayerReport:
        """ONNX Runtime's LSTM with integer weights, which quantizes its input and its state at each step."""
        import onnx_ir as ir

        inputs = list(node.inputs) + [None] * (8 - len(node.inputs))
        weights = [self._gates(inputs[position]) for position in (_WEIGHT, _RECURRENCE)]
        inputs[_WEIGHT], inputs[_RECURRENCE] = (weight.stored.integers for weight in weights)
        made = ir.Node(
            MICROSOFT,
            "DynamicQuantizeLSTM",
            [*inputs, *(part for weight in weights for part in (weight.stored.scale, weight.stored.zero))],
            {name: value for name, value in node.attributes.items() if name != "layout"},
            num_outputs=len(node.outputs),
            name=f"{node.name}_integer",
        )
        for old, new in zip(list(node.outputs), made.outputs, strict=True):
            _take_over(old, new)
        self._graph.insert_before(node, made)
        self._graph.remove(node, safe=True)
        return weights[1].report(str(node.name), "LSTM", self._scheme.bits)

    def _quantized(self, value: ir.Value, reader: ir.Node) -> _Quantized:
        """Quantize an activation in front of the first node that reads it."""
        import onnx_ir as ir

        if value not in self._activations:
            node = ir.Node("", "DynamicQuantizeLinear", [value], num_outputs=3, name=f"{value.name}_quantize")
            for output, part in zip(node.outputs, ("quantized", "scale", "zero_point"), strict=True):
                output.name = f"{value.name}_{part}"
            self._graph.insert_before(reader, node)
            self._activations[value] = _Quantized(*node.outputs)
        return self._activations[value]

    def _weight(self, layer: Layer) -> _Weight:
        value = layer.node.inputs[_WEIGHT]
        axis = layer.channel_axis
        if layer.operator == "Conv":
            granularity = Granularity(axis) if self._per_channel else PER_TENSOR
            shape = (-1, *(1,) * (layer.weight.ndim - 2)) if self._per_channel else None
            return self._store(value, "convolution", layer.weight, self._symmetric, granularity, shape)
        turned = layer.operator == "Gemm" and axis == 0
        array = np.ascontiguousarray(layer.weight.T) if turned else layer.weight
        granularity = Granularity(array.ndim - 1) if self._per_channel else PER_TENSOR
        return self._store(value, "turned" if turned else "straight", array, self._scheme, granularity)

    def _gates(self, value: ir.Value | None) -> _Weight:
        """A weight of an LSTM as [directions, from, gates], with scales [directions, gates], or [directions]."""
        weight = constant(value)
        if weight is None:
            raise ValueError("an LSTM has no constant weight")
        directions, gates, _ = weight.shape
        array = np.ascontiguousarray(weight.astype(np.float32, copy=False).transpose(0, 2, 1))
        # A block as long as the axis: each of the other indices has a scale of its own.
        granularity = Granularity(1, block=array.shape[1]) if self._per_channel else Granularity(0)
        shape = (directions, gates) if self._per_channel else (directions,)
        return self._store(value, "gates", array, self._symmetric, granularity, shape)

    def _store(
        self,
        value: ir.Value | None,
        form: str,
        array: Float32,
        scheme: Scheme,
        granularity: Granularity,
        shape: tuple[int, ...] | None = None,
    ) -> _Weight:
        """Quantize a weight, unless that was done; its scales get the shape that they are used in."""
        if value is None:
            raise ValueError("a weight has no value")
        if (value, form) not in self._weights:
            if not np.isfinite(array).all():
                raise TechniqueFailed(
                    f"The weight {value.name!r} holds numbers that are not finite.",
                    hint="Leave the node that reads it in float, by `exclude`, or repair the model.",
                )
            integers, found = quantize_tensor(array, scheme, granularity)
            scale = found.scale if shape is None else found.scale.reshape(shape)
            # One zero serves all channels of a symmetric scheme, except in an LSTM.
            zero = (
                found.zero_point
                if found.zero_point.any()
                else np.zeros(scale.shape if form == "gates" else (), np.int32)
            )
            self._weights[value, form] = _Weight(
                _Quantized(
                    graph_constant(self._graph, f"{value.name}_quantized", integers),
                    graph_constant(self._graph, f"{value.name}_scale", scale),
                    graph_constant(self._graph, f"{value.name}_zero_point", zero.astype(integers.dtype)),
                ),
                granularity,
                (float(scale.min()), float(scale.max())),
                noise_db(array, dequantize(integers, found, granularity)),
            )
        return self._weights[value, form]

    def _along_channels(self, bias: ir.Value, layer: Layer, nodes: list[ir.Node]) -> ir.Value:
        """The bias of a convolution, in a shape that is added to [batch, channels, *space]."""
        import onnx_ir as ir

        shape = (-1, *(1,) * (layer.weight.ndim - 2))
        if layer.bias is not None:
            return graph_constant(self._graph, f"{layer.name}_bias", layer.bias.reshape(shape))
        wanted = graph_constant(self._graph, f"{layer.name}_bias_shape", np.array(shape, np.int64))
        reshape = ir.Node("", "Reshape", [bias, wanted], name=f"{layer.name}_bias_reshape")
        nodes.append(reshape)
        return reshape.outputs[0]

    def _replace(self, node: ir.Node, nodes: list[ir.Node], result: ir.Value) -> None:
        """Put nodes in the place of one, whose only output ``result`` takes over."""
        old = node.outputs[0]
        for made in nodes:
            for output in made.outputs:
                output.name = f"{made.name}_out"
        _take_over(old, result)
        self._graph.insert_before(node, nodes)
        self._graph.remove(node, safe=True)


def _to_float(value: ir.Value, name: str) -> ir.Node:
    import onnx_ir as ir

    return ir.Node("", "Cast", [value], [ir.AttrInt64("to", int(ir.DataType.FLOAT))], name=name)


def _take_over(old: ir.Value, new: ir.Value) -> None:
    """Give a value the name, the type, the readers, and the place among the outputs of another."""
    name, new.type, new.shape = old.name, old.type, old.shape
    old.replace_all_uses_with(new, replace_graph_outputs=True)
    old.name = None
    new.name = name


def _bias_last(product: ir.Value) -> None:
    """Put the constant second where an Add alone reads a product: there the runtime sees that it is a bias."""
    uses = list(product.uses())
    if len(uses) != 1 or product.is_graph_output():
        return
    node, position = uses[0].node, uses[0].idx
    other = node.inputs[1 - position] if node.op_type == "Add" and not node.domain else None
    if position == 1 and constant(other) is not None:
        node.replace_input_with(0, product)
        node.replace_input_with(1, other)
