"""Constants, and what passes a value on."""

from __future__ import annotations

import torch

from accel.graph.torch_graph.node import Node, Value
from accel.graph.torch_graph.registry import Run, operator, unsupported


@operator("Identity")
def identity(_node: Node) -> Run:
    """The value as it is."""
    return lambda value: value


@operator("Constant")
def constant(node: Node) -> Run:
    """A tensor, a number or several of the node's attributes."""
    value = _value(node)
    return lambda: value


@operator("ConstantOfShape", since=9)
def constant_of_shape(node: Node) -> Run:
    """One value in a shape that is computed. It is kept once, whatever the shape."""
    value = node.tensor("value")
    fill = torch.zeros(()) if value is None else value.reshape(())
    return lambda shape: fill.expand(shape.tolist())


def _value(node: Node) -> Value:
    tensor = node.tensor("value")
    if tensor is not None:
        return tensor
    if node.has("value_int"):
        return torch.tensor(node.int("value_int", 0), dtype=torch.int64)
    if node.has("value_ints"):
        return torch.tensor(node.ints("value_ints"), dtype=torch.int64)
    if node.has("value_float"):
        return torch.tensor(node.float("value_float", 0.0), dtype=torch.float32)
    if node.has("value_floats"):
        return torch.tensor(node.floats("value_floats"), dtype=torch.float32)
    raise unsupported(node, "its constant is a text or a sparse tensor")
