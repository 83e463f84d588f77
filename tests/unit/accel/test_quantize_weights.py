"""Weights stored as integers: every form runs, is small, and is what the runtime was meant to see."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper
from pydantic import ValidationError

from accel.context import Context
from accel.errors import DataRequired, TechniqueFailed
from accel.graph.inspect import summarize
from accel.graph.load import load_proto, save
from accel.techniques.optimize_graph import OptimizeGraph
from accel.techniques.quantize_weights import QuantizeWeights
from tests import models
from tests.unit.accel.test_gram import Samples, random

FORMATS = ("unpack", "dequantize", "matmul_nbits")


def apply(
    proto: onnx.ModelProto, folder: Path, data: Samples | None = None, **parameters: Any
) -> tuple[onnx.ModelProto, Context]:
    """The result, written, checked and read again; and what was noted."""
    model = ir.from_proto(proto)
    before = ir.to_proto(model).SerializeToString(deterministic=True)
    context = Context(folder, 0, lambda *_: None, data)
    result = QuantizeWeights(**parameters).apply(model, context)
    assert ir.to_proto(model).SerializeToString(deterministic=True) == before, "the given model was changed"
    save(result, folder / "result.onnx")
    again = load_proto(folder / "result.onnx")
    assert [port.name for port in again.graph.output] == [port.name for port in proto.graph.output]
    return again, context


def operators(proto: onnx.ModelProto) -> list[str]:
    return [node.op_type for node in proto.graph.node]


def optimised(proto: onnx.ModelProto, folder: Path) -> list[str]:
    """The operators that ONNX Runtime really runs."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.optimized_model_filepath = str(folder / "optimised.onnx")
    ort.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return operators(onnx.load(folder / "optimised.onnx"))


def off(proto: onnx.ModelProto, result: onnx.ModelProto, feed: dict[str, np.ndarray]) -> float:
    """The largest error of an output, as a share of the largest value."""
    expected, found = models.run(proto, feed), models.run(result, feed)
    return max(float(np.abs(found[n] - e).max() / np.abs(e).max()) for n, e in expected.items())


def mixed() -> onnx.ModelProto:
    """Each operator that is a layer, with odd sizes: [n, 6, 9, 9] to five scores."""
    nodes = [
        helper.make_node("Conv", ["x", "conv", "conv_b"], ["c"], "conv", pads=[1, 1, 1, 1]),
        helper.make_node("Conv", ["c", "deep"], ["d"], "deep", group=14, pads=[1, 1, 1, 1]),
        helper.make_node("ConvTranspose", ["d", "up"], ["u"], "up", strides=[2, 2]),
        helper.make_node("Relu", ["u"], ["r"], "relu"),
        helper.make_node("ReduceMean", ["r"], ["m"], "mean", axes=[2], keepdims=1),
        helper.make_node("MatMul", ["m", "many"], ["p"], "many"),
        helper.make_node("Flatten", ["p"], ["f"], "flatten"),
        helper.make_node("Gemm", ["f", "turned", "turned_b"], ["g"], "turned", transB=1),
        helper.make_node("MatMul", ["g", "last"], ["scores"], "last"),
    ]
    weights = {
        "conv": random(14, 6, 3, 3, seed=1),
        "conv_b": random(14, seed=2),
        "deep": random(14, 1, 3, 3, seed=3),
        "up": random(14, 7, 2, 2, seed=4),
        "many": random(7, 18, 11, seed=5),
        "turned": random(37, 77, seed=6) * np.float32(0.1),
        "turned_b": random(1, 37, seed=7),
        "last": random(37, 50, seed=8),
    }
    return models.assemble(nodes, [models._value("x", ["n", 6, 9, 9])], [models._value("scores", ["n", 50])], weights)


def tied(*, transposed: bool = False) -> onnx.ModelProto:
    """A table that rows are looked up in, and that is multiplied with as well: ids [n, 5] to scores for each of 90 rows."""
    last = (
        [helper.make_node("Gemm", ["m", "table"], ["scores"], "product", transB=1)]
        if transposed
        else [
            helper.make_node("Gather", ["table", "first"], ["t"], "again"),
            helper.make_node("Add", ["t", "m"], ["scores"]),
        ]
    )
    nodes = [
        helper.make_node("Gather", ["table", "ids"], ["e"], "gather"),
        helper.make_node("ReduceMean", ["e"], ["m"], "mean", axes=[1], keepdims=0),
        *last,
    ]
    weights = {"table": random(90, 40), "first": np.array([3], np.int64)}
    width = 90 if transposed else 40
    ids = models._value("ids", ["n", 5], TensorProto.INT64)
    return models.assemble(nodes, [ids], [models._value("scores", ["n", width])], weights)


def ids() -> dict[str, np.ndarray]:
    return {"ids": np.random.default_rng(0).integers(0, 90, (6, 5))}


