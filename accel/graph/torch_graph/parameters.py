"""Which values of a graph can be trained, and what each of them is."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import onnx_ir as ir

Role = Literal["weight", "bias", "normalization", "statistic", "scale", "latent", "constant"]
"""``weight``: of a layer or an embedding. ``bias``: added to a layer's output. ``normalization``: scale or shift of one.
``statistic``: running mean or variance, written by training but without a gradient. ``scale``: of quantization.
``latent``: weights that are stored as integers, trained as floats. ``constant``: any other float, part of a formula."""

_D = ir.DataType
_FLOATS = frozenset({_D.FLOAT, _D.DOUBLE, _D.FLOAT16, _D.BFLOAT16})
_INTEGERS = frozenset({_D.INT8, _D.UINT8, _D.INT16, _D.UINT16, _D.INT4, _D.UINT4, _D.INT2, _D.UINT2})
_THROUGH = frozenset(
    {"Identity", "Cast", "Transpose", "Reshape", "Squeeze", "Unsqueeze", "Flatten", "DequantizeLinear", "Expand"}
)
"""Operators that change how a weight lies, not what it is for."""
_SLOTS: dict[str, dict[int, Role]] = {
    "Conv": {1: "weight", 2: "bias"},
    "FusedConv": {1: "weight", 2: "bias"},
    "DeformConv": {1: "weight", 3: "bias"},
    "CausalConvWithState": {1: "weight", 2: "bias"},
    "ConvTranspose": {1: "weight", 2: "bias"},
    "Gemm": {0: "weight", 1: "weight", 2: "bias"},
    "MatMul": {0: "weight", 1: "weight"},
    "Einsum": {0: "weight", 1: "weight", 2: "weight"},
    "Gather": {0: "weight"},
    "LSTM": {1: "weight", 2: "weight", 3: "bias", 7: "weight"},
    "GRU": {1: "weight", 2: "weight", 3: "bias"},
    "RNN": {1: "weight", 2: "weight", 3: "bias"},
    "PRelu": {1: "weight"},
    "BatchNormalization": {1: "normalization", 2: "normalization", 3: "statistic", 4: "statistic"},
    "InstanceNormalization": {1: "normalization", 2: "normalization"},
    "LayerNormalization": {1: "normalization", 2: "normalization"},
    "GroupNormalization": {1: "normalization", 2: "normalization"},
    "RMSNormalization": {1: "normalization"},
    "SimplifiedLayerNormalization": {1: "normalization"},
    "SkipSimplifiedLayerNormalization": {2: "normalization", 3: "bias"},
    "SkipLayerNormalization": {2: "normalization", 3: "normalization", 4: "bias"},
    "QuantizeLinear": {1: "scale"},
    "DequantizeLinear": {1: "scale"},
    "Attention": {1: "weight", 2: "bias"},
    "MultiHeadAttention": {3: "bias"},
    "MatMulNBits": {2: "scale", 5: "bias"},
    "DynamicQuantizeMatMul": {4: "bias"},
}
_ELEMENTWISE: dict[str, Role] = {"Add": "bias", "Sub": "bias", "Mul": "normalization", "Div": "normalization"}
"""Behind layers these add a bias or scale channels; of one number they belong to a formula."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A value that training can change."""

    value: ir.Value
    role: Role
    constant: ir.TensorProtocol
    """What it is now."""

    @property
    def name(self) -> str:
        """Its name in the graph."""
        return self.value.name or ""

    def write(self, constant: ir.TensorProtocol) -> None:
        """Put another in its place in the graph."""
        self.value.const_value = constant
        node = self.value.producer()
        if node is not None:
            node.attributes["value"] = ir.AttrTensor("value", constant)


def candidates(graph: ir.Graph) -> Iterator[Candidate]:
    """Every float that is stored in a graph or its sub-graphs; also weights that are stored as integers and dequantized."""
    for value, constant in constants(graph):
        if constant.dtype in _FLOATS:
            yield Candidate(value, _role(value, constant), constant)
        elif constant.dtype in _INTEGERS and _is_latent(value):
            yield Candidate(value, "latent", constant)


def constants(graph: ir.Graph) -> Iterator[tuple[ir.Value, ir.TensorProtocol]]:
    """Every tensor that is stored in a graph or its sub-graphs, as an initialiser or in a Constant node."""
    for inner in (graph, *graph.subgraphs()):
        for value in inner.initializers.values():
            if value.const_value is not None and not value.is_graph_input():
                yield value, value.const_value
        for node in inner:
            if node.op_type == "Constant" and node.domain in {"", "ai.onnx"} and "value" in node.attributes:
                yield node.outputs[0], node.attributes["value"].as_tensor()


def _is_latent(value: ir.Value) -> bool:
    """Whether these integers are the weights of a layer: all that reads them dequantizes them, in the first place."""
    uses = list(value.uses())
    return bool(uses) and all(use.node.op_type == "DequantizeLinear" and use.idx == 0 for use in uses)


def _role(value: ir.Value, constant: ir.TensorProtocol) -> Role:
    """What a float is for, by what reads it; the first reader that says so."""
    seen, waiting = {value}, [value]
    while waiting:
        current = waiting.pop()
        for use in current.uses():
            operator = use.node.op_type
            role = _SLOTS.get(operator, {}).get(use.idx)
            if role is None and constant.size > 1:
                role = _ELEMENTWISE.get(operator)
            if role is not None:
                return role
            if operator in _THROUGH and use.idx == 0:
                fresh = [output for output in use.node.outputs if output not in seen]
                seen.update(fresh)
                waiting.extend(fresh)
    return "constant"
