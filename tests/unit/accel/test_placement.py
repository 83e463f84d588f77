"""Where quantization goes: before and behind each layer, through what only moves values, and into residual sums."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper

from accel.graph.layers import layers
from accel.graph.placement import Placement, place
from tests import models

HELD = {
    "w": np.ones((2, 2, 1, 1), np.float32),
    "v": np.ones((2, 2, 1, 1), np.float32),
    "m": np.ones((2, 2), np.float32),
    "t": np.ones((2, 2, 1, 1), np.float32),
    "zero": np.float32(0),
    "six": np.float32(6),
    "bias": np.ones((1, 2, 1, 1), np.float32),
    "rows": np.array([-1, 2], np.int64),
    "axis": np.array([0], np.int64),
}


def node(text: str) -> onnx.NodeProto:
    """``"y = Conv(x, w)"`` as a node that is named for its output."""
    output, call = text.split(" = ")
    operator, inputs = call.rstrip(")").split("(")
    attributes = {"MaxPool": {"kernel_shape": [1, 1]}, "AveragePool": {"kernel_shape": [1, 1]}}.get(operator, {})
    return helper.make_node(operator, inputs.split(", "), output.split(", "), output, **attributes)


def placed(
    *nodes: str, outputs: tuple[str, ...] = ("y",), only: tuple[str, ...] = (), joins: tuple[str, ...] = ("Add",)
) -> Placement:
    made = [node(text) for text in nodes]
    ports = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in ("x", *outputs)]
    graph = ir.from_proto(models.assemble(made, ports[:1], ports[1:], HELD)).graph
    chosen = [layer for layer in layers(graph) if not only or layer.name in only]
    placement = place(chosen, joins=joins)
    assert list(placement.layers) == chosen
    assert set(placement.measured) == set(placement.ranges.values())
    assert len(placement.measured) == len(set(placement.measured))
    return placement


def joined(placement: Placement) -> list[str | None]:
    return [join.name for join in placement.joins]


def test_a_convolution_has_a_pair_on_both_sides() -> None:
    assert placed("c = Conv(x, w)", "y = Sigmoid(c)").ranges == {"x": "x", "c": "c"}


def test_a_matrix_product_gives_floats() -> None:
    assert placed("c = MatMul(x, m)", "y = Sigmoid(c)").ranges == {"x": "x"}
    assert placed("c = Gemm(x, m)", "y = Sigmoid(c)").ranges == {"x": "x"}


def test_a_matrix_product_that_feeds_one_gives_integers() -> None:
    assert placed("c = MatMul(x, m)", "y = Gemm(c, m)").ranges == {"x": "x", "c": "c"}


@pytest.mark.parametrize("activation", ["Relu(c)", "Clip(c, zero, six)"])
def test_the_pair_is_behind_the_activation(activation: str) -> None:
    assert placed("c = Conv(x, w)", f"r = {activation}", "y = Sigmoid(r)").ranges == {"x": "x", "r": "r"}


def test_an_activation_that_no_runtime_computes_with_the_layer_has_its_own_range() -> None:
    found = placed("c = Conv(x, w)", "s = Sigmoid(c)", "y = Conv(s, v)")
    assert found.ranges == {"x": "x", "s": "s", "c": "c", "y": "y"}


def test_values_that_are_only_moved_keep_their_range() -> None:
    found = placed("c = Conv(x, w)", "r = Relu(c)", "p = MaxPool(r)", "f = Flatten(p)", "y = MatMul(f, m)")
    assert found.ranges == {"x": "x", "r": "r", "f": "r"}
    assert found.measured == ("x", "r")


def test_an_average_is_not_a_move() -> None:
    found = placed("c = Conv(x, w)", "a = AveragePool(c)", "y = Conv(a, v)")
    assert found.ranges == {"x": "x", "c": "c", "a": "a", "y": "y"}


def test_a_graph_input_that_is_moved_first_is_measured_where_it_comes_in() -> None:
    found = placed("t0 = Transpose(x)", "y = Conv(t0, w)")
    assert set(found.ranges) == {"t0", "y"}
    assert found.ranges["t0"] in {"x", "t0"}


def test_a_value_read_twice_is_quantized_once() -> None:
    found = placed("a = Conv(x, w)", "b = Conv(x, v)", "y = Concat(a, b)")
    assert found.ranges == {"x": "x", "a": "a", "b": "b"}


def test_a_residual_sum_is_computed_in_integers() -> None:
    found = placed("c = Conv(x, w)", "r = Relu(c)", "d = Conv(r, v)", "s = Add(d, r)", "o = Relu(s)", "y = Conv(o, t)")
    assert joined(found) == ["s"]
    assert set(found.ranges) == {"x", "r", "d", "o", "y"}


def test_a_sum_with_what_is_float_stays_float() -> None:
    assert joined(placed("c = Conv(x, w)", "g = Sigmoid(x)", "s = Add(c, g)", "y = Conv(s, t)")) == []


def test_a_sum_with_a_constant_stays_float() -> None:
    assert joined(placed("c = Conv(x, w)", "s = Add(c, bias)", "y = Conv(s, t)")) == []


def test_a_sum_that_feeds_nothing_quantized_stays_float() -> None:
    found = placed("c = Conv(x, w)", "d = Conv(x, v)", "s = Add(c, d)", "y = Sigmoid(s)")
    assert joined(found) == []
    assert "s" not in found.ranges


def test_a_sum_read_in_front_of_its_activation_too() -> None:
    found = placed(
        "c = Conv(x, w)", "d = Conv(x, v)", "s = Add(c, d)", "o = Relu(s)", "z = Sigmoid(s)", "y = Conv(o, t)",
        outputs=("y", "z"),
    )  # fmt: skip
    assert joined(found) == []


def test_a_sum_behind_moves() -> None:
    found = placed("c = Conv(x, w)", "d = Conv(x, v)", "s = Add(c, d)", "p = MaxPool(s)", "y = Conv(p, t)")
    assert joined(found) == ["s"]
    assert found.ranges["p"] == found.ranges["s"] == "s"


def test_sums_in_a_chain() -> None:
    found = placed(
        "a = Conv(x, w)", "b = Conv(a, v)", "s = Add(a, b)", "c = Conv(s, t)", "u = Add(s, c)", "y = Conv(u, w)"
    )
    assert joined(found) == ["s", "u"]
    assert set(found.ranges) == {"x", "a", "b", "s", "c", "u", "y"}


def test_a_sum_of_sums() -> None:
    found = placed("a = Conv(x, w)", "b = Conv(x, v)", "s = Add(a, b)", "u = Add(s, a)", "y = Conv(u, t)")
    assert "u" not in joined(found) or "s" in found.ranges
    assert all(part.name in found.ranges for join in found.joins for part in join.inputs if part is not None)


def test_no_operator_is_joined_that_was_not_asked_for() -> None:
    nodes = ("c = Conv(x, w)", "d = Conv(x, v)", "s = Mul(c, d)", "y = Conv(s, t)")
    assert joined(placed(*nodes)) == []
    assert joined(placed(*nodes, joins=("Mul",))) == ["s"]
    assert joined(placed("c = Conv(x, w)", "d = Conv(x, v)", "s = Add(c, d)", "y = Conv(s, t)", joins=())) == []


def test_layers_that_were_not_chosen_get_nothing() -> None:
    found = placed("a = Conv(x, w)", "b = Conv(a, v)", "c = Conv(b, t)", "y = Sigmoid(c)", only=("c",))
    assert found.ranges == {"b": "b", "c": "c"}
    assert placed("y = Conv(x, w)", only=("none",)).ranges == {}


def test_a_join_has_quantized_values_on_both_sides_even_between_unchosen_layers() -> None:
    found = placed("a = Conv(x, w)", "b = Conv(x, v)", "s = Add(a, b)", "y = Conv(s, t)", only=("a", "y"))
    assert joined(found) == []
    assert set(found.ranges) == {"x", "a", "s", "y"}


def test_an_output_that_a_sub_graph_rectifies_is_measured_outside_of_it() -> None:
    def branch(name: str, operator: str) -> onnx.GraphProto:
        port = helper.make_tensor_value_info(f"{name}_out", TensorProto.FLOAT, None)
        return helper.make_graph([helper.make_node(operator, ["c"], [f"{name}_out"], name)], name, [], [port])

    # The Relu is the only one that reads c; the Neg reads x.
    other = branch("else", "Neg")
    other.node[0].input[0] = "x"
    nodes = [
        node("c = Conv(x, w)"),
        helper.make_node("If", ["flag"], ["y"], "if", then_branch=branch("then", "Relu"), else_branch=other),
    ]
    ports = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in ("x", "y")]
    flag = helper.make_tensor_value_info("flag", TensorProto.BOOL, [])
    graph = ir.from_proto(models.assemble(nodes, [ports[0], flag], ports[1:], {"w": HELD["w"]})).graph
    assert place(layers(graph)).ranges == {"x": "x", "c": "c"}


def test_the_graph_stays_as_it_was() -> None:
    model = ir.from_proto(models.convnet())
    before = ir.to_proto(model).SerializeToString(deterministic=True)
    found = place(layers(model.graph))
    assert ir.to_proto(model).SerializeToString(deterministic=True) == before
    assert found.ranges == {"image": "image", "f": "r", "hr": "hr", "r": "r"}