@pytest.mark.parametrize("form", ["auto", *FORMATS])
@pytest.mark.parametrize(
    ("bits", "block", "symmetric", "limit"),
    [(8, None, True, 0.03), (8, 32, False, 0.03), (6, None, True, 0.08), (4, None, False, 0.3), (4, 16, True, 0.3)],
)
def test_every_form_of_every_layer_runs(
    form: str, bits: int, block: int | None, symmetric: bool, limit: float, tmp_path: Path
) -> None:
    proto = mixed()
    result, _ = apply(proto, tmp_path, bits=bits, block_size=block, symmetric=symmetric, format=form)
    assert off(proto, result, models.inputs_of(proto)) < limit
    assert result.ByteSize() < proto.ByteSize() * (0.6 if bits > 4 else 0.45)
    large = {t.name for t in result.graph.initializer if t.data_type == TensorProto.FLOAT and len(t.raw_data) > 1500}
    assert not large, "a weight was left in float"


@given(
    bits=st.integers(2, 8),
    block=st.none() | st.integers(8, 40),
    symmetric=st.booleans(),
    form=st.sampled_from(FORMATS[:2]),
    shape=st.tuples(st.integers(30, 50), st.integers(20, 40)),
    transposed=st.booleans(),
    constant=st.booleans(),
)
@settings(max_examples=25, deadline=None)
def test_the_file_holds_what_was_rounded(
    tmp_path_factory: pytest.TempPathFactory,
    bits: int,
    block: int | None,
    symmetric: bool,
    form: str,
    shape: tuple[int, int],
    transposed: bool,
    constant: bool,
) -> None:
    """Unit vectors in give the weights back, within half a step and what multiplying in 8 bits adds."""
    weight = random(*shape) if not constant else np.full(shape, np.float32(0.3))
    node = helper.make_node("Gemm", ["x", "w"], ["y"], "g", transB=int(transposed))
    given_weight = np.ascontiguousarray(weight.T) if transposed else weight
    proto = models.assemble(
        [node], [models._value("x", ["n", shape[0]])], [models._value("y", ["n", shape[1]])], {"w": given_weight}
    )
    folder = tmp_path_factory.mktemp("w")
    result, context = apply(
        proto, folder, bits=bits, block_size=block, symmetric=symmetric, format=form, method="nearest"
    )
    found = models.run(result, {"x": np.eye(shape[0], dtype=np.float32)})["y"]
    assert context.quantization is not None
    (report,) = context.quantization.layers
    assert report.weight_scale is not None
    step = report.weight_scale[1] * (0.5 if symmetric else 1.0)
    assert np.abs(found - weight).max() <= step + 0.01 * np.abs(weight).max()


def test_unpacked_weights_cost_nothing_at_run_time(tmp_path: Path) -> None:
    proto = mixed()
    result, context = apply(proto, tmp_path)
    assert "DequantizeLinear" not in operators(result)
    assert sorted(optimised(result, tmp_path)) == sorted(optimised(proto, tmp_path))
    assert any("speed and memory of the float model" in note for note in context.notes)


@pytest.mark.parametrize(("bits", "block"), [(8, None), (8, 64), (4, 32), (4, None), (2, 64)])
@pytest.mark.parametrize("transposed", [False, True])
def test_large_products_stay_integers_where_there_is_a_kernel(
    bits: int, block: int | None, transposed: bool, tmp_path: Path
) -> None:
    """The rule of ``auto`` says what the runtime really does."""
    node = helper.make_node("Gemm", ["x", "w"], ["y"], "g", transB=int(transposed))
    proto = models.assemble(
        [node], [models._value("x", ["n", 512])], [models._value("y", ["n", 512])], {"w": random(512, 512)}
    )
    result, context = apply(proto, tmp_path, bits=bits, block_size=block, method="nearest")
    assert operators(result) == ["DequantizeLinear", "Gemm"]
    assert optimised(result, tmp_path) == ["MatMulNBits"]
    assert any("stay integers" in note for note in context.notes)


@pytest.mark.parametrize(("bits", "block"), [(8, 24), (4, 8), (2, 256)])
def test_large_products_without_a_kernel_are_unpacked(bits: int, block: int, tmp_path: Path) -> None:
    proto = models.linear(random(512, 512), name="y")
    result, _ = apply(proto, tmp_path, bits=bits, block_size=block, method="nearest")
    assert "DequantizeLinear" not in operators(result)
    assert optimised(result, tmp_path) == ["MatMul"]


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("block", [None, 16])
@pytest.mark.parametrize("transposed", [False, True])
def test_shared_tables_are_stored_once(form: str, block: int | None, transposed: bool, tmp_path: Path) -> None:
    proto = tied(transposed=transposed)
    result, _ = apply(proto, tmp_path, format=form, block_size=block)
    assert off(proto, result, ids()) < 0.02
    assert result.ByteSize() < 0.5 * proto.ByteSize()
    wide = [t for t in result.graph.initializer if t.data_type == TensorProto.INT8 and len(t.raw_data) > 1000]
    assert len(wide) == 1


