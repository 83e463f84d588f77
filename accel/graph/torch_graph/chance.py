"""Which values of a graph differ from run to run."""

from __future__ import annotations

from collections.abc import Iterator

import onnx_ir as ir

from accel.graph.torch_graph.registry import is_random

_TRAINING_MODE = 2
"""The input of Dropout that makes it drop in inference, too."""


def by_chance(graph: ir.Graph) -> set[ir.Value]:
    """The values that depend on a draw of random numbers while nothing is trained."""
    found: set[ir.Value] = set()
    for node in graph:
        inside = list(_with_bodies(node))
        read = {value for one in inside for value in one.inputs}
        read |= {value for one in inside for body in _bodies(one) for value in body.outputs}
        if any(map(_draws, inside)) or read & found:
            found.update(node.outputs)
    return found


def _draws(node: ir.Node) -> bool:
    if node.op_type == "Dropout":
        return len(node.inputs) > _TRAINING_MODE and node.inputs[_TRAINING_MODE] is not None
    return is_random(node.domain, node.op_type)


def _with_bodies(node: ir.Node) -> Iterator[ir.Node]:
    yield node
    for body in _bodies(node):
        for inner in body:
            yield from _with_bodies(inner)


def _bodies(node: ir.Node) -> Iterator[ir.Graph]:
    for attribute in node.attributes.values():
        if attribute.type == ir.AttributeType.GRAPH:
            yield attribute.as_graph()
