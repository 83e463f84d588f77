"""Fixed-point weights: the rule round(w * 2^b), its saturation, and what is said about it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir
import onnxruntime as ort
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from onnx import TensorProto, helper, numpy_helper

from accel.context import Context
from accel.errors import TechniqueFailed
from accel.numerics.fixed_point import best_fraction_bits, fix, snr_db
from accel.techniques.quantize_fixed_point import QuantizeFixedPoint
from tests import models

WEIGHTS = arrays.arrays(
    np.float32, arrays.array_shapes(max_dims=3), elements=st.floats(-1e4, 1e4, width=32, allow_subnormal=False)
)
STORAGE = st.sampled_from([8, 16, 32])


def quantized(proto: onnx.ModelProto, folder: Path, **parameters: Any) -> tuple[onnx.ModelProto, Context]:
    context = Context(folder, 0, lambda *_: None)
    result = QuantizeFixedPoint(**parameters).apply(onnx_ir.from_proto(proto), context)
    made: onnx.ModelProto = onnx_ir.to_proto(result)
    onnx.checker.check_model(made, full_check=True)
    return made, context


def constants(proto: onnx.ModelProto) -> dict[str, np.ndarray]:
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in proto.graph.initializer}


def as_written(proto: onnx.ModelProto, feed: dict[str, np.ndarray]) -> np.ndarray:
    """The first output, computed operator by operator: optimised, 8-bit products round their activations too."""
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    found: np.ndarray = session.run(None, feed)[0]
    return found


@given(WEIGHTS, st.integers(0, 30), STORAGE)
def test_the_error_is_half_a_step_unless_it_saturates(weights: np.ndarray, bits: int, storage: int) -> None:
    fixed = fix(weights, bits, storage)
    limit = 2.0 ** (storage - 1) * 2.0**-bits
    inside = (weights >= -limit) & (weights <= limit - 2.0**-bits)
    error = np.abs(fixed.integers * 2.0**-bits - weights.astype(np.float64))
    assert fixed.integers.dtype == f"int{storage}"
    assert fixed.integers.shape == weights.shape
    assert (error[inside] <= 2.0**-bits / 2).all()
    assert fixed.saturated <= (~inside).sum()
    assert (np.sign(fixed.integers[~inside]) == np.sign(weights[~inside])).all()
    assert fixed.largest_error == pytest.approx(error.max())


@given(st.lists(WEIGHTS, min_size=1, max_size=3), STORAGE)
def test_the_best_number_of_bits_is_the_last_that_saturates_nothing(weights: list[np.ndarray], storage: int) -> None:
    best = best_fraction_bits(weights, storage)
    if best > 0:
        assert not any(fix(array, best, storage).saturated for array in weights)
    if best < 30:
        assert any(fix(array, best + 1, storage).saturated for array in weights)


def test_the_rule_by_hand() -> None:
    fixed = fix(np.float32([0.5, -0.3, 0.125, 3.0, -9.0, 0.0]), 4, 8)
    assert fixed.integers.tolist() == [8, -5, 2, 48, -128, 0]
    assert fixed.floats().tolist() == [0.5, -0.3125, 0.125, 3.0, -8.0, 0.0]
    assert (fixed.saturated, fixed.largest_error) == (1, 1.0)
    assert fixed.squared_error == pytest.approx(1 + 0.0125**2)


def test_noise_is_that_of_all_weights_together() -> None:
    one, other = fix(np.float32([1.25]), 1, 8), fix(np.float32([3.0]), 1, 8)
    assert snr_db([one]) == pytest.approx(10 * np.log10(1.25**2 / 0.25**2))
    assert snr_db([one, other]) == pytest.approx(10 * np.log10((1.25**2 + 9) / 0.25**2))
    assert snr_db([other]) is None


def test_nothing_has_no_best_number_of_bits_to_break() -> None:
    assert best_fraction_bits([np.zeros((0, 3), np.float32)], 8) == 30
    assert best_fraction_bits([np.float32([300.0])], 8) == 0


@pytest.mark.parametrize("storage", [8, 16, 32])
@pytest.mark.parametrize("bits", [0, 5, 11, 30])
def test_the_file_holds_integers_and_the_exact_step(bits: int, storage: int, tmp_path: Path) -> None:
    w = np.random.default_rng(3).standard_normal((16, 4)).astype(np.float32)
    made, _ = quantized(models.linear(w), tmp_path, fraction_bits=bits, storage_bits=storage)
    stored = constants(made)
    assert set(stored) == {"w_fixed", "fixed_point_step"}
    assert stored["w_fixed"].dtype == f"int{storage}"
    assert stored["fixed_point_step"] == np.float32(2.0**-bits)
    x = np.random.default_rng(4).standard_normal((5, 16)).astype(np.float32)
    expected = x @ (stored["w_fixed"] * np.float64(2.0**-bits)).astype(np.float32)
    np.testing.assert_allclose(as_written(made, {"x": x}), expected, rtol=1e-5, atol=1e-5)


def test_what_was_lost_is_said(tmp_path: Path) -> None:
    proto = models.convnet()
    weights = constants(proto)
    weights["hidden_w"] = weights["hidden_w"] / 100
    for tensor in proto.graph.initializer:
        tensor.CopyFrom(numpy_helper.from_array(weights[tensor.name], tensor.name))
    _, context = quantized(proto, tmp_path, fraction_bits=8, storage_bits=8)
    found = [fix(weights[name], 8, 8) for name in ("conv_w", "hidden_w", "out_w")]
    count, saturated = sum(part.integers.size for part in found), sum(part.saturated for part in found)
    assert saturated > 0
    assert f"{saturated / count:.3%} of {count} weights saturated" in context.notes[0]
    assert f"signal-to-noise {snr_db(found):.1f} dB" in context.notes[0]
    assert context.notes[1] == f"The worst layer is hidden, with {snr_db(found[1:2]):.1f} dB."
    assert context.notes[2] == "With 8 bits, 7 is the largest number of fraction bits at which no weight saturates."
    assert context.quantization is not None
    assert [layer.name for layer in context.quantization.layers] == ["conv", "hidden", "out"]
    assert context.quantization.layers[0].weight_scale == (2.0**-8, 2.0**-8)


def test_left_out_the_best_number_of_bits_is_taken(tmp_path: Path) -> None:
    made, context = quantized(models.linear(np.full((16, 4), 1.9, np.float32)), tmp_path, storage_bits=8)
    assert constants(made)["fixed_point_step"] == 2.0**-6
    assert "6 is the largest number of fraction bits at which no weight saturates in 8 bits." in context.notes


def test_biases_only_when_asked(tmp_path: Path) -> None:
    def floats(**parameters: Any) -> set[str]:
        made, _ = quantized(models.convnet(), tmp_path, storage_bits=8, **parameters)
        return {name for name, array in constants(made).items() if array.dtype == np.float32 and array.ndim}

    assert floats() == {"conv_b", "hidden_b", "out_b"}
    assert floats(biases=True) == set()
    assert floats(biases=True, exclude=["Conv"]) == {"conv_w", "conv_b"}
    assert floats(include=["out"]) == {"conv_w", "conv_b", "hidden_w", "hidden_b", "out_b"}


def test_a_table_is_looked_up_as_integers_and_may_be_a_weight_too(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Gather", ["table", "ids"], ["e"], "lookup"),
        helper.make_node("Gemm", ["e", "table", "b"], ["scores"], "head", transB=1),
    ]
    table = np.random.default_rng(5).standard_normal((300, 16)).astype(np.float32)
    proto = models.assemble(
        nodes,
        [helper.make_tensor_value_info("ids", TensorProto.INT64, ["n"])],
        [
            helper.make_tensor_value_info("e", TensorProto.FLOAT, ["n", 16]),
            helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["n", 300]),
        ],
        {"table": table, "b": np.zeros(300, np.float32)},
    )
    made, _ = quantized(proto, tmp_path, embeddings=True, fraction_bits=10)
    assert {name: array.dtype for name, array in constants(made).items() if array.size == table.size} == {
        "table_fixed": np.int16
    }
    ids = np.array([0, 299, 17])
    rows = np.rint(table[ids] * 1024) / 1024
    found = models.run(made, {"ids": ids})
    np.testing.assert_array_equal(found["e"], rows)
    np.testing.assert_allclose(found["scores"], rows @ (np.rint(table.T * 1024) / 1024), atol=1e-4)
    kept, _ = quantized(proto, tmp_path)
    assert "table" in constants(kept)  # the lookup still needs it


def test_nodes_in_sub_graphs_are_left_alone_and_said(tmp_path: Path) -> None:
    _, context = quantized(models.branching(), tmp_path)
    assert "The 2 nodes inside If, Loop or Scan were left alone." in context.notes


def test_what_cannot_be_done_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TechniqueFailed, match="'w' holds numbers that are not finite"):
        quantized(models.linear(np.full((4, 3), np.nan, np.float32)), tmp_path)
    with pytest.raises(TechniqueFailed, match="no chosen layer"):
        quantized(models.convnet(), tmp_path, exclude=["Conv", "Gemm"])
    with pytest.raises(TechniqueFailed, match="quantized already"):
        quantized(models.quantized(), tmp_path)
    with pytest.raises(ValueError, match="fraction_bits"):
        QuantizeFixedPoint(fraction_bits=31)
