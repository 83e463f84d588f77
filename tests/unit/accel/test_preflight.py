"""What a preflight promises: nothing where there is nothing to gain, less where the processor can do less."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper

from accel.benchmark.environment import environment
from accel.benchmark.expected import Sizes, costs_of, quantized_by_default
from accel.benchmark.kernel_table import processor
from accel.benchmark.preflight import predicted_speedup, preflight
from accel.errors import BadModel
from accel.report import Environment, Estimate, Preflight
from accel.request import ModelFile
from tests import models
from tests.rewriting import port

CPU = "onnxruntime:cpu"
OPENVINO = "onnxruntime:openvino"
HERE = environment()


def with_features(*features: str, cpu: str = "Intel Xeon") -> Environment:
    return HERE.model_copy(update={"cpu": cpu, "cpu_features": features})


AVX2 = with_features("avx", "avx2", "fma")
AVX512 = with_features("avx", "avx2", "fma", "avx512f")
VNNI = with_features("avx", "avx2", "fma", "avx512f", "avx512_vnni")
_FOUR: list[int | str] = ["a", "b", "c", "d"]
ARM = with_features("asimd", "asimddp", cpu="Neoverse")


def convolutions(*, depthwise: bool = False, channels: int = 64, size: int = 32) -> onnx.ModelProto:
    """Three convolutions of 3 x 3 with a Relu behind each: images [n, channels, size, size]."""
    chance = np.random.default_rng(7)
    nodes, weights, value = [], {}, "x"
    for number in range(3):
        weights[f"w{number}"] = chance.standard_normal((channels, 1 if depthwise else channels, 3, 3)).astype(
            np.float32
        )
        nodes += [
            helper.make_node(
                "Conv", [value, f"w{number}"], [f"c{number}"], f"conv{number}", kernel_shape=[3, 3], pads=[1] * 4,
                group=channels if depthwise else 1,
            ),
            helper.make_node("Relu", [f"c{number}"], [f"r{number}"], f"relu{number}"),
        ]  # fmt: skip
        value = f"r{number}"
    return models.assemble(nodes, [port("x", ["n", channels, size, size])], [port(value, _FOUR)], weights)


def recurrent() -> onnx.ModelProto:
    """A product and then an LSTM, [50, 1, 64] to 128 numbers a step."""
    chance = np.random.default_rng(8)
    shapes = {"w": (64, 64), "W": (1, 512, 64), "R": (1, 512, 128)}
    held = {name: (chance.standard_normal(shape) * 0.1).astype(np.float32) for name, shape in shapes.items()}
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"], "product"),
        helper.make_node("LSTM", ["h", "W", "R"], ["y"], "lstm", hidden_size=128),
    ]
    return models.assemble(nodes, [port("x", [50, 1, 64])], [port("y", _FOUR)], held)


def told(
    folder: Path, model: onnx.ModelProto, here: Environment = VNNI, runtime: str = CPU, **given: object
) -> Preflight:
    path = models.save(model, folder / "model.onnx")
    return preflight(ModelFile(model_id="m", path=path), None, runtime, here, **given)  # type: ignore[arg-type]


def bounds(estimate: Estimate) -> tuple[float, float, float]:
    assert estimate.low is not None
    assert estimate.high is not None
    assert estimate.low <= estimate.value <= estimate.high
    return estimate.low, estimate.value, estimate.high


def test_dense_convolutions_gain_with_vnni_half_without_and_say_that_sums_saturate(tmp_path: Path) -> None:
    best, wide, narrow = (told(tmp_path, convolutions(), here) for here in (VNNI, AVX512, AVX2))
    assert bounds(best.expected_speedup)[0] > 1.5
    assert best.expected_speedup.value > 1.6 * wide.expected_speedup.value
    assert best.expected_speedup.value > 1.6 * narrow.expected_speedup.value
    assert best.int8_share == 1.0
    assert best.stays_float == ()
    assert best.advice.startswith("Yes")
    assert not any("saturate" in text for text in best.known_failures)
    for found in (wide, narrow):
        assert any("saturate" in text for text in found.known_failures)


def test_depthwise_convolutions_gain_less_than_dense_ones(tmp_path: Path) -> None:
    dense, depthwise, uneven = (
        told(tmp_path, model).expected_speedup
        for model in (
            convolutions(),
            convolutions(depthwise=True),
            convolutions(depthwise=True, channels=36),
        )
    )
    assert bounds(depthwise)[1] < bounds(dense)[1]
    assert bounds(uneven)[1] < bounds(depthwise)[1]


def test_a_graph_without_products_is_promised_nothing(tmp_path: Path) -> None:
    relu = models.assemble(
        [helper.make_node("Relu", ["x"], ["y"], "relu")], [port("x", ["n", 8])], [port("y", ["n", 8])]
    )
    found = told(tmp_path, relu)
    assert bounds(found.expected_speedup) == (1.0, 1.0, 1.0)
    assert found.int8_share is None
    assert found.expected_size_bytes == found.size_bytes
    assert found.advice.startswith("Keep it")
    assert any("no Conv or Gemm or MatMul" in text for text in found.known_failures)


def test_a_model_of_microseconds_is_best_kept(tmp_path: Path) -> None:
    found = told(tmp_path, models.regression())
    assert found.expected_speedup.value < 1
    assert found.advice.startswith("Keep the float model")
    assert any("microseconds" in text for text in found.known_failures)


def test_the_size_is_that_of_the_file_that_would_be_made(tmp_path: Path) -> None:
    found = told(tmp_path, convolutions(channels=128))
    made = tmp_path / "made.onnx"
    quantized_by_default(tmp_path / "model.onnx", made, tmp_path)
    assert found.expected_size_bytes == made.stat().st_size
    assert 0.24 < found.expected_size_bytes / found.size_bytes < 0.3


def test_what_has_no_integer_kernel_is_named_with_its_share(tmp_path: Path) -> None:
    found = told(tmp_path, recurrent())
    (lstm,) = found.stays_float
    macs = {"product": 50 * 64 * 64, "lstm": 50 * 512 * (64 + 128)}
    assert (lstm.operator, lstm.count) == ("LSTM", 1)
    assert lstm.macs_share == pytest.approx(macs["lstm"] / sum(macs.values()))
    assert found.int8_share == pytest.approx(1 - lstm.macs_share)
    assert "quantize_dynamic" in lstm.reason
    assert bounds(found.expected_speedup)[2] < 1.4


def test_a_quantized_file_is_recognised_and_compared_with_its_float_baseline(tmp_path: Path) -> None:
    float_path = models.save(convolutions(), tmp_path / "float.onnx")
    made = tmp_path / "made.onnx"
    quantized_by_default(float_path, made, tmp_path)
    before, after = ModelFile(model_id="f", path=float_path), ModelFile(model_id="q", path=made)
    found = preflight(after, before, CPU, VNNI)
    assert found.already_quantized
    assert found.expected_size_bytes == found.size_bytes == made.stat().st_size
    assert found.expected_speedup == preflight(before, None, CPU, VNNI).expected_speedup
    assert found.expected_speedup == predicted_speedup(float_path, made, CPU, VNNI)
    alone = preflight(after, None, CPU, VNNI)
    assert (alone.expected_speedup.low, alone.expected_speedup.high) == (None, None)
    assert "baseline" in alone.advice


def test_a_model_against_itself_gains_nothing(tmp_path: Path) -> None:
    path = models.save(convolutions(), tmp_path / "m.onnx")
    found = predicted_speedup(path, path, CPU, VNNI)
    assert found is not None
    assert bounds(found)[1] == 1.0


def test_signed_activations_are_slow_on_x86_and_named(tmp_path: Path) -> None:
    float_path = models.save(convolutions(), tmp_path / "float.onnx")
    made, signed = tmp_path / "made.onnx", tmp_path / "signed.onnx"
    quantized_by_default(float_path, made, tmp_path)
    models.save(with_signed_activations(onnx.load(made)), signed)
    file, baseline = ModelFile(model_id="s", path=signed), ModelFile(model_id="f", path=float_path)
    found = preflight(file, baseline, CPU, VNNI)
    assert found.expected_speedup.value < 0.7 * preflight(baseline, None, CPU, VNNI).expected_speedup.value
    assert any("signed" in text and "x86-64" in text for text in found.known_failures)
    assert any("OpenVINO does not load" in text for text in preflight(file, baseline, OPENVINO, VNNI).known_failures)
    assert not any("signed" in text for text in preflight(file, baseline, CPU, ARM).known_failures)


def with_signed_activations(model: onnx.ModelProto) -> onnx.ModelProto:
    points = {node.input[2] for node in model.graph.node if node.op_type == "QuantizeLinear"}
    for tensor in model.graph.initializer:
        if tensor.name in points:
            zero = onnx.numpy_helper.to_array(tensor).astype(np.int32) - 128
            tensor.CopyFrom(onnx.numpy_helper.from_array(zero.astype(np.int8), tensor.name))
    return model


def test_convolutions_with_one_input_channel_and_large_kernels_are_warned_of(tmp_path: Path) -> None:
    chance = np.random.default_rng(9)
    weight = chance.standard_normal((8, 1, 1, 256)).astype(np.float32)
    node = helper.make_node("Conv", ["x", "w"], ["y"], "filters", kernel_shape=[1, 256], strides=[1, 2])
    model = models.assemble([node], [port("x", ["n", 1, 1, 44_000])], [port("y", _FOUR)], {"w": weight})
    found = told(tmp_path, model)
    assert found.expected_speedup.value < 1
    assert any("copying" in text and "filters" in text for text in found.known_failures)


def test_sub_graphs_and_half_floats_are_said_to_gain_nothing(tmp_path: Path) -> None:
    assert any("If" in text for text in told(tmp_path, models.branching()).known_failures)
    half = np.ones((8, 8), np.float16)
    node = helper.make_node("MatMul", ["x", "w"], ["y"], "product")
    model = models.assemble(
        [node], [port("x", ["n", 8], TensorProto.FLOAT16)], [port("y", ["n", 8], TensorProto.FLOAT16)], {"w": half}
    )
    assert any("16-bit floats" in text for text in told(tmp_path, model).known_failures)


def test_openvino_is_told_apart_and_other_runtimes_are_not_guessed_at(tmp_path: Path) -> None:
    amd = with_features(*VNNI.cpu_features, "avx512_bf16", cpu="AMD EPYC")
    found = told(tmp_path, convolutions(), amd, OPENVINO)
    assert any("other makers than Intel" in text for text in found.known_failures)
    assert any("bf16" in text for text in found.known_failures)
    low, _, high = bounds(found.expected_speedup)
    here = bounds(told(tmp_path, convolutions(), amd).expected_speedup)
    assert low < here[0] < here[2] < high  # its kernels were not measured
    other = told(tmp_path, convolutions(), amd, "onnxruntime:cuda")
    assert (other.int8_share, other.expected_speedup.low) == (None, None)
    assert "cuda" in other.advice
    path = tmp_path / "model.onnx"
    assert predicted_speedup(path, path, "onnxruntime:cuda", amd) is None


def test_open_sizes_widen_the_range_and_given_ones_close_it(tmp_path: Path) -> None:
    weight = np.random.default_rng(3).standard_normal((32, 32, 3, 3)).astype(np.float32)
    node = helper.make_node("Conv", ["x", "w"], ["y"], "conv", kernel_shape=[3, 3], pads=[1] * 4)
    model = models.assemble([node], [port("x", ["n", 32, "h", "w_"])], [port("y", _FOUR)], {"w": weight})
    path = models.save(model, tmp_path / "model.onnx")
    wide = told(tmp_path, model).expected_speedup
    close = told(tmp_path, model, shapes={"x": (1, 32, 64, 64)}).expected_speedup
    assert bounds(wide)[2] / bounds(wide)[0] > bounds(close)[2] / bounds(close)[0]
    (small,) = costs_of(path, processor(VNNI.cpu_features), Sizes({"x": (1, 32, 8, 8)}), tmp_path)
    assert small.macs == 8 * 8 * 32 * 32 * 9


@pytest.mark.parametrize("name", sorted(models.FACTORY))
def test_every_model_gets_an_answer_within_seconds(name: str, tmp_path: Path) -> None:
    begun = time.perf_counter()
    found = told(tmp_path, models.FACTORY[name](), HERE)
    assert time.perf_counter() - begun < 10
    assert found.advice.endswith(".")
    assert found.already_quantized == (name == "quantized")


def test_what_is_no_model_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "text.onnx"
    path.write_bytes(b"\x08\x01 no model")
    with pytest.raises(BadModel):
        preflight(ModelFile(model_id="m", path=path), None, CPU, HERE)


@given(st.sets(st.sampled_from(["avx", "avx2", "avx512f", "avx512_vnni", "avx_vnni", "amx_int8", "asimd", "i8mm"])))
def test_every_processor_multiplies_integers_at_least_as_fast_as_floats(features: set[str]) -> None:
    found = processor(features)
    assert found.int8_rate >= found.float_rate > 0
    assert found.doubt > 1
    richer = processor({*features, "avx2", "avx512f", "avx512_vnni"})
    assert richer.int8_rate >= found.int8_rate or "amx_int8" in features
    assert not richer.saturates
