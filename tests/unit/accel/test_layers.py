"""The layers of a graph: which there are, what they hold, and how names are chosen by patterns."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper

from accel.errors import TechniqueFailed
from accel.graph.layers import Layer, constant, layers, matching
from tests import models


def port(name: str, shape: list[int | str], dtype: int = TensorProto.FLOAT) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, dtype, shape)


def weights(*shape: int) -> np.ndarray:
    return np.arange(np.prod(shape), dtype=np.float32).reshape(shape) - 3


def graph_of(
    nodes: list[onnx.NodeProto], held: dict[str, np.ndarray], shape: list[int | str], outputs: list[str] | None = None
) -> ir.Graph:
    outputs = outputs or [nodes[-1].output[0]]
    ports = [port(name, ["a", "b"]) for name in outputs]
    return ir.from_proto(models.assemble(nodes, [port("x", shape)], ports, held)).graph


def single(operator: str, weight: np.ndarray, **attributes: object) -> Layer:
    node = helper.make_node(operator, ["x", "w"], ["y"], "node", **attributes)
    (layer,) = layers(graph_of([node], {"w": weight}, ["n", 4]))
    return layer


@pytest.mark.parametrize(
    ("operator", "shape", "attributes", "axis", "matrix"),
    [
        ("Conv", (6, 3, 2, 2), {}, 0, (6, 12)),
        ("Conv", (6, 1, 3, 3), {"group": 6}, 0, (6, 9)),
        ("Conv", (6, 3, 5), {}, 0, (6, 15)),
        ("ConvTranspose", (3, 6, 2, 2), {}, 1, (6, 12)),
        ("Gemm", (4, 7), {}, 1, (7, 4)),
        ("Gemm", (7, 4), {"transB": 1}, 0, (7, 4)),
        ("MatMul", (4, 7), {}, 1, (7, 4)),
        ("MatMul", (2, 4, 7), {}, 2, (7, 8)),
    ],
)
def test_channels_are_outputs(
    operator: str, shape: tuple[int, ...], attributes: dict[str, int], axis: int, matrix: tuple[int, int]
) -> None:
    layer = single(operator, weights(*shape), **attributes)
    assert layer.operator == operator
    assert layer.name == "node"
    assert layer.input.name == "x"
    assert layer.output.name == "y"
    assert layer.channel_axis == axis
    assert layer.matrix.shape == matrix
    np.testing.assert_array_equal(layer.matrix[1], np.take(layer.weight, 1, axis).ravel())
    assert layer.weight.dtype == np.float32


def test_depthwise_is_one_input_for_each_group() -> None:
    assert single("Conv", weights(6, 1, 3, 3), group=6).depthwise
    assert single("Conv", weights(12, 1, 3, 3), group=6).depthwise
    assert not single("Conv", weights(6, 3, 3, 3), group=2).depthwise
    assert not single("Conv", weights(6, 1, 3, 3)).depthwise
    assert single("Conv", weights(6, 3, 3, 3), group=2).group == 2


@pytest.mark.parametrize(
    "node",
    [
        helper.make_node("Gemm", ["x", "w"], ["y"], "n", transA=1),
        helper.make_node("Gemm", ["x", "w"], ["y"], "n", alpha=2.0),
        helper.make_node("Gemm", ["x", "w", "b"], ["y"], "n", beta=0.5),
        helper.make_node("MatMul", ["x", "x"], ["y"], "n"),
        helper.make_node("MatMul", ["w", "x"], ["y"], "n"),
        helper.make_node("MatMul", ["w", "w"], ["y"], "n"),
        helper.make_node("MatMul", ["x", "one"], ["y"], "n"),
        helper.make_node("MatMul", ["x", "double"], ["y"], "n"),
        helper.make_node("Add", ["x", "w"], ["y"], "n"),
    ],
    ids=["transA", "alpha", "beta", "computed", "left", "constant", "vector", "double", "add"],
)
def test_what_is_no_layer(node: onnx.NodeProto) -> None:
    held = {"w": weights(4, 4), "b": weights(4), "one": weights(4), "double": weights(4, 4).astype(np.float64)}
    assert layers(graph_of([node], held, ["n", 4])) == []


def test_another_domain_s_node_of_the_same_name_is_no_layer() -> None:
    node = helper.make_node("Conv", ["x", "w"], ["y"], "n", domain="com.other")
    assert layers(graph_of([node], {"w": weights(2, 2, 1, 1)}, ["n", 2, 4, 4])) == []


def test_a_weight_that_can_be_fed_is_not_constant() -> None:
    node = helper.make_node("MatMul", ["x", "w"], ["y"], "n")
    proto = models.assemble(
        [node], [port("x", ["n", 4]), port("w", [4, 4])], [port("y", ["n", 4])], {"w": weights(4, 4)}
    )
    graph = ir.from_proto(proto).graph
    assert layers(graph) == []
    assert constant(graph.inputs[1]) is None


def test_only_the_operators_that_are_asked_for_in_order() -> None:
    graph = ir.from_proto(models.convnet()).graph
    assert [layer.name for layer in layers(graph)] == ["conv", "hidden", "out"]
    assert [layer.name for layer in layers(graph, ["Conv"])] == ["conv"]
    assert layers(graph, []) == []


def test_layers_in_sub_graphs_are_left_alone() -> None:
    body = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["t"], "inner")], "then", [], [port("t", ["n", 4])]
    )
    other = helper.make_graph([helper.make_node("Neg", ["x"], ["e"], "neg")], "else", [], [port("e", ["n", 4])])
    nodes = [helper.make_node("If", ["flag"], ["y"], "if", then_branch=body, else_branch=other)]
    proto = models.assemble(
        nodes, [port("x", ["n", 4]), port("flag", [], TensorProto.BOOL)], [port("y", ["n", 4])], {"w": weights(4, 4)}
    )
    assert layers(ir.from_proto(proto).graph) == []


@pytest.mark.parametrize(
    ("nodes", "outputs", "expected"),
    [
        ([("Relu", ["c"], "r")], ["r"], "r"),
        ([("Clip", ["c", "zero", "six"], "r")], ["r"], "r"),
        ([("Clip", ["c", "", "six"], "r")], ["r"], "r"),
        ([("Clip", ["c"], "r")], ["r"], "r"),
        ([("Clip", ["c", "zero", "computed"], "r")], ["r"], "c"),
        ([("Relu", ["c"], "r"), ("Neg", ["c"], "s")], ["r", "s"], "c"),
        ([("Relu", ["c"], "r")], ["r", "c"], "c"),
        ([("Sigmoid", ["c"], "r")], ["r"], "c"),
        ([("Relu", ["c"], "r"), ("Relu", ["r"], "s")], ["s"], "r"),
        ([("Clip", ["x2", "zero", "c"], "r")], ["r"], "c"),
    ],
    ids=["relu", "relu6", "no_low", "no_bounds", "computed", "two", "seen", "other", "relu_relu", "as_a_bound"],
)
def test_the_output_is_behind_the_activation_that_is_computed_with_the_layer(
    nodes: list[tuple[str, list[str], str]], outputs: list[str], expected: str
) -> None:
    made = [
        helper.make_node("Conv", ["x", "w"], ["c"], "conv"),
        helper.make_node("ReduceMax", ["x"], ["computed"], "max", keepdims=0),
        helper.make_node("Identity", ["x"], ["x2"], "same"),
        *(helper.make_node(operator, inputs, [output], output) for operator, inputs, output in nodes),
    ]
    held = {"w": weights(2, 2, 1, 1), "zero": np.float32(0), "six": np.float32(6)}
    (layer,) = layers(graph_of(made, held, ["n", 2, 4, 4], outputs))
    assert layer.output.name == expected


def test_an_activation_inside_a_sub_graph_is_not_computed_with_the_layer() -> None:
    body = helper.make_graph([helper.make_node("Relu", ["c"], ["t"], "inner")], "then", [], [port("t", ["n", 4])])
    other = helper.make_graph([helper.make_node("Neg", ["x"], ["e"], "neg")], "else", [], [port("e", ["n", 4])])
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["c"], "product"),
        helper.make_node("If", ["flag"], ["y"], "if", then_branch=body, else_branch=other),
    ]
    proto = models.assemble(
        nodes, [port("x", ["n", 4]), port("flag", [], TensorProto.BOOL)], [port("y", ["n", 4])], {"w": weights(4, 4)}
    )
    (layer,) = layers(ir.from_proto(proto).graph)
    assert layer.output.name == "c"


def test_biases() -> None:
    nodes = [
        helper.make_node("Gemm", ["x", "w", "b"], ["h"], "constant"),
        helper.make_node("Gemm", ["h", "w", "h"], ["i"], "computed"),
        helper.make_node("Gemm", ["i", "w", ""], ["j"], "empty"),
        helper.make_node("Gemm", ["j", "w"], ["k"], "none"),
    ]
    found = layers(graph_of(nodes, {"w": weights(4, 4), "b": weights(4)}, [4, 4]))
    assert [layer.bias is None for layer in found] == [False, True, True, True]
    assert found[0].bias is not None
    np.testing.assert_array_equal(found[0].bias, weights(4))


NAMES = ["/layer.0/conv1/Conv", "/layer.0/conv2/Conv", "/layer.1/conv1/Conv", "/head/Gemm", "blocks[0].fc", "what?"]
OPERATORS = dict(zip(NAMES, ["Conv", "Conv", "Conv", "Gemm", "MatMul", "MatMul"], strict=True))


@pytest.mark.parametrize(
    ("patterns", "expected"),
    [
        (["/head/Gemm"], {"/head/Gemm"}),
        (["/layer.0/*"], {"/layer.0/conv1/Conv", "/layer.0/conv2/Conv"}),
        (["*conv1*", "*Gemm"], {"/layer.0/conv1/Conv", "/layer.1/conv1/Conv", "/head/Gemm"}),
        (["/layer.?/conv2/Conv"], {"/layer.0/conv2/Conv"}),
        (["blocks[0].fc"], {"blocks[0].fc"}),
        (["blocks[0]*"], {"blocks[0].fc"}),
        (["what?"], {"what?"}),
        (["Conv"], set(NAMES[:3])),
        (["Gemm", "MatMul"], set(NAMES[3:])),
        ([], set()),
    ],
)
def test_patterns(patterns: list[str], expected: set[str]) -> None:
    assert matching(NAMES, patterns, OPERATORS) == expected


def test_operators_count_only_where_they_are_given() -> None:
    with pytest.raises(TechniqueFailed, match="'Conv'"):
        matching(NAMES, ["Conv"])


@pytest.mark.parametrize(
    ("pattern", "similar"), [("/layer.0/conv3/Conv", "/layer.0/conv2/Conv"), ("*haed*", "/head/Gemm"), ("conv", "Conv")]
)
def test_a_pattern_that_matches_nothing_names_similar_ones(pattern: str, similar: str) -> None:
    with pytest.raises(TechniqueFailed) as caught:
        matching(NAMES, ["/head/Gemm", pattern], OPERATORS)
    assert repr(pattern) in caught.value.message
    assert similar in str(caught.value.hint)


def test_nothing_to_choose_from() -> None:
    with pytest.raises(TechniqueFailed, match="matches no node") as caught:
        matching([], ["*"])
    assert "none" in str(caught.value.hint)