def test_tables_can_stay_in_float(tmp_path: Path) -> None:
    with pytest.raises(TechniqueFailed, match="no chosen weight"):
        apply(tied(), tmp_path, embeddings=False)


def test_a_table_of_4_bits_becomes_8_where_gather_has_no_kernel_and_that_is_said(tmp_path: Path) -> None:
    result, context = apply(tied(), tmp_path, bits=4, block_size=16, format="dequantize")
    assert [o for o in operators(result) if o != "ReduceMean"][:3] == ["Gather", "Gather", "DequantizeLinear"]
    assert "INT4" not in {TensorProto.DataType.Name(t.data_type) for t in result.graph.initializer}
    assert any("Gather takes no integers of 4 bits" in note and "gather" in note for note in context.notes)
    assert off(tied(), result, ids()) < 0.3
    unpacked, _ = apply(tied(), tmp_path, bits=4, block_size=16)
    assert unpacked.ByteSize() < result.ByteSize()


def test_bits_without_a_type_take_the_next_and_that_is_said(tmp_path: Path) -> None:
    proto = models.linear(random(64, 64), name="y")
    for bits, dtype in ((3, TensorProto.INT4), (7, TensorProto.INT8)):
        result, context = apply(proto, tmp_path, bits=bits)
        assert dtype in {t.data_type for t in result.graph.initializer}
        assert any(f"no type of {bits} bits" in note for note in context.notes)
    _, context = apply(proto, tmp_path, bits=4)
    assert not any("no type" in note for note in context.notes)


def test_what_runs_slower_is_said(tmp_path: Path) -> None:
    _, context = apply(mixed(), tmp_path, format="dequantize")
    assert any("dequantized on every run" in note for note in context.notes)
    _, context = apply(mixed(), tmp_path, format="matmul_nbits")
    assert not any("every run" in note for note in context.notes)


def test_recurrent_weights(tmp_path: Path) -> None:
    node = helper.make_node("LSTM", ["x", "w", "r"], ["", "h"], "lstm", hidden_size=12, direction="bidirectional")
    proto = models.assemble(
        [node],
        [models._value("x", [3, "n", 10])],
        [models._value("h", [2, "n", 12])],
        {"w": random(2, 48, 10) * np.float32(0.3), "r": random(2, 48, 12, seed=1) * np.float32(0.3)},
    )
    for form in FORMATS:
        result, context = apply(proto, tmp_path, format=form)
        assert off(proto, result, {"x": random(3, 4, 10)}) < 0.02
        assert result.ByteSize() < 0.5 * proto.ByteSize()
        assert context.quantization is not None
        assert [layer.name for layer in context.quantization.layers] == ["lstm.w", "lstm.r"]


def test_gptq_needs_data_and_leaves_less_error(tmp_path: Path) -> None:
    proto = mixed()
    with pytest.raises(DataRequired):
        apply(proto, tmp_path, method="gptq")
    x = random(40, 6, 9, 9, seed=3) + random(40, 1, 1, 1, seed=4) * 2
    errors = {}
    for method in ("nearest", "hqq", "gptq"):
        result, _ = apply(
            proto, tmp_path, Samples(x=x[:30]), bits=4, method=method, format="unpack", exclude=["up", "many"]
        )
        expected, found = (models.run(model, {"x": x[30:]})["scores"] for model in (proto, result))
        errors[method] = float(np.square(found - expected).sum() / np.square(expected).sum())
    assert errors["gptq"] < 0.75 * errors["nearest"]
    assert errors["hqq"] < errors["nearest"]
    _, context = apply(proto, tmp_path, Samples(x=x[:30]), bits=4, method="gptq")
    assert any("Rounded without data" in note and "up, many" in note for note in context.notes)
    assert context.quantization is not None
    snr = {layer.name: layer.output_snr_db for layer in context.quantization.layers}
    assert snr["up"] is None
    assert snr["conv"] is not None
    assert snr["conv"] > 15


def test_a_weight_that_two_layers_share_is_rounded_for_both(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["a"], "first"),
        helper.make_node("Relu", ["a"], ["b"], "relu"),
        helper.make_node("MatMul", ["b", "w"], ["y"], "second"),
    ]
    proto = models.assemble(
        nodes, [models._value("x", ["n", 40])], [models._value("y", ["n", 40])], {"w": random(40, 40) * np.float32(0.2)}
    )
    for form in FORMATS:
        result, context = apply(proto, tmp_path, Samples(x=random(20, 40, seed=2)), method="gptq", format=form)
        assert off(proto, result, {"x": random(5, 40, seed=3)}) < 0.02
        assert result.ByteSize() < 0.6 * proto.ByteSize()
        assert context.quantization is not None
        assert len(context.quantization.layers) == 1


