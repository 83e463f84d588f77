"""Let a graph compute in float16, except where 16 bits have too little range."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING

import numpy as np

from accel.graph.layers import constant
from accel.graph.narrow import narrow
from accel.graph.prepare import graph_constant

if TYPE_CHECKING:
    import onnx
    import onnx_ir as ir

LARGEST = 65504.0
"""The largest float16."""
_SMALLEST_FACTOR = 2.0**-14
"""The smallest float16 of full precision: what is multiplied by less loses digits."""
_SMALLEST_SUMMAND = 2.0**-24
"""The smallest float16 at all: what is added to keep a divisor from 0 must not vanish."""

_GROWS = frozenset({
    "CumSum", "Exp", "Pow", "ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceProd", "ReduceSum",
    "ReduceSumSquare",
})  # fmt: skip
"""Operators whose results easily leave the range of 16 bits."""
_GROWS_INSIDE = frozenset({
    "GroupNormalization", "InstanceNormalization", "LpNormalization", "LRN", "MeanVarianceNormalization",
})  # fmt: skip
"""Operators that form such results on the way."""
_TAMES = frozenset({
    "Conv", "ConvTranspose", "Div", "Erf", "GRU", "Gemm", "HardSigmoid", "InstanceNormalization", "LSTM",
    "LayerNormalization", "Log", "LogSoftmax", "LpNormalization", "MatMul", "RNN", "Sigmoid", "Sign", "Softmax",
    "Softsign", "Sqrt", "Tanh",
})  # fmt: skip
"""Operators whose results are of ordinary size, whatever goes in."""
_SUMS = frozenset({"Add", "Clip", "Max", "Min", "Sub", "Where"})
"""Operators that do not multiply their constants."""
_BIASED = frozenset({"Conv", "ConvTranspose", "GRU", "Gemm", "LSTM", "RNN"})
"""Operators whose inputs from the third on may vanish."""
_TYPED_BY_ATTRIBUTE = frozenset({"Cast", "ConstantOfShape"})
"""Operators whose attribute says what type comes out, and which are given the other one here."""
_BYTE = 8


@dataclass(slots=True)
class Halved:
    """What became of a graph."""

    half: int = 0
    """Operators that compute in float16."""
    kept: Counter[str] = field(default_factory=Counter)
    """Operators that stay in float32, by type."""
    outside: list[tuple[str, str, float]] = field(default_factory=list)
    """Constants that float16 cannot hold: the constant, the node that reads it, and the largest magnitude."""


def halve(model: ir.Model, *, keep_io_types: bool) -> Halved:
    """Rewrite a graph in place so that it computes in float16 where that is safe.

    In float32 stay: operators that have no float16 in ONNX; those whose results leave the range of 16 bits easily
    (powers, exponentials, sums), with all that computes on such results until an operator tames them; and operators
    whose constants are too large or too small. Their weights are stored as float16 all the same where that holds them.
    Sub-graphs are converted too, and keep the types of what goes in and out.

    Args:
        model: The graph, with its constants as initializers. Nodes whose types cannot be inferred stay as they are.
        keep_io_types: Inputs and outputs stay float32.
    """
    import onnx_ir as ir
    from onnx_ir.passes.common import ShapeInferencePass

    ShapeInferencePass(check_type=False, strict_mode=False, data_prop=False)(model)
    names = {
        value.name for node in model.graph.all_nodes() for value in (*node.inputs, *node.outputs) if value is not None
    }
    writer = _Writer(model.opset_imports, {name for name in names if name})
    if not keep_io_types:
        for value in model.graph.inputs:
            if value.dtype == ir.DataType.FLOAT and not value.is_initializer():
                value.type = ir.TensorType(ir.DataType.FLOAT16)
                writer.halves.add(value)
    writer.graph(model.graph)
    writer.finish(model.graph, half=not keep_io_types)
    for graph in (model.graph, *model.graph.subgraphs()):
        for name, value in list(graph.initializers.items()):
            if not value.uses() and not value.is_graph_output():
                del graph.initializers[name]
    narrow(model, "float16", stored=writer.constants)
    return writer.said


@cache
def _schema(domain: str, operator: str, version: int) -> onnx.defs.OpSchema | None:
    import onnx

    if not onnx.defs.has(operator, version, domain):
        return None
    return onnx.defs.get_schema(operator, version, domain)


def _can_be_half(schema: onnx.defs.OpSchema, formals: list[onnx.defs.OpSchema.FormalParameter], position: int) -> bool:
    """Whether an input or output may be float16; the last one stands for all that follow."""
    formal = formals[min(position, len(formals) - 1)]
    allowed = {constraint.type_param_str: constraint.allowed_type_strs for constraint in schema.type_constraints}
    return "tensor(float16)" in allowed.get(formal.type_str, [formal.type_str])


class _Writer:
    def __init__(self, opsets: dict[str, int], names: set[str]) -> None:
        self._opsets, self._names = opsets, names
        self.said = Halved()
        self.halves: set[ir.Value] = set()
        """Values that are float16 now."""
        self._wide: set[ir.Value] = set()
        """Values that may be outside the range of float16."""
        self.constants: dict[ir.Value, ir.Value] = {}
        """Float16 constants, for each float32 one."""

    def graph(self, graph: ir.Graph) -> None:
        """Convert the nodes of a graph, in order, and of the graphs inside it."""
        casts: dict[ir.Value, ir.Value] = {}
        for node in list(graph):
            inner = [body for attribute in node.attributes.values() for body in _bodies(attribute)]
            for body in inner:
                self.graph(body)
                self.finish(body, half=False)
            if not inner and self._is_half(node):
                self.said.half += 1
                self._convert(node, casts)
            else:
                for position, value in enumerate(node.inputs):
                    if value in self.halves:
                        node.replace_input_with(position, self._cast(node, value, casts, half=False))

    def finish(self, graph: ir.Graph, *, half: bool) -> None:
        """Give the outputs of a graph the type that they are to have."""
        import onnx_ir as ir

        for position, value in enumerate(list(graph.outputs)):
            node = value.producer()
            if node is None or (value in self.halves) == half or value.dtype not in {_half(), ir.DataType.FLOAT}:
                continue
            cast, name = self._cast_node(value, half=half), value.name
            result = cast.outputs[0]
            graph.append(cast)
            graph.outputs[position] = result
            value.name, result.name = f"{name}_before_cast", name

    def _is_half(self, node: ir.Node) -> bool:
        """Decide, and remember whether what comes out may be of any size."""
        import onnx_ir as ir

        outputs = [(position, value) for position, value in enumerate(node.outputs) if value.name]
        values = [*(value for value in node.inputs if value is not None), *(value for _, value in outputs)]
        if not any(value.dtype == ir.DataType.FLOAT or value in self.halves for value in values):
            return False
        schema = _schema(node.domain, node.op_type, self._opsets.get(node.domain, 0))
        outside = self._outside(node)
        wide = any(value in self._wide for value in node.inputs)
        grows = node.op_type in _GROWS or _is_square(node) or _casts_numbers(node)
        if outside or grows or (wide and not _tames(node)):
            self._wide.update(node.outputs)
        floats = [position for position, value in outputs if value.dtype == ir.DataType.FLOAT]
        fits = (
            schema is not None
            and all(isinstance(value.type, ir.TensorType) for value in values)
            and all(_can_be_half(schema, list(schema.outputs), position) for position in floats)
            and (node.op_type in _TYPED_BY_ATTRIBUTE or not {"dtype", "output_datatype"} & set(node.attributes))
            # What only looks at floats (a comparison, a cast to integers) need not lose digits for it.
            and (bool(floats) or any(value in self.halves for value in node.inputs))
        )
        if outside or grows or wide or not fits or node.op_type in _GROWS_INSIDE:
            self.said.kept.update([node.op_type] if floats else [])
            return False
        return True

    def _outside(self, node: ir.Node) -> bool:
        """Whether a constant of a node is too large or too small for float16."""
        found = False
        for position, value in enumerate(node.inputs):
            array = constant(value)
            if value is None or array is None or array.dtype != np.float32:
                continue
            magnitudes = np.abs(array[np.isfinite(array) & (array != 0)])
            if not magnitudes.size:
                continue
            largest = float(magnitudes.max())
            if node.op_type == "Clip" and largest > LARGEST:
                continue  # such a bound keeps its meaning when it becomes infinite
            smallest = _SMALLEST_SUMMAND if node.op_type in _SUMS else _SMALLEST_FACTOR
            if node.op_type in _BIASED and position > 1:
                smallest = 0.0
            if largest > LARGEST or largest < smallest:
                self.said.outside.append((str(value.name), str(node.name), largest))
                found = True
        return found

    def _convert(self, node: ir.Node, casts: dict[ir.Value, ir.Value]) -> None:
        import onnx_ir as ir

        schema = _schema(node.domain, node.op_type, self._opsets.get(node.domain, 0))
        if schema is None:
            raise ValueError(f"{node.op_type} is not an operator of ONNX")
        inputs, outputs = list(schema.inputs), list(schema.outputs)
        for position, value in enumerate(node.inputs):
            if value is None or value.dtype not in {_half(), ir.DataType.FLOAT}:
                continue
            can = node.op_type == "Cast" or _can_be_half(schema, inputs, position)
            if can and value not in self.halves and value.dtype == ir.DataType.FLOAT:
                node.replace_input_with(position, self._halved(node, value, casts))
            elif not can and value in self.halves:
                node.replace_input_with(position, self._cast(node, value, casts, half=False))
        for position, value in enumerate(node.outputs):
            if value.dtype == ir.DataType.FLOAT and _can_be_half(schema, outputs, position):
                value.type = ir.TensorType(_half())
                self.halves.add(value)
        if node.op_type == "Cast" and node.outputs[0] in self.halves:
            node.attributes["to"] = ir.AttrInt64("to", int(_half()))
        if node.op_type == "ConstantOfShape" and node.outputs[0] in self.halves:
            given = node.attributes.get("value")
            fill = np.zeros(1, np.float32) if given is None else given.as_tensor().numpy()
            node.attributes["value"] = ir.AttrTensor("value", ir.Tensor(fill.astype(np.float16)))

    def _halved(self, node: ir.Node, value: ir.Value, casts: dict[ir.Value, ir.Value]) -> ir.Value:
        array = constant(value)
        if array is None or value.graph is None:
            return self._cast(node, value, casts, half=True)
        if value not in self.constants:
            with np.errstate(over="ignore"):  # only bounds of Clip are that large
                half = array.astype(np.float16)
            made = graph_constant(value.graph, f"{value.name}_float16", half)
            self.halves.add(made)
            self.constants[value] = made
        return self.constants[value]

    def _cast(self, node: ir.Node, value: ir.Value, casts: dict[ir.Value, ir.Value], *, half: bool) -> ir.Value:
        """The value in the other type, made in front of the first node of this graph that needs it."""
        if value not in casts:
            cast = self._cast_node(value, half=half)
            node.prepend(cast)
            casts[value] = cast.outputs[0]
            if half:
                self.halves.add(cast.outputs[0])
        return casts[value]

    def _cast_node(self, value: ir.Value, *, half: bool) -> ir.Node:
        import onnx_ir as ir

        to = _half() if half else ir.DataType.FLOAT
        name = base = f"{value.name}_to_{'float16' if half else 'float32'}"
        number = 1
        while name in self._names:  # also in another graph: outer names are not to be hidden
            name = f"{base}_{number}"
            number += 1
        self._names.add(name)
        node = ir.Node("", "Cast", [value], [ir.AttrInt64("to", int(to))], name=name)
        result = node.outputs[0]
        result.name, result.type, result.shape = name, ir.TensorType(to), value.shape
        return node


def _half() -> ir.DataType:
    import onnx_ir as ir

    return ir.DataType.FLOAT16


def _bodies(attribute: ir.Attr) -> list[ir.Graph]:
    import onnx_ir as ir

    if attribute.type == ir.AttributeType.GRAPH:
        return [attribute.as_graph()]
    return list(attribute.as_graphs()) if attribute.type == ir.AttributeType.GRAPHS else []


def _is_square(node: ir.Node) -> bool:
    return node.op_type == "Mul" and node.inputs[0] is node.inputs[1]


def _tames(node: ir.Node) -> bool:
    """Whether what comes out is of ordinary size, whatever goes in."""
    if node.op_type != "Clip":
        return node.op_type in _TAMES
    bounds = [constant(value) for value in node.inputs[1:]]
    both = len(bounds) == 2  # noqa: PLR2004
    return both and all(bound is not None and np.abs(bound).max() <= LARGEST for bound in bounds)


def _casts_numbers(node: ir.Node) -> bool:
    """Whether a node makes floats of numbers with more range or digits than float16 has."""
    import onnx_ir as ir

    source = node.inputs[0].dtype if node.op_type == "Cast" and node.inputs[0] is not None else None
    return source is not None and source.bitwidth > _BYTE and source not in {ir.DataType.FLOAT, ir.DataType.FLOAT16}
