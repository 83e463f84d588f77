"""A graph of float32 as one of float64, so that finite differences are exact enough to judge gradients by."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from accel.graph.load import copied

_F, _D = ir.DataType.FLOAT, ir.DataType.DOUBLE
_TYPES = ("to", "dtype")
"""Attributes that name the type of an output."""


def in_doubles(model: ir.Model) -> ir.Model:
    """A copy whose float32 values are float64."""
    copy = copied(model)
    for graph in (copy.graph, *copy.graph.subgraphs()):
        for value in graph.initializers.values():
            if value.const_value is not None and value.const_value.dtype == _F:
                value.const_value = _wide(value.const_value)
                value.dtype = _D
        for port in (*graph.inputs, *graph.outputs, *(output for node in graph for output in node.outputs)):
            if port.dtype == _F:
                port.dtype = _D
        for node in graph:
            for attribute in list(node.attributes.values()):
                wide = _attribute(node, attribute)
                if wide is not None:
                    node.attributes.pop(attribute.name)
                    node.attributes[wide.name] = wide
    return copy


def _attribute(node: ir.Node, attribute: ir.Attr) -> ir.Attr | None:
    """What an attribute becomes; None of one that stays."""
    if attribute.type == ir.AttributeType.TENSOR and attribute.as_tensor().dtype == _F:
        return ir.AttrTensor(attribute.name, _wide(attribute.as_tensor()))
    if attribute.name in _TYPES and attribute.type == ir.AttributeType.INT and attribute.as_int() == _F:
        return ir.AttrInt64(attribute.name, _D)
    if node.op_type == "Constant" and attribute.name in {"value_float", "value_floats"}:
        return ir.AttrTensor("value", ir.tensor(np.array(attribute.value, np.float64)))
    return None


def _wide(tensor: ir.TensorProtocol) -> ir.TensorProtocol:
    return ir.Tensor(tensor.numpy().astype(np.float64), name=tensor.name)
