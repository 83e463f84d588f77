"""Compiled graphs: the same numbers, arithmetic of shapes done once, and what depends on values refused."""

from __future__ import annotations

import shutil

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch
from onnx import TensorProto, helper

from accel.errors import UnsupportedOperator
from accel.graph.torch_graph.compiled import compiled
from accel.graph.torch_graph.graph import TorchGraph, nothing
from tests import models
from tests.one_network import random, value

# The compiler's own, when it is imported.
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script_method:DeprecationWarning")


def graph_of(
    nodes: list[onnx.NodeProto], output: str, weights: dict[str, np.ndarray], shape: list[str | int]
) -> TorchGraph:
    ports = [value("x", shape)], [helper.make_empty_tensor_value_info(output)]
    return TorchGraph(ir.from_proto(models.assemble(nodes, *ports, weights)), nothing)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="there is no C++ compiler")
def test_arithmetic_of_shapes_is_no_obstacle() -> None:
    def branch(name: str, operator: str) -> onnx.GraphProto:
        return helper.make_graph([helper.make_node(operator, ["r"], [name])], name, [], [value(name)])

    nodes = [
        helper.make_node("Shape", ["x"], ["sizes"]),
        helper.make_node("Gather", ["sizes", "first"], ["rows"], axis=0),
        helper.make_node("Concat", ["rows", "rest"], ["shape"], axis=0),
        helper.make_node("Reshape", ["x", "shape"], ["r"]),
        helper.make_node("Size", ["x"], ["size"]),
        helper.make_node("Greater", ["size", "few"], ["many"]),
        helper.make_node("If", ["many"], ["b"], then_branch=branch("t", "Relu"), else_branch=branch("e", "Neg")),
        helper.make_node("Pad", ["b", "pads", "fill"], ["p"]),
        helper.make_node("MatMul", ["p", "w"], ["y"]),
    ]
    weights = {
        "first": np.array([0], np.int64), "rest": np.array([-1], np.int64), "few": np.array(11, np.int64),
        "pads": np.array([0, 1, 0, 0], np.int64), "fill": np.float32(2), "w": random(7, 3),
    }  # fmt: skip
    graph, x = graph_of(nodes, "y", weights, ["n", 2, 3]), torch.from_numpy(random(4, 2, 3))
    run = compiled(graph, {"x": x})
    for given in (x, x.flip(0)):
        torch.testing.assert_close(run({"x": given})["y"], graph({"x": given})["y"])


def test_what_depends_on_values_is_refused_with_its_node() -> None:
    nodes = [
        helper.make_node("Cast", ["x"], ["sizes"], "cast", to=TensorProto.INT64),
        helper.make_node("Reshape", ["x", "sizes"], ["y"], "reshape"),
    ]
    graph, feed = graph_of(nodes, "y", {}, ["n"]), {"x": torch.ones(1)}
    assert torch.equal(graph(feed)["y"], torch.ones(1))
    with pytest.raises(UnsupportedOperator, match=r"cannot be compiled: The node 'reshape' \(Reshape\)"):
        compiled(graph, feed)
