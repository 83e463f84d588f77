"""Files are judged by their bytes, refused with a code and a hint, and described as they are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from accel.errors import AccelError, BadModel, TooLarge
from accel.graph import load
from accel.graph.check import MAX_DEPTH, check
from accel.graph.inspect import inspect_file, summarize
from accel.graph.simplify import simplify
from tests import hostile, models


@pytest.mark.parametrize("file", hostile.FILES, ids=lambda file: file.name)
def test_hostile_file_is_refused(file: hostile.Hostile, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(file.make())
    with pytest.raises(AccelError) as caught:
        load.load_proto(path)
    assert caught.value.code == file.code
    assert file.says in f"{caught.value.message} {caught.value.hint}"
    assert str(tmp_path) not in caught.value.message
    assert sorted(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("file", [f for f in hostile.FILES if f.code != "bad_model"], ids=lambda file: file.name)
def test_refusal_of_a_whole_file_says_what_helps(file: hostile.Hostile, tmp_path: Path) -> None:
    if file.name == "raw_data_terabytes":
        return  # what it claims is absurd: nothing helps
    path = tmp_path / "model.onnx"
    path.write_bytes(file.make())
    with pytest.raises(AccelError) as caught:
        load.load_proto(path)
    assert caught.value.hint


def test_nesting_has_a_bound(tmp_path: Path) -> None:
    """Beyond the engine's bound a refusal that says so; far beyond, protobuf's own: never an endless descent."""
    path = tmp_path / "deep.onnx"
    path.write_bytes(hostile.nested(MAX_DEPTH))
    assert inspect_file(path).operators["If"] == MAX_DEPTH
    path.write_bytes(hostile.nested(MAX_DEPTH + 1))
    with pytest.raises(TooLarge, match="nested"):
        load.load_proto(path)
    path.write_bytes(hostile.nested(1_000))
    with pytest.raises(BadModel):
        load.load_proto(path)


@pytest.mark.parametrize("name", models.FACTORY)
def test_good_models_load_and_come_back_the_same(name: str, tmp_path: Path) -> None:
    model = models.FACTORY[name]()
    path = models.save(model, tmp_path / "model.onnx")
    load.save(load.load(path), tmp_path / "again.onnx")
    feed = models.inputs_of(model)
    for output, array in models.run(tmp_path / "again.onnx", feed).items():
        np.testing.assert_array_equal(array, models.run(path, feed)[output])
    load.save(load.load(path), tmp_path / "thrice.onnx")
    assert (tmp_path / "again.onnx").read_bytes() == (tmp_path / "thrice.onnx").read_bytes()


@given(data=st.binary(max_size=400))
def test_any_bytes_are_refused_or_loaded(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "any.onnx"
    path.write_bytes(data)
    with pytest.raises(AccelError):
        load.load_proto(path)


@given(place=st.integers(0, 2**31), value=st.integers(0, 255))
def test_one_wrong_byte_gives_a_refusal_or_a_model(
    tmp_path_factory: pytest.TempPathFactory, place: int, value: int
) -> None:
    """A bit flip in a real file never leads to anything but an engine's error, or a model that can be described."""
    data = bytearray(models.quantized().SerializeToString())
    data[place % len(data)] = value
    path = tmp_path_factory.getbasetemp() / "flipped.onnx"
    path.write_bytes(data)
    try:
        summary = inspect_file(path)
    except AccelError as error:
        assert error.message
    else:
        assert summary.model_dump_json()


def test_four_bit_tensors_fit_by_their_bits() -> None:
    """Two values share a byte, and an odd last one has its own."""
    model = models.assemble(
        [
            helper.make_node("DequantizeLinear", ["w", "s"], ["d"], "dq"),
            helper.make_node("Add", ["x", "d"], ["y"], "add"),
        ],
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [5])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [5])],
        {"s": np.float32(0.1)},
        opset=21,
    )
    model.ir_version = 10
    model.graph.initializer.append(
        TensorProto(name="w", data_type=TensorProto.INT4, dims=[5], raw_data=b"\x11\x11\x01")
    )
    check(model)
    model.graph.initializer[-1].raw_data = b"\x11\x11"
    with pytest.raises(BadModel, match="3 bytes"):
        check(model)


def test_inspect_convnet(tmp_path: Path) -> None:
    """Figures that were worked out by hand."""
    summary = inspect_file(models.save(models.convnet(), tmp_path / "m.onnx"))
    assert summary.parameters == models.CONVNET_PARAMETERS == 8_596
    assert summary.macs == models.CONVNET_MACS == 13_056
    assert summary.quantized is False
    assert [(i.name, i.dtype, i.shape) for i in summary.inputs] == [("image", "float32", ("batch", 1, 8, 8))]
    assert [(o.name, o.shape) for o in summary.outputs] == [("scores", ("batch", 4))]
    assert summary.opset == {"ai.onnx": 17}
    assert summary.operators == {"Conv": 1, "Flatten": 1, "Gemm": 2, "MaxPool": 1, "Relu": 2}
    assert summary.notes == ()


def test_macs_are_those_of_one_sample_where_the_batch_is_open() -> None:
    assert summarize(models.convnet()).macs == summarize(models.opset_11()).macs == models.CONVNET_MACS
    # A batch of four that the model insists on is four samples of work.
    assert summarize(models.fixed_batch()).macs == 4 * models.CONVNET_MACS


def test_inspect_counts_weights_in_constant_nodes() -> None:
    summary = summarize(models.constant_mlp())
    assert summary.parameters == models.CONSTANT_MLP_PARAMETERS == 1_344
    assert summary.macs == models.CONSTANT_MLP_MACS == 1_280


