"""Bring a graph into the form that is executed, without changing what it computes or what its values are called."""

from __future__ import annotations

import onnx_ir as ir
from onnx_ir.passes.common import InlinePass

from accel.graph.load import copied

_NO_WEIGHTS_AS_INPUTS = 4
"""The version of the file format since when initialisers need not be inputs, too."""


def executable(model: ir.Model) -> ir.Model:
    """A copy for :class:`~accel.graph.torch_graph.graph.TorchGraph`, whose values are written back into it.

    Functions of the model's own are written out where they are called. Old exporters list weights as inputs, too: here they
    are weights alone, and can be trained. Every other name, node and value stays.
    """
    copy = copied(model)
    if copy.functions:
        InlinePass()(copy)
    graph = copy.graph
    for value in [value for value in graph.inputs if value.name in graph.initializers]:
        graph.inputs.remove(value)
        copy.ir_version = max(copy.ir_version, _NO_WEIGHTS_AS_INPUTS)
    return copy
