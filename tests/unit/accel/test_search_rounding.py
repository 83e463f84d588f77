"""Rounding search on quantized models: less error in the outputs, and nothing but integers changed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import helper

from accel.context import Context
from accel.errors import DataRequired, TechniqueFailed
from accel.graph.quantized import quantized_layers
from accel.techniques.quantize_static import QuantizeStatic
from accel.techniques.quantize_weights import QuantizeWeights
from accel.techniques.search_rounding import SearchRounding
from tests import models
from tests.unit.accel.test_gram import Samples, random


def net() -> onnx.ModelProto:
    """Conv, depthwise Conv, grouped Conv and Gemm: [n, 3, 8, 8] to ten scores."""
    nodes = [
        helper.make_node("Conv", ["x", "conv", "conv_b"], ["c"], "conv", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c"], ["cr"], "relu"),
        helper.make_node("Conv", ["cr", "deep"], ["d"], "deep", group=8, pads=[1, 1, 1, 1], strides=[2, 2]),
        helper.make_node("Conv", ["d", "part"], ["p"], "part", group=2),
        helper.make_node("Relu", ["p"], ["pr"], "relu2"),
        helper.make_node("Flatten", ["pr"], ["f"], "flatten"),
        helper.make_node("Gemm", ["f", "last", "last_b"], ["scores"], "last", transB=1),
    ]
    weights = {
        "conv": random(8, 3, 3, 3, seed=1) * np.float32(0.3),
        "conv_b": random(8, seed=2),
        "deep": random(8, 1, 3, 3, seed=3) * np.float32(0.3),
        "part": random(12, 4, 2, 2, seed=4) * np.float32(0.3),
        "last": random(10, 108, seed=5) * np.float32(0.1),
        "last_b": random(10, seed=6),
    }
    return models.assemble(nodes, [models._value("x", ["n", 3, 8, 8])], [models._value("scores", ["n", 10])], weights)


def images(count: int, seed: int) -> np.ndarray:
    """Smooth, so that neighbours are alike as in pictures."""
    return (
        random(count, 3, 1, 8, seed=seed)
        + random(count, 1, 8, 1, seed=seed + 1)
        + 0.3 * random(count, 3, 8, 8, seed=seed)
    )


def static(proto: onnx.ModelProto, folder: Path, **parameters: Any) -> ir.Model:
    settings = {"calibration": "minmax", "keep_snr_db": None, "samples": 32, **parameters}
    return QuantizeStatic(**settings).apply(
        ir.from_proto(proto), Context(folder, 0, lambda *_: None, Samples(x=images(32, 10)))
    )


def searched(model: ir.Model, proto: onnx.ModelProto, folder: Path, **parameters: Any) -> tuple[ir.Model, Context]:
    before = ir.to_proto(model).SerializeToString(deterministic=True)
    context = Context(folder, 0, lambda *_: None, Samples(x=images(64, 20)), ir.from_proto(proto))
    result = SearchRounding(samples=64, **parameters).apply(model, context)
    assert ir.to_proto(model).SerializeToString(deterministic=True) == before, "the given model was changed"
    return result, context


def error(model: ir.Model, proto: onnx.ModelProto) -> float:
    feed = {"x": images(64, 30)}
    expected, found = models.run(proto, feed)["scores"], models.run(ir.to_proto(model), feed)["scores"]
    return float(np.square(found - expected).sum() / np.square(expected).sum())


@pytest.mark.parametrize("per_channel", [True, False])
@pytest.mark.parametrize("bits", [3, 4])
def test_outputs_come_nearer_to_the_float_model_on_inputs_that_were_not_seen(
    bits: int, per_channel: bool, tmp_path: Path
) -> None:
    model = static(net(), tmp_path, weight_bits=bits, per_channel=per_channel)
    result, context = searched(model, net(), tmp_path)
    assert error(result, net()) < 0.7 * error(model, net())
    (note,) = context.notes
    assert "on average over 4 layers" in note
    assert context.quantization is not None
    assert [layer.name for layer in context.quantization.layers] == ["conv", "deep", "part", "last"]
    assert {layer.granularity for layer in context.quantization.layers} == {"channel" if per_channel else "tensor"}
    assert all((layer.output_snr_db or 0) > 8 for layer in context.quantization.layers)


def test_only_integers_change_and_stay_in_the_range_that_is_in_use(tmp_path: Path) -> None:
    """Weights of 7 bits are stored as int8; they must not become wider."""
    model = static(net(), tmp_path, weight_bits=7)
    result, _ = searched(model, net(), tmp_path)
    old, new = (quantized_layers(m.graph) for m in (model, result))
    assert [layer.name for layer in old] == [layer.name for layer in new]
    changed = 0
    for before, after in zip(old, new, strict=True):
        np.testing.assert_array_equal(before.weight.parameters.scale, after.weight.parameters.scale)
        assert after.weight.integers.dtype == before.weight.integers.dtype
        assert np.abs(after.weight.integers).max() <= 63
        changed += int((before.weight.integers != after.weight.integers).sum())
    assert changed
    one, two = ir.to_proto(model), ir.to_proto(result)
    assert [n.SerializeToString() for n in one.graph.node] == [n.SerializeToString() for n in two.graph.node]
    others = [{t.name: t for t in p.graph.initializer if "weight_q" not in t.name} for p in (one, two)]
    assert others[0] == others[1]


def test_blocks_of_quantize_weights_can_be_searched_too(tmp_path: Path) -> None:
    """Gemm is turned there: the integers lie across the float weight."""
    context = Context(tmp_path, 0, lambda *_: None)
    parameters: dict[str, Any] = {"bits": 4, "block_size": 16, "symmetric": False, "method": "nearest"}
    model = QuantizeWeights(format="dequantize", include=("last",), **parameters).apply(ir.from_proto(net()), context)
    result, context = searched(model, net(), tmp_path)
    assert error(result, net()) < 0.8 * error(model, net())
    assert context.quantization is not None
    assert [(layer.name, layer.granularity) for layer in context.quantization.layers] == [("last", "block")]


def test_a_weight_that_two_layers_share(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["a"], "first"),
        helper.make_node("Relu", ["a"], ["b"], "relu"),
        helper.make_node("MatMul", ["b", "w"], ["scores"], "second"),
    ]
    proto = models.assemble(
        nodes, [models._value("x", ["n", 20])], [models._value("scores", ["n", 20])], {"w": random(20, 20)}
    )
    weight = random(20, 20)
    scale = np.float32(np.abs(weight).max() / 7)
    integers = np.clip(np.rint(weight / scale), -7, 7).astype(np.int8)
    quantized = models.assemble(
        [helper.make_node("DequantizeLinear", ["q", "s"], ["w"], "back"), *nodes],
        [models._value("x", ["n", 20])],
        [models._value("scores", ["n", 20])],
        {"q": integers, "s": scale},
    )
    samples = Samples(x=random(40, 20, seed=3) + 1)
    context = Context(tmp_path, 0, lambda *_: None, samples, ir.from_proto(proto))
    result = SearchRounding().apply(ir.from_proto(quantized), context)
    assert "over 1 layers" in context.notes[0]
    feed = {"x": random(40, 20, seed=4) + 1}
    expected = models.run(proto, feed)["scores"]
    errors = [
        float(np.square(models.run(m, feed)["scores"] - expected).sum()) for m in (quantized, ir.to_proto(result))
    ]
    assert errors[1] < 0.8 * errors[0]


def test_the_same_request_gives_the_same_bytes(tmp_path: Path) -> None:
    model = static(net(), tmp_path)
    made = [ir.to_proto(searched(model, net(), tmp_path)[0]).SerializeToString(deterministic=True) for _ in range(2)]
    assert made[0] == made[1]


def test_layers_of_another_model_are_left_as_they_were(tmp_path: Path) -> None:
    model = static(net(), tmp_path)
    other = net()
    for tensor in other.graph.initializer:
        if tensor.name == "deep":
            tensor.raw_data = (-random(8, 1, 3, 3, seed=3)).tobytes()
    _, context = searched(model, other, tmp_path)
    assert any(note == "Left as they were: deep." for note in context.notes)


def test_refusals(tmp_path: Path) -> None:
    model = static(net(), tmp_path)
    samples = Samples(x=images(4, 1))
    with pytest.raises(TechniqueFailed, match="there is no float model") as caught:
        SearchRounding().apply(model, Context(tmp_path, 0, lambda *_: None, samples))
    assert "quantizing step" in caught.value.hint
    floats = ir.from_proto(net())
    with pytest.raises(TechniqueFailed, match="no weight of it is dequantized"):
        SearchRounding().apply(floats, Context(tmp_path, 0, lambda *_: None, samples, floats))
    with pytest.raises(DataRequired):
        SearchRounding().apply(model, Context(tmp_path, 0, lambda *_: None, None, floats))
    strange = ir.from_proto(models.linear(random(192, 10)))
    with pytest.raises(TechniqueFailed, match="No quantized layer has the name"):
        SearchRounding().apply(model, Context(tmp_path, 0, lambda *_: None, samples, strange))