def test_the_same_request_gives_the_same_bytes(tmp_path: Path) -> None:
    made = [
        apply(mixed(), tmp_path, Samples(x=random(8, 6, 9, 9)), method="gptq", bits=4, block_size=16)[0]
        for _ in range(2)
    ]
    assert made[0].SerializeToString(deterministic=True) == made[1].SerializeToString(deterministic=True)


def test_some_nodes_only(tmp_path: Path) -> None:
    result, context = apply(mixed(), tmp_path, include=["Conv", "la*"], exclude=["deep"])
    assert context.quantization is not None
    assert [layer.name for layer in context.quantization.layers] == ["conv", "last"]
    assert off(mixed(), result, models.inputs_of(mixed())) < 0.03
    with pytest.raises(TechniqueFailed, match=r"'turnd\*' matches no node") as caught:
        apply(mixed(), tmp_path, exclude=["turnd*"])
    assert "turned" in caught.value.hint


def nested() -> onnx.ModelProto:
    """A weight that a layer reads, and that the branches of an If read as well; these have weights of their own."""

    def branch(name: str) -> onnx.GraphProto:
        own = onnx.numpy_helper.from_array(random(32, 32, seed=len(name)), f"{name}_own")
        nodes = [
            helper.make_node("MatMul", ["h", "w"], [f"{name}_h"], f"{name}_product"),
            helper.make_node("MatMul", [f"{name}_h", f"{name}_own"], [f"{name}_out"], f"{name}_own_product"),
        ]
        return helper.make_graph(nodes, name, [], [models._value(f"{name}_out", ["n", 32])], [own])

    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"], "outside"),
        helper.make_node("ReduceSum", ["x"], ["total"], "sum", keepdims=0),
        helper.make_node("Greater", ["total", "zero"], ["positive"], "test"),
        helper.make_node("If", ["positive"], ["y"], "choose", then_branch=branch("then"), else_branch=branch("else")),
        helper.make_node("MatMul", ["x", "small"], ["z"], "tiny"),
    ]
    weights = {"w": random(32, 32), "zero": np.float32(0), "small": random(32, 3)}
    outputs = [models._value("y", ["n", 32]), models._value("z", ["n", 3])]
    return models.assemble(nodes, [models._value("x", ["n", 32])], outputs, weights)


@pytest.mark.parametrize("form", FORMATS)
def test_sub_graphs_are_left_alone(form: str, tmp_path: Path) -> None:
    result, context = apply(nested(), tmp_path, format=form)
    assert any("inside If, Loop or Scan were left alone" in note for note in context.notes)
    assert any(note == "Weights so small that they stay in float: 1." for note in context.notes)
    for sign in (1, -1):
        assert off(nested(), result, {"x": sign * np.abs(random(4, 32))}) < 0.02


@pytest.mark.parametrize("form", FORMATS)
def test_twice_is_refused(form: str, tmp_path: Path) -> None:
    once, _ = apply(models.convnet(), tmp_path, format=form)
    with pytest.raises(TechniqueFailed, match="already"):
        apply(once, tmp_path)


def test_bad_weights_are_refused(tmp_path: Path) -> None:
    weight = random(64, 64)
    weight[3, 4] = np.nan
    with pytest.raises(TechniqueFailed, match="'product' holds numbers that are not finite"):
        apply(models.linear(weight), tmp_path)
    with pytest.raises(TechniqueFailed, match="1 are too small"):
        apply(models.linear(random(4, 4)), tmp_path)
    with pytest.raises(TechniqueFailed, match="no chosen weight"):
        apply(models.linear(np.zeros((64, 0), np.float32)), tmp_path)


@pytest.mark.parametrize(("bits", "block"), [(4, 24), (4, 8), (2, 256), (2, 16)])
def test_blocks_that_the_kernel_does_not_take_are_refused_at_once(bits: int, block: int) -> None:
    with pytest.raises(ValidationError, match="MatMulNBits has kernels for"):
        QuantizeWeights(bits=bits, block_size=block, format="matmul_nbits")


def test_optimizing_afterwards_keeps_the_integers(tmp_path: Path) -> None:
    weight = random(64, 256)
    proto = models.linear(weight)
    unpacked, _ = apply(proto, tmp_path, format="unpack")
    assert summarize(unpacked).quantized
    again = ir.to_proto(OptimizeGraph().apply(ir.from_proto(unpacked), Context(tmp_path, 0, lambda *_: None)))
    assert again.ByteSize() < 0.35 * weight.nbytes
    assert "Cast" in operators(again)
    with pytest.raises(TechniqueFailed, match="integers already"):
        apply(again, tmp_path)
