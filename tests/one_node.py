"""Graphs of one node, run through the differentiable executor."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor

from accel.graph.torch_graph.dtypes import to_torch
from accel.graph.torch_graph.graph import TorchGraph, nothing

Given = np.ndarray | None
"""An input of a node; None leaves it out."""


def model_of(
    operator: str,
    given: Sequence[Given],
    *,
    opset: int = 23,
    domain: str = "",
    outputs: int = 1,
    gives: int = TensorProto.UNDEFINED,
    fixed: Sequence[int] = (),
    **attributes: Any,
) -> onnx.ModelProto:
    """A graph of one node.

    Args:
        operator: What the node computes.
        given: Its inputs, which are called ``x0``, ``x1`` and so on.
        opset: Version of ONNX's operators.
        domain: Of the operator.
        outputs: How many it has; they are called ``y0``, ``y1`` and so on.
        gives: Type of the outputs where the file should say it.
        fixed: Inputs that are initialisers.
        **attributes: Of the node.
    """
    names = ["" if value is None else f"x{place}" for place, value in enumerate(given)]
    results = [f"y{place}" for place in range(outputs)]
    node = helper.make_node(operator, names, results, domain=domain, name="node", **attributes)
    inputs = [
        helper.make_tensor_value_info(f"x{place}", helper.np_dtype_to_tensor_dtype(value.dtype), value.shape)
        for place, value in enumerate(given)
        if value is not None and place not in fixed
    ]
    graph = helper.make_graph(
        [node],
        "one",
        inputs,
        [
            helper.make_tensor_value_info(name, gives, None) if gives else helper.make_empty_tensor_value_info(name)
            for name in results
        ],
        [numpy_helper.from_array(given[place], f"x{place}") for place in fixed],
    )
    imports = [helper.make_opsetid("", opset), *([helper.make_opsetid(domain, 1)] if domain else [])]
    return helper.make_model(graph, opset_imports=imports, ir_version=10)


def graph_of(operator: str, given: Sequence[Given], **options: Any) -> TorchGraph:
    """A graph of one node in PyTorch, ready to run; the options are those of ``model_of``."""
    return TorchGraph(ir.from_proto(model_of(operator, given, **options)), nothing)


def computed(model: onnx.ModelProto, given: Sequence[Given]) -> list[Tensor]:
    """The outputs of a graph of one node in PyTorch."""
    graph = TorchGraph(ir.from_proto(model), nothing)
    feeds = {f"x{place}": to_torch(ir.tensor(value)) for place, value in enumerate(given) if value is not None}
    with torch.no_grad():
        return list(graph({name: feeds[name] for name in graph.inputs}).values())


def run(operator: str, given: Sequence[Given], **options: Any) -> Tensor:
    """The first output of a node; the options are those of ``model_of``."""
    return computed(model_of(operator, given, **options), given)[0]


def gradients_agree(operator: str, given: Sequence[Given], **options: Any) -> bool:
    """Whether the gradients of a node's first output to its inputs of float64 are what finite differences tell."""
    graph = graph_of(operator, given, **options)
    held = {f"x{place}": torch.from_numpy(value) for place, value in enumerate(given) if value is not None}
    names = [name for name, tensor in held.items() if tensor.dtype == torch.float64]
    leaves = [held[name].clone().requires_grad_() for name in names]

    def first(*tensors: Tensor) -> Tensor:
        found = graph(held | dict(zip(names, tensors, strict=True)))["y0"]
        assert isinstance(found, Tensor)
        return found

    return torch.autograd.gradcheck(first, leaves)