def test_inspect_quantized() -> None:
    """Scales and zero points are no parameters; the integer weight is."""
    summary = summarize(models.quantized())
    assert summary.quantized
    assert summary.parameters == 16 * 4
    assert summary.macs == 16 * 4


def test_inspect_looks_into_branches() -> None:
    summary = summarize(models.branching())
    assert summary.operators["Mul"] == 2
    assert summary.parameters == 16 * 4 + 4 + 1 + 1 + 1  # gemm, the zero, and a factor in each branch
    assert summary.macs == 16 * 4
    assert any("not counted" in note for note in summary.notes)


def test_depthwise_convolution_has_a_kernel_for_each_group() -> None:
    weight = np.ones((6, 1, 3, 3), np.float32)
    node = helper.make_node("Conv", ["x", "w"], ["y"], "dw", group=6, strides=[2, 2], pads=[1, 1, 1, 1])
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 6, 8, 8])]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)]
    summary = summarize(models.assemble([node], inputs, outputs, {"w": weight}))
    assert summary.macs == 6 * 4 * 4 * 9
    assert summary.outputs[0].shape is None


def test_macs_unknown_where_shapes_are_open() -> None:
    """Unknown is None with a reason, never 0."""
    node = helper.make_node("MatMul", ["x", "w"], ["y"], "product")
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", "length", 8])]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", "length", 2])]
    summary = summarize(models.assemble([node], inputs, outputs, {"w": np.ones((8, 2), np.float32)}))
    assert summary.macs is None
    assert any("unknown" in note for note in summary.notes)


def test_lstm_macs() -> None:
    """Each step multiplies the input by W [4h, i] and the state by R [4h, h]."""
    steps, features, hidden = 5, 3, 2
    weights = {
        "w": np.ones((1, 4 * hidden, features), np.float32),
        "r": np.ones((1, 4 * hidden, hidden), np.float32),
    }
    node = helper.make_node("LSTM", ["x", "w", "r"], ["y"], "lstm", hidden_size=hidden)
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, [steps, 1, features])]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, [steps, 1, 1, hidden])]
    summary = summarize(models.assemble([node], inputs, outputs, weights))
    assert summary.macs == steps * (4 * hidden * features + 4 * hidden * hidden)


def test_weights_that_are_also_inputs_are_not_the_callers_business() -> None:
    """Old exporters list initializers among the inputs."""
    model = models.linear(np.ones((3, 2), np.float32))
    model.graph.input.append(helper.make_tensor_value_info("w", TensorProto.FLOAT, [3, 2]))
    assert [port.name for port in summarize(model).inputs] == ["x"]


def test_simplify_folds_and_keeps_the_signature(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Identity", ["x"], ["i"], "identity"),
        helper.make_node("Add", ["one", "one"], ["two"], "constant"),
        helper.make_node("Mul", ["i", "two"], ["y"], "mul"),
        helper.make_node("Exp", ["x"], ["unused"], "dead"),
    ]
    ports = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 3]) for name in ("x", "y")]
    model = models.assemble(nodes, ports[:1], ports[1:], {"one": np.ones(3, np.float32)})
    before = onnx.ModelProto.FromString(model.SerializeToString())
    ir = load.load(models.save(model, tmp_path / "m.onnx"))
    simple = simplify(ir, tmp_path)
    assert [node.op_type for node in simple.graph] == ["Mul"]
    assert [value.name for value in (*simple.graph.inputs, *simple.graph.outputs)] == ["x", "y"]
    load.save(ir, tmp_path / "untouched.onnx")
    load.save(simple, tmp_path / "simple.onnx")
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    np.testing.assert_allclose(models.run(tmp_path / "simple.onnx", {"x": x})["y"], 2 * x)
    assert len(onnx.load(tmp_path / "untouched.onnx").graph.node) == len(before.graph.node)
    assert {path.name for path in tmp_path.iterdir()} == {"m.onnx", "untouched.onnx", "simple.onnx"}


def test_simplify_leaves_only_standard_domains(tmp_path: Path) -> None:
    for name in ("convnet", "constant_mlp", "branching"):
        path = models.save(models.FACTORY[name](), tmp_path / "m.onnx")
        simple = simplify(load.load(path), tmp_path)
        assert set(simple.opset_imports) <= {""}
        load.save(simple, tmp_path / "s.onnx")
        load.load_proto(tmp_path / "s.onnx")


def test_save_replaces_whole_files_only(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    load.save_proto(models.regression(), path)
    load.save_proto(models.quantized(), path)
    assert load.load_proto(path).graph.node[0].op_type == "QuantizeLinear"
    assert [p.name for p in tmp_path.iterdir()] == ["m.onnx"]


def test_names_that_are_no_text_are_refused(tmp_path: Path) -> None:
    """Names with bytes that are not UTF-8 could not be told to anybody in JSON."""
    model = models.linear(np.ones((3, 2), np.float32), name="scoresscores")
    path = tmp_path / "m.onnx"
    for wrong in (b"scores\xff\xfecore", b"scores\xed\xa0\x80cor", b"scores\0\0\0\0\0\0"):
        path.write_bytes(model.SerializeToString().replace(b"scoresscores", wrong))
        with pytest.raises(BadModel, match="UTF-8"):
            inspect_file(path)


def test_numpy_helper_reads_what_check_lets_through(tmp_path: Path) -> None:
    """Values kept in typed fields instead of raw bytes are fine."""
    model = models.linear(np.ones((2, 2), np.float32))
    typed = helper.make_tensor("w", TensorProto.FLOAT, [2, 2], [1.0, 2.0, 3.0, 4.0])
    model.graph.initializer[0].CopyFrom(typed)
    loaded = load.load_proto(models.save(model, tmp_path / "m.onnx"))
    assert numpy_helper.to_array(loaded.graph.initializer[0]).tolist() == [[1, 2], [3, 4]]
