"""Graphs brought into one shape: old opsets, constants in all places, batch norms, factors, names; what they compute stays."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper

from accel.errors import TechniqueFailed
from accel.graph.layers import constant, layers
from accel.graph.prepare import BLOCK_OPSET, QDQ_OPSET, graph_constant, prepare, refuse_quantized
from tests import models

CHANCE = np.random.default_rng(7)
START = CHANCE.bit_generator.state


@pytest.fixture(autouse=True)
def the_same_chance_for_each_test() -> None:
    CHANCE.bit_generator.state = START


def weights(*shape: int) -> np.ndarray:
    return (CHANCE.standard_normal(shape) * 0.3).astype(np.float32)


def port(name: str, shape: list[int | str], dtype: int = TensorProto.FLOAT) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, dtype, shape)


def prepared(proto: onnx.ModelProto, folder: Path, *, opset: int = QDQ_OPSET) -> tuple[onnx.ModelProto, list[str]]:
    """The prepared model, after what holds for every one was checked."""
    model = ir.from_proto(proto)
    before = ir.to_proto(model).SerializeToString(deterministic=True)
    ready, notes = prepare(model, folder, opset=opset)
    assert ir.to_proto(model).SerializeToString(deterministic=True) == before
    again, _ = prepare(ir.from_proto(proto), folder, opset=opset)
    result = ir.to_proto(ready)
    assert ir.to_proto(again).SerializeToString(deterministic=True) == result.SerializeToString(deterministic=True)
    onnx.checker.check_model(result, full_check=True)
    assert ready.opset_imports[""] >= opset
    names = [node.name for node in ready.graph]
    assert all(names)
    assert len(set(names)) == len(names)
    assert "Constant" not in {node.op_type for node in ready.graph}
    assert [value.name for value in result.graph.output] == [value.name for value in proto.graph.output]
    given = {tensor.name for tensor in proto.graph.initializer}
    wanted = [value.name for value in proto.graph.input if value.name not in given]
    assert [value.name for value in result.graph.input if value.name not in given] == wanted
    assert not list(folder.iterdir())
    return result, notes


def assert_same_function(left: onnx.ModelProto, right: onnx.ModelProto, rows: int = 5, **feed: np.ndarray) -> None:
    given = feed or models.inputs_of(left, rows)
    theirs = models.run(right, given)
    for name, values in models.run(left, given).items():
        np.testing.assert_allclose(theirs[name], values, rtol=1e-4, atol=1e-5, err_msg=name)


@pytest.mark.parametrize("opset", [9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21])
def test_every_opset(opset: int, tmp_path: Path) -> None:
    proto = models.convnet(opset=opset)
    proto.ir_version = 10 if opset >= 21 else 9 if opset >= 19 else 8
    result, notes = prepared(proto, tmp_path)
    assert_same_function(proto, result)
    assert len(layers(ir.from_proto(result).graph)) == 3
    assert notes == ([f"The opset was raised from {opset} to {QDQ_OPSET}."] if opset < QDQ_OPSET else [])


@pytest.mark.parametrize("opset", [11, 17])
def test_blocks_need_a_newer_opset(opset: int, tmp_path: Path) -> None:
    proto = models.convnet(opset=opset)
    result, notes = prepared(proto, tmp_path, opset=BLOCK_OPSET)
    assert_same_function(proto, result)
    assert notes == [f"The opset was raised from {opset} to {BLOCK_OPSET}."]


def test_weights_that_an_old_exporter_lists_as_inputs_are_constant(tmp_path: Path) -> None:
    proto = models.convnet(opset=9)
    proto.ir_version = 3
    proto.graph.input.extend(port(tensor.name, list(tensor.dims)) for tensor in proto.graph.initializer)
    result, _ = prepared(proto, tmp_path)
    assert_same_function(models.convnet(), result, image=models.inputs_of(models.convnet())["image"])
    assert [layer.name for layer in layers(ir.from_proto(result).graph)] == ["conv", "hidden", "out"]


def test_constant_nodes_become_initializers(tmp_path: Path) -> None:
    result, _ = prepared(models.constant_mlp(), tmp_path)
    assert_same_function(models.constant_mlp(), result)
    assert len(layers(ir.from_proto(result).graph)) == 2


@pytest.mark.parametrize("value", [{"value_float": 2.5}, {"value_floats": [1.0, 2.0, 3.0]}], ids=["one", "list"])
def test_constants_of_other_kinds(value: dict[str, object], tmp_path: Path) -> None:
    made = helper.make_node("Constant", [], ["k"], "k", **value)
    nodes = [made, helper.make_node("Mul", ["x", "k"], ["y"], "times")]
    proto = models.assemble(nodes, [port("x", ["n", 3])], [port("y", ["n", 3])])
    result, _ = prepared(proto, tmp_path)
    assert_same_function(proto, result)


def test_weights_behind_identity(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Identity", ["w"], ["w1"], "i1"),
        helper.make_node("Identity", ["w1"], ["w2"], "i2"),
        helper.make_node("MatMul", ["x", "w2"], ["h"], "first"),
        helper.make_node("MatMul", ["h", "w1"], ["y"], "second"),
    ]
    proto = models.assemble(nodes, [port("x", ["n", 4])], [port("y", ["n", 4])], {"w": weights(4, 4)})
    result, _ = prepared(proto, tmp_path)
    assert_same_function(proto, result)
    assert [layer.name for layer in layers(ir.from_proto(result).graph)] == ["first", "second"]


def test_a_constant_that_is_an_output_stays_one(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Constant", [], ["fixed"], "k", value=numpy_helper.from_array(np.float32([1, 2]), "k")),
        helper.make_node("Relu", ["x"], ["y"], "relu"),
    ]
    proto = models.assemble(nodes, [port("x", ["n", 2])], [port("y", ["n", 2]), port("fixed", [2])])
    result, _ = prepared(proto, tmp_path)
    assert_same_function(proto, result)


@pytest.mark.parametrize("bias", [True, False])
def test_batch_norm_is_folded(bias: bool, tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Conv", ["x", "w", *(["b"] if bias else [])], ["c"], "conv"),
        helper.make_node("BatchNormalization", ["c", "gamma", "beta", "mean", "variance"], ["y"], "norm"),
    ]
    held = {"w": weights(6, 3, 3, 3), "gamma": weights(6), "beta": weights(6), "mean": weights(6)}
    held |= {"variance": np.abs(weights(6)) + 0.1} | ({"b": weights(6)} if bias else {})
    proto = models.assemble(nodes, [port("x", ["n", 3, 6, 6])], [port("y", ["n", 6, 4, 4])], held)
    result, _ = prepared(proto, tmp_path)
    assert [node.op_type for node in result.graph.node] == ["Conv"]
    assert_same_function(proto, result)
    (layer,) = layers(ir.from_proto(result).graph)
    assert layer.bias is not None


def gemms(
    *factors: dict[str, float], bias: np.ndarray, weight: np.ndarray | None = None, shared: bool = True
) -> onnx.ModelProto:
    """Gemms in a chain, four features wide, with one bias and maybe one weight for all."""
    held = {"b": bias}
    nodes = []
    for number, factor in enumerate(factors):
        name = "w" if shared else f"w{number}"
        held[name] = held.get(name, weights(4, 4) if weight is None else weight)
        source, target = ("x" if number == 0 else f"h{number}"), f"h{number + 1}"
        nodes.append(helper.make_node("Gemm", [source, name, "b"], [target], f"gemm{number}", **factor))
    nodes.append(helper.make_node("Neg", [f"h{len(factors)}"], ["y"], "end"))
    return models.assemble(nodes, [port("x", [5, 4])], [port("y", [5, 4])], held)


@pytest.mark.parametrize("bias", [(4,), (1, 4), (1,), (), (5, 4), (5, 1)], ids=str)
@pytest.mark.parametrize("shared", [True, False])
def test_factors_of_gemms_that_share_constants(bias: tuple[int, ...], shared: bool, tmp_path: Path) -> None:
    factors: tuple[dict[str, float], ...] = (
        {"alpha": 0.5, "beta": 2.0},
        {},
        {"beta": -1.0},
        {"alpha": 3.0, "transB": 1},
    )
    proto = gemms(*factors, bias=weights(*bias), shared=shared)
    result, _ = prepared(proto, tmp_path)
    assert_same_function(proto, result)
    found = layers(ir.from_proto(result).graph)
    assert [layer.name for layer in found] == ["gemm0", "gemm1", "gemm2", "gemm3"]
    read = {name for node in result.graph.node for name in node.input}
    assert {tensor.name for tensor in result.graph.initializer} <= read, "an initializer that nothing reads costs bytes"


def test_a_beta_of_zero(tmp_path: Path) -> None:
    proto = gemms({"beta": 0.0}, {"alpha": 0.0}, bias=weights(4))
    result, _ = prepared(proto, tmp_path)
    assert_same_function(proto, result)


def test_factors_of_doubles_keep_the_type(tmp_path: Path) -> None:
    nodes = [helper.make_node("Gemm", ["x", "w", "b"], ["y"], "gemm", alpha=0.5, beta=2.0)]
    held = {"w": weights(4, 3).astype(np.float64), "b": weights(3).astype(np.float64)}
    proto = models.assemble(
        nodes, [port("x", ["n", 4], TensorProto.DOUBLE)], [port("y", ["n", 3], TensorProto.DOUBLE)], held
    )
    result, _ = prepared(proto, tmp_path)
    assert_same_function(proto, result, x=weights(5, 4).astype(np.float64))


def test_factors_of_what_is_not_constant_are_kept(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Transpose", ["x"], ["t"], "turn"),
        helper.make_node("Gemm", ["x", "t", "x"], ["y"], "gemm", alpha=0.5, beta=2.0),
    ]
    proto = models.assemble(nodes, [port("x", [4, 4])], [port("y", [4, 4])])
    result, _ = prepared(proto, tmp_path)
    assert_same_function(proto, result)
    assert layers(ir.from_proto(result).graph) == []


def chain(names: list[str]) -> onnx.ModelProto:
    nodes = [
        helper.make_node("Conv", ["x" if i == 0 else f"c{i}", f"w{i}"], [f"c{i + 1}"], name)
        for i, name in enumerate(names)
    ]
    nodes.append(helper.make_node("Identity", [f"c{len(names)}"], ["y"]))
    held = {f"w{i}": weights(3, 3, 1, 1) for i in range(len(names))}
    return models.assemble(nodes, [port("x", ["n", 3, 4, 4])], [port("y", ["n", 3, 4, 4])], held)


@pytest.mark.parametrize(
    "names",
    [["", "", ""], ["same", "same", "same"], ["a", "", "Conv_1", "a"], ["Conv_2", "", "", "Conv_1"]],
    ids=["none", "same", "some", "taken"],
)
def test_names_are_given_and_kept(names: list[str], tmp_path: Path) -> None:
    proto = chain(names)
    result, _ = prepared(proto, tmp_path)
    for node in proto.graph.node:
        node.name = ""  # the runtime loads no model with a name twice
    assert_same_function(proto, result)
    found = [node.name for node in result.graph.node if node.op_type == "Conv"]
    unique = [name for name in names if name and names.count(name) == 1]
    assert [name for name in found if name in unique] == unique
    assert found[0] == names[0] or not names[0]


def test_prepared_twice_is_prepared_once(tmp_path: Path) -> None:
    once, _ = prepared(chain(["", "b", "b"]), tmp_path)
    twice, notes = prepared(once, tmp_path)
    assert [node.name for node in twice.graph.node] == [node.name for node in once.graph.node]
    assert notes == []


@pytest.mark.parametrize("opset", [11, 13, 17])
def test_sub_graphs_keep_what_they_read_from_outside(opset: int, tmp_path: Path) -> None:
    proto = models.branching()
    proto.opset_import[0].version = opset
    result, _ = prepared(proto, tmp_path)
    for sign in (1, -1):
        assert_same_function(proto, result, x=sign * np.abs(weights(3, 16)))


def test_a_sub_graph_that_reads_a_constant_of_the_outer_graph(tmp_path: Path) -> None:
    def branch(name: str, operator: str) -> onnx.GraphProto:
        node = helper.make_node(operator, ["h", "w"], [f"{name}_out"], f"{name}_node")
        return helper.make_graph([node], name, [], [port(f"{name}_out", ["n", 4])])

    nodes = [
        helper.make_node("Constant", [], ["w"], "k", value=numpy_helper.from_array(weights(4, 4), "k")),
        helper.make_node("Gemm", ["x", "w"], ["h"], "gemm", alpha=2.0),
        helper.make_node(
            "If", ["flag"], ["y"], "if", then_branch=branch("t", "MatMul"), else_branch=branch("e", "Gemm")
        ),
    ]
    proto = models.assemble(nodes, [port("x", ["n", 4]), port("flag", [], TensorProto.BOOL)], [port("y", ["n", 4])])
    result, _ = prepared(proto, tmp_path)
    for flag in (True, False):
        assert_same_function(proto, result, x=weights(3, 4), flag=np.array(flag))


@pytest.mark.parametrize("name", [name for name in models.FACTORY if name != "quantized"])
def test_every_kind_of_model_keeps_its_function(name: str, tmp_path: Path) -> None:
    proto = models.FACTORY[name]()
    result, _ = prepared(proto, tmp_path)
    assert_same_function(proto, result)


def test_whole_numbers_in(tmp_path: Path) -> None:
    proto = models.embedding()
    result, _ = prepared(proto, tmp_path)
    ids = np.random.default_rng(1).integers(0, 10, (3, 5))
    assert_same_function(proto, result, ids=ids, mask=np.ones((3, 5), np.int64))


def test_a_quantized_model_is_refused() -> None:
    with pytest.raises(TechniqueFailed, match=r"quantized already.*DequantizeLinear") as caught:
        refuse_quantized(ir.from_proto(models.quantized()))
    assert caught.value.hint
    refuse_quantized(ir.from_proto(models.branching()))


def test_an_opset_that_cannot_be_raised_is_refused(tmp_path: Path) -> None:
    node = helper.make_node("Upsample", ["x", "s"], ["y"], "up", mode="linear")
    held = {"s": np.float32([1, 1, 2, 2])}
    proto = models.assemble([node], [port("x", [1, 1, 2, 2])], [port("y", [1, 1, 4, 4])], held, opset=9)
    try:
        prepare(ir.from_proto(proto), tmp_path)
    except TechniqueFailed as error:
        assert "opset 9" in error.message
        assert "17" in str(error.hint)


def test_a_model_that_the_runtime_does_not_load_is_refused(tmp_path: Path) -> None:
    node = helper.make_node("MatMul", ["x", "w"], ["y"], "product")
    proto = models.assemble([node], [port("x", ["n", 5])], [port("y", ["n", 3])], {"w": weights(4, 3)})
    with pytest.raises(TechniqueFailed, match="cannot load"):
        prepare(ir.from_proto(proto), tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_new_constant_takes_no_name_that_a_value_has() -> None:
    model = ir.from_proto(models.convnet())
    names = {value.name for node in model.graph for value in node.outputs} | {
        value.name for value in model.graph.inputs
    }
    for taken in ("conv_w", "c", "image", "scores"):
        made = graph_constant(model.graph, taken, np.float32([1, 2]))
        assert made.name not in names | {"conv_w"}
        found = constant(made)
        assert found is not None
        np.testing.assert_array_equal(found, [1, 2])
    onnx.checker.check_model(ir.to_proto(model))


def test_a_new_constant_of_four_bits() -> None:
    model = ir.from_proto(models.convnet(opset=21))
    made = graph_constant(model.graph, "four", np.int8([-8, 7, 3]), ir.DataType.INT4)
    (tensor,) = [t for t in ir.to_proto(model).graph.initializer if t.name == made.name]
    assert tensor.data_type == TensorProto.INT4
    assert len(tensor.raw_data) == 2
    assert numpy_helper.to_array(tensor).astype(int).tolist() == [-8, 7, 3]
