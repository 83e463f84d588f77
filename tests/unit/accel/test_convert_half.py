"""16-bit floats: what is converted, what is not for want of range, and what is said about it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir
import pytest
from onnx import TensorProto, helper, numpy_helper

from accel.context import Context
from accel.errors import TechniqueFailed
from accel.technique import Technique
from accel.techniques.convert_bfloat16 import ConvertBfloat16
from accel.techniques.convert_float16 import ConvertFloat16
from tests import models

FLOAT, HALF, BFLOAT = TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16
Weights = dict[str, np.ndarray]


def random(*shape: int, scale: float = 0.5) -> np.ndarray:
    """Normal numbers, the same for the same shape."""
    return (np.random.default_rng([7, *shape]).standard_normal(shape) * scale).astype(np.float32)


def port(name: str, *shape: int | str, dtype: int = FLOAT) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, dtype, list(shape))


def chain(
    *steps: tuple[str, list[str], dict[str, Any]], weights: Weights | None = None, width: int = 8
) -> onnx.ModelProto:
    """A model of x [n, width] whose nodes each make ``t0``, ``t1``, ...; the last makes y."""
    nodes = [
        helper.make_node(
            operator, inputs, ["y" if number == len(steps) - 1 else f"t{number}"], f"n{number}", **attributes
        )
        for number, (operator, inputs, attributes) in enumerate(steps)
    ]
    proto = models.assemble(nodes, [port("x", "n", width)], [port("y", "n", "m")], weights)
    proto.graph.output[0].type.tensor_type.ClearField("shape")
    return proto


def converted(proto: onnx.ModelProto, technique: Technique | None = None) -> tuple[onnx.ModelProto, list[str]]:
    context = Context(Path(), 0, lambda *_: None)
    made: onnx.ModelProto = onnx_ir.to_proto((technique or ConvertFloat16()).apply(onnx_ir.from_proto(proto), context))
    onnx.checker.check_model(made, full_check=True)
    return made, context.notes


def types(proto: onnx.ModelProto) -> dict[str, int]:
    return {tensor.name: tensor.data_type for tensor in proto.graph.initializer}


def close(proto: onnx.ModelProto, made: onnx.ModelProto, feed: dict[str, np.ndarray], share: float = 2e-3) -> None:
    """The outputs agree to about three digits."""
    given = {value.name: value.type.tensor_type.elem_type for value in made.graph.input}
    halved = {name: array.astype(np.float16) if given[name] == HALF else array for name, array in feed.items()}
    expected, found = models.run(proto, feed), models.run(made, halved)
    for name, array in expected.items():
        assert np.isfinite(found[name]).all()
        assert np.abs(found[name] - array).max() <= share * np.abs(array).max()


X = random(5, 8)


@pytest.mark.parametrize("name", ["convnet", "opset_11", "constant_mlp", "regression", "branching"])
@pytest.mark.parametrize("keep", [True, False])
def test_all_weights_are_halved_and_little_changes(name: str, keep: bool) -> None:
    proto = models.FACTORY[name]()
    made, notes = converted(proto, ConvertFloat16(keep_io_types=keep))
    assert FLOAT not in {kind for tensor, kind in types(made).items() if tensor != "zero"}
    ports = (*made.graph.input, *made.graph.output)
    assert {value.type.tensor_type.elem_type for value in ports} == {FLOAT if keep else HALF}
    close(proto, made, models.inputs_of(proto))
    assert notes[-1].startswith("Processors without 16-bit arithmetic")


def test_operators_of_every_kind_can_be_in_between() -> None:
    """An input that must stay float32 (Resize), a type that an attribute says, and outputs that are no floats."""
    steps = (
        ("Shape", ["x"], {}),
        ("ConstantOfShape", ["t0"], {"value": numpy_helper.from_array(np.float32([0.5]))}),
        ("Add", ["x", "t1"], {}),
        ("Reshape", ["t2", "image"], {}),
        ("Resize", ["t3", "", "scales"], {"mode": "nearest"}),
        ("Greater", ["t4", "zero"], {}),
        ("Cast", ["t5"], {"to": FLOAT}),
        ("Mul", ["t4", "t6"], {}),
    )
    weights = {"image": np.array([-1, 1, 2, 4]), "scales": np.float32([1, 1, 2, 2]), "zero": np.float32(0)}
    proto = chain(*steps, weights=weights)
    made, notes = converted(proto)
    assert types(made)["scales"] == FLOAT
    assert not any("stay in float32" in note for note in notes)
    close(proto, made, {"x": X})


def test_a_weight_beyond_the_range_stays_and_is_named() -> None:
    w = random(8, 4)
    w[2, 1] = 70_000
    proto = chain(
        ("MatMul", ["x", "w"], {}), ("Relu", ["t0"], {}), ("MatMul", ["t1", "v"], {}),
        weights={"w": w, "v": random(4, 300, scale=1e-2)},
    )  # fmt: skip
    made, notes = converted(proto)
    assert types(made) == {"w": FLOAT, "v_float16": HALF}
    assert "n0 stays in float32: its constant 'w' reaches 7e+04, beyond 65504, which float16 does not hold." in notes
    close(proto, made, {"x": X * 10})


def test_powers_and_sums_keep_their_range_until_it_is_tamed() -> None:
    """The magnitude of a spectrum: squares of hundreds are beyond 65,504, their root is not."""
    steps = (
        ("Pow", ["x", "two"], {}),
        ("Add", ["t0", "t0"], {}),
        ("Sqrt", ["t1"], {}),
        ("MatMul", ["t2", "w"], {}),
    )
    proto = chain(*steps, weights={"two": np.float32(2), "w": random(8, 4)})
    made, notes = converted(proto)
    assert any(note.endswith("1 Add, 1 Pow, 1 Sqrt.") for note in notes)
    assert types(made)["w_float16"] == HALF
    close(proto, made, {"x": X * 1000})
    square = chain(("Mul", ["x", "x"], {}), ("ReduceMean", ["t0"], {"axes": [1]}), ("Sqrt", ["t1"], {}))
    close(square, converted(square)[0], {"x": X * 1000})


def test_what_keeps_a_divisor_from_zero_does_not_vanish() -> None:
    steps = (
        ("ReduceMean", ["x"], {"axes": [1]}),
        ("Sub", ["x", "t0"], {}),
        ("Mul", ["t1", "t1"], {}),
        ("ReduceMean", ["t2"], {"axes": [1]}),
        ("Add", ["t3", "eps"], {}),
        ("Sqrt", ["t4"], {}),
        ("Div", ["t1", "t5"], {}),
    )
    proto = chain(*steps, weights={"eps": np.float32(1e-12)})
    made, notes = converted(proto)
    assert any("'eps' is 1e-12 at most" in note for note in notes)
    close(proto, made, {"x": np.concatenate([X, np.ones((1, 8), np.float32)])})


def test_a_mask_of_the_lowest_float_is_no_infinity() -> None:
    """A row that is masked wholly is even, not NaN."""
    lowest = np.full(8, np.finfo(np.float32).min)
    proto = chain(("Add", ["x", "mask"], {}), ("Softmax", ["t0"], {}), weights={"mask": lowest})
    close(proto, converted(proto)[0], {"x": X})


def test_an_infinite_bound_is_no_reason_to_stay() -> None:
    top = np.float32(np.finfo(np.float32).max)
    proto = chain(("Clip", ["x", "low", "top"], {}), weights={"low": np.float32(0), "top": top})
    made, notes = converted(proto)
    assert len(notes) == 1
    close(proto, made, {"x": X})


def test_large_whole_numbers_stay_exact_on_their_way() -> None:
    steps = (("Cast", ["x"], {"to": TensorProto.INT64}), ("Cast", ["t0"], {"to": FLOAT}), ("Mul", ["t1", "tiny"], {}))
    proto = chain(*steps, weights={"tiny": np.float32(1e-6)})
    x = np.float32([[2049, 100_001, 1e6, 3, 0, 1, 2, 70_000]])
    close(proto, converted(proto)[0], {"x": x}, share=1e-6)


def test_a_weight_of_an_operator_that_stays_is_stored_in_half_all_the_same() -> None:
    """And once, where another operator computes with it in float16."""
    nodes = [
        helper.make_node("Exp", ["x"], ["e"], "grows"),
        helper.make_node("MatMul", ["e", "w"], ["a"], "stays"),
        helper.make_node("MatMul", ["x", "w"], ["b"], "goes"),
    ]
    proto = models.assemble(nodes, [port("x", "n", 8)], [port("a", "n", 20), port("b", "n", 20)], {"w": random(8, 20)})
    made, notes = converted(proto)
    assert types(made) == {"w_float16": HALF}
    assert any("1 Exp, 1 MatMul." in note for note in notes)
    close(proto, made, {"x": X})


def recursive() -> onnx.ModelProto:
    """An If whose branches compute with a value from outside, and hold the weights as Constant nodes."""

    def branch(name: str, operator: str) -> onnx.GraphProto:
        weight = helper.make_node("Constant", [], [f"{name}_w"], value=numpy_helper.from_array(random(8, 40)))
        nodes = [
            weight,
            helper.make_node("MatMul", ["r", f"{name}_w"], [f"{name}_m"], f"{name}_product"),
            helper.make_node("ReduceSum", ["x"], [f"{name}_s"], f"{name}_sum", keepdims=1),
            helper.make_node("Exp", ["r"], [f"{name}_e"], f"{name}_exp"),
            helper.make_node("ReduceMax", [f"{name}_e"], [f"{name}_t"], f"{name}_max", keepdims=1),
            helper.make_node(operator, [f"{name}_m", f"{name}_s"], [f"{name}_a"], f"{name}_join"),
            helper.make_node("Add", [f"{name}_a", f"{name}_t"], [f"{name}_y"], f"{name}_add"),
        ]
        return helper.make_graph(nodes, name, [], [port(f"{name}_y", "n", 40)])

    nodes = [
        helper.make_node("Relu", ["x"], ["r"], "relu"),
        helper.make_node(
            "If", ["yes"], ["y"], "choose", then_branch=branch("then", "Add"), else_branch=branch("else", "Sub")
        ),
    ]
    return models.assemble(nodes, [port("x", "n", 8), port("yes", 1, dtype=TensorProto.BOOL)], [port("y", "n", 40)])


@pytest.mark.parametrize(
    "technique",
    [ConvertFloat16(), ConvertFloat16(keep_io_types=False), ConvertFloat16(compute="float32"), ConvertBfloat16()],
)
def test_sub_graphs_are_converted_too(technique: Technique) -> None:
    proto = recursive()
    made, _ = converted(proto, technique)
    kinds = {tensor.data_type for node in made.graph.node for held in node.attribute for tensor in held.g.initializer}
    assert kinds
    assert FLOAT not in kinds
    for yes in (True, False):
        close(proto, made, {"x": X, "yes": np.array([yes])}, share=0.01)


def rounded(proto: onnx.ModelProto, dtype: str) -> onnx.ModelProto:
    """The model with its large weights rounded to 16 bits, in float32."""
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    for tensor in copy.graph.initializer:
        array = numpy_helper.to_array(tensor)
        if array.size >= 128:
            made = onnx_ir.tensor(array.astype(onnx_ir.DataType[dtype].numpy())).numpy().astype(np.float32)
            tensor.CopyFrom(numpy_helper.from_array(made, tensor.name))
    return copy


@pytest.mark.parametrize(
    ("technique", "dtype"), [(ConvertFloat16(compute="float32"), "FLOAT16"), (ConvertBfloat16(), "BFLOAT16")]
)
def test_stored_in_half_it_computes_in_float(technique: Technique, dtype: str) -> None:
    proto = models.convnet()
    made, notes = converted(proto, technique)
    kind = TensorProto.DataType.Value(dtype)
    name = dtype.lower()
    assert types(made) == {
        f"hidden_w_{name}": kind, f"out_w_{name}": kind, "conv_w": FLOAT, "conv_b": FLOAT, "hidden_b": FLOAT, "out_b": FLOAT,
    }  # fmt: skip
    assert notes == [
        f"2 constants with 8448 numbers are stored as {name}, and converted to float32 when the file is loaded."
    ]
    feed = models.inputs_of(proto)
    np.testing.assert_array_equal(models.run(made, feed)["scores"], models.run(rounded(proto, dtype), feed)["scores"])
    assert len(made.SerializeToString()) < 0.6 * len(proto.SerializeToString())


@pytest.mark.parametrize(("technique", "top"), [(ConvertFloat16(compute="float32"), 1e5), (ConvertBfloat16(), 3.4e38)])
def test_constants_that_16_bits_do_not_hold_stay(technique: Technique, top: float) -> None:
    w = random(16, 40)
    w[0, 0] = top
    made, notes = converted(models.linear(w), technique)
    assert types(made) == {"w": FLOAT}
    assert "'w' stays in float32" in notes[-1]


def test_bfloat16_keeps_the_range_of_float32() -> None:
    w = random(16, 40)
    w[0, 0] = 1e30
    made, _ = converted(models.linear(w), ConvertBfloat16())
    assert types(made) == {"w_bfloat16": BFLOAT}


def test_an_old_opset_is_raised_for_bfloat16(tmp_path: Path) -> None:
    context = Context(tmp_path, 0, lambda *_: None)
    made = ConvertBfloat16().apply(onnx_ir.from_proto(models.opset_11()), context)
    assert made.opset_imports[""] == 13
    assert context.notes[0] == "The opset was raised from 11 to 13."


def test_a_model_without_floats_stays_and_says_so() -> None:
    node = helper.make_node("Add", ["x", "x"], ["y"], "add")
    ports = ([port("x", "n", dtype=TensorProto.INT64)], [port("y", "n", dtype=TensorProto.INT64)])
    for technique, words in (
        (ConvertFloat16(), "Nothing computes in float16"),
        (ConvertBfloat16(), "nothing was converted"),
    ):
        _, notes = converted(models.assemble([node], *ports), technique)
        assert words in notes[0]


@pytest.mark.parametrize("technique", [ConvertFloat16(), ConvertBfloat16()])
def test_a_quantized_model_is_refused(technique: Technique) -> None:
    with pytest.raises(TechniqueFailed, match="quantized already"):
        converted(models.quantized(), technique)
