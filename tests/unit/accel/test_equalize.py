"""Cross-layer equalisation: the function stays, the extents of channels meet, and what cannot be scaled is left and named."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import helper

from accel.context import Context
from accel.errors import TechniqueFailed
from accel.graph.chains import Broken, Chain, chain, known_shapes, layer_source
from accel.graph.layers import layers
from accel.graph.prepare import prepare
from accel.graph.rescale import as_stored, by_channel
from accel.numerics.equalization import absorbable, equalizing_scales, input_extents, output_extents
from accel.numerics.scales import WEIGHTS, dequantize, quantize_tensor
from accel.techniques.equalize import Equalize
from tests import models
from tests.samples import Samples

Node = onnx.NodeProto
RNG = np.random.default_rng


def uneven(seed: int, *shape: int, axis: int = 0) -> np.ndarray:
    """Weights whose channels differ a hundredfold."""
    chance = RNG(seed)
    factors = 10 ** chance.uniform(-1, 1, shape[axis])
    spread = factors.reshape([-1 if a == axis else 1 for a in range(len(shape))])
    return (chance.standard_normal(shape) * spread * 0.2).astype(np.float32)


def network(nodes: Sequence[Node], weights: dict[str, np.ndarray], shape: Sequence[int | str]) -> onnx.ModelProto:
    inputs = [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, shape)]
    return models.assemble(nodes, inputs, [helper.make_empty_tensor_value_info("y")], weights)


def depthwise(activation: Node | None = None) -> onnx.ModelProto:
    """Conv, depthwise Conv, grouped Conv, pooled and flattened into a Gemm."""
    weights = {
        "w1": uneven(1, 8, 3, 3, 3),
        "b1": uneven(2, 8) * 0.1,
        "w2": uneven(3, 8, 1, 3, 3),
        "b2": uneven(4, 8) * 0.1,
        "w3": uneven(5, 6, 4, 1, 1),
        "w4": uneven(6, 5, 6 * 4),
    }
    nodes = [
        helper.make_node("Conv", ["x", "w1", "b1"], ["c1"], "one", pads=[1, 1, 1, 1]),
        activation or helper.make_node("Relu", ["c1"], ["r1"], "relu"),
        helper.make_node("Conv", ["r1", "w2", "b2"], ["c2"], "two", pads=[1, 1, 1, 1], group=8),
        helper.make_node("LeakyRelu", ["c2"], ["r2"], "leaky"),
        helper.make_node("Conv", ["r2", "w3"], ["c3"], "three", group=2),
        helper.make_node("MaxPool", ["c3"], ["p"], "pool", kernel_shape=[4, 4], strides=[4, 4]),
        helper.make_node("Flatten", ["p"], ["f"], "flatten"),
        helper.make_node("Gemm", ["f", "w4"], ["y"], "four", transB=1),
    ]
    return network(nodes, weights, ["n", 3, 8, 8])


def equalized(
    proto: onnx.ModelProto, folder: Path, data: Samples | None = None, **given: object
) -> tuple[ir.Model, list[str]]:
    context = Context(folder, 0, lambda *_: None, data)
    return Equalize.model_validate(given).apply(ir.from_proto(proto), context), context.notes


def difference(proto: onnx.ModelProto, model: ir.Model, shape: Sequence[int], seed: int = 9) -> float:
    """Largest difference of the outputs, relative to the largest output."""
    feed = {"x": RNG(seed).standard_normal(shape).astype(np.float32)}
    (before,), (after,) = models.run(proto, feed).values(), models.run(ir.to_proto(model), feed).values()
    return float(np.abs(before - after).max() / np.abs(before).max())


def extents(model: ir.Model) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    return {
        layer.name: (output_extents(by_channel(layer, layer.weight)), input_extents(by_channel(layer, layer.weight)))
        for layer in layers(model.graph)
    }


def test_extents_meet_through_depthwise_and_grouped_layers_and_the_function_stays(tmp_path: Path) -> None:
    proto = depthwise()
    model, notes = equalized(proto, tmp_path)
    assert difference(proto, model, (4, 3, 8, 8)) < 1e-5
    found = extents(model)
    np.testing.assert_allclose(found["one"][0], found["two"][0], rtol=5e-3)
    np.testing.assert_allclose(found["two"][0], found["three"][1], rtol=5e-3)
    np.testing.assert_allclose(found["three"][0], found["four"][1].reshape(-1, 4).max(1), rtol=5e-3)
    assert any("3 pairs" in note for note in notes)
    assert any("four" in note and "output" in note for note in notes)
    assert any("not absorbed" in note for note in notes)


def test_one_scale_for_a_tensor_loses_less_afterwards(tmp_path: Path) -> None:
    proto = depthwise()

    def noise(model: ir.Model) -> float:
        for layer in layers(model.graph):
            layer.node.inputs[1].const_value = ir.tensor(dequantize(*quantize_tensor(layer.weight, WEIGHTS)))  # type: ignore[union-attr]
        return difference(proto, model, (16, 3, 8, 8))

    plain, _ = prepare(ir.from_proto(proto), tmp_path)
    model, _ = equalized(proto, tmp_path)
    assert noise(model) < 0.6 * noise(plain)


def test_a_clip_is_left_unless_each_channel_may_have_a_bound_of_its_own(tmp_path: Path) -> None:
    clip = helper.make_node("Clip", ["c1", "low", "high"], ["r1"], "clip")
    proto = depthwise(clip)
    proto.graph.initializer.extend(
        [
            onnx.numpy_helper.from_array(np.array(0, np.float32), "low"),
            onnx.numpy_helper.from_array(np.array(0.5, np.float32), "high"),
        ]
    )
    left, notes = equalized(proto, tmp_path)
    assert any("one" in note and "Clip" in note for note in notes)
    np.testing.assert_array_equal(layers(left.graph)[0].weight, onnx.numpy_helper.to_array(proto.graph.initializer[0]))
    model, notes = equalized(proto, tmp_path, clip="per_channel")
    assert any("3 pairs" in note for note in notes)
    assert difference(proto, model, (4, 3, 8, 8)) < 1e-5
    assert difference(proto, left, (4, 3, 8, 8)) < 1e-5
    assert sum(node.op_type == "Min" for node in model.graph) == 1


def matrices(
    between: Sequence[Node], weights: dict[str, np.ndarray] | None = None, output: str = "r"
) -> onnx.ModelProto:
    """MatMul and Add, something, Gemm: 6 inputs, 8 channels, 4 outputs."""
    nodes = [
        helper.make_node("MatMul", ["x", "w1"], ["m"], "first"),
        helper.make_node("Add", ["b1", "m"], ["a"], "bias"),
        *between,
        helper.make_node("Gemm", [output, "w2", "b2"], ["y"], "second"),
    ]
    own = {"w1": uneven(1, 6, 8, axis=1), "b1": uneven(2, 8), "w2": uneven(3, 8, 4), "b2": uneven(4, 4)}
    return network(nodes, own | (weights or {}), ["n", 6])


def test_a_constant_that_is_added_is_scaled_with_its_channels(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("MatMul", ["x", "w1"], ["m"], "first"),
        helper.make_node("Add", ["b1", "m"], ["a"], "bias"),
        helper.make_node("Relu", ["a"], ["r"], "relu"),
        helper.make_node("MatMul", ["r", "w2"], ["y"], "second"),
    ]
    weights = {"w1": uneven(1, 6, 8, axis=1), "b1": uneven(2, 8), "w2": uneven(3, 8, 4)}
    proto = network(nodes, weights, ["n", 5, 6])
    model, notes = equalized(proto, tmp_path)
    assert difference(proto, model, (3, 5, 6)) < 1e-5
    assert any("1 pair of layers was" in note for note in notes)
    found = extents(model)
    np.testing.assert_allclose(found["first"][0], found["second"][1], rtol=5e-3)


@pytest.mark.parametrize(
    ("between", "reason"),
    [
        ([helper.make_node("Sigmoid", ["a"], ["r"])], "Sigmoid reads it"),
        ([helper.make_node("Clip", ["a", "minus"], ["r"])], "Clip reads it"),
        ([helper.make_node("Relu", ["a"], ["q"]), helper.make_node("Add", ["q", "a"], ["r"])], "Add reads it"),
        ([helper.make_node("Sub", ["one", "a"], ["r"])], "Sub reads it"),
        ([helper.make_node("Reshape", ["a", "halves"], ["s"]), helper.make_node("Relu", ["s"], ["q"]),
          helper.make_node("Reshape", ["q", "whole"], ["r"])], "Reshape reads it"),
    ],
)  # fmt: skip
def test_what_lets_no_scale_pass_is_named(between: Sequence[Node], reason: str, tmp_path: Path) -> None:
    constants: dict[str, np.ndarray] = {
        "minus": np.array(-1, np.float32),
        "one": np.array(1, np.float32),
        "halves": np.array([-1, 4], np.int64),
        "whole": np.array([-1, 8], np.int64),
    }
    used = {name for node in between for name in node.input}
    proto = matrices(between, {name: array for name, array in constants.items() if name in used})
    model, notes = equalized(proto, tmp_path)
    assert any("first" in note and reason in note for note in notes), notes
    assert any("0 pairs" in note for note in notes)
    assert difference(proto, model, (16, 6)) < 1e-6


def test_what_the_model_gives_as_an_output_is_left(tmp_path: Path) -> None:
    proto = matrices([helper.make_node("Relu", ["a"], ["r"])])
    proto.graph.output.append(helper.make_tensor_value_info("r", onnx.TensorProto.FLOAT, ["n", 8]))
    model, notes = equalized(proto, tmp_path)
    assert any("first" in note and "output" in note for note in notes)
    feed = {"x": np.ones((2, 6), np.float32)}
    assert all(map(np.array_equal, models.run(proto, feed).values(), models.run(ir.to_proto(model), feed).values()))


def test_layers_that_share_a_weight_are_left(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["a"], "first"),
        helper.make_node("Relu", ["a"], ["r"], "relu"),
        helper.make_node("MatMul", ["r", "w"], ["y"], "second"),
    ]
    proto = network(nodes, {"w": uneven(1, 6, 6)}, ["n", 6])
    model, notes = equalized(proto, tmp_path)
    assert any("shares its weight" in note for note in notes)
    assert difference(proto, model, (16, 6)) == 0.0


def test_a_shared_constant_changes_only_where_it_must(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Gemm", ["x", "w1", "b"], ["a"], "first"),
        helper.make_node("Relu", ["a"], ["r"], "relu"),
        helper.make_node("Gemm", ["r", "w2", "b"], ["y"], "second"),
    ]
    proto = network(nodes, {"w1": uneven(1, 8, 8, axis=1), "w2": uneven(2, 8, 8), "b": uneven(3, 8)}, ["n", 8])
    model, _ = equalized(proto, tmp_path)
    assert difference(proto, model, (16, 8)) < 1e-5


def test_all_readers_of_a_channel_are_scaled(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Conv", ["x", "w1"], ["a"], "first"),
        helper.make_node("Relu", ["a"], ["r"], "relu"),
        helper.make_node("Conv", ["r", "w2"], ["b"], "left"),
        helper.make_node("ReduceMean", ["b"], ["bm"], "left_mean", axes=[2, 3], keepdims=0),
        helper.make_node("ReduceMean", ["r"], ["rm"], "right_mean", axes=[2, 3], keepdims=0),
        helper.make_node("Gemm", ["rm", "w3"], ["c"], "right"),
        helper.make_node("Add", ["bm", "c"], ["y"], "join"),
    ]
    weights = {"w1": uneven(1, 8, 3, 1, 1), "w2": uneven(2, 4, 8, 1, 1), "w3": uneven(3, 8, 4)}
    proto = network(nodes, weights, ["n", 3, 4, 4])
    model, notes = equalized(proto, tmp_path)
    assert difference(proto, model, (4, 3, 4, 4)) < 1e-5
    found = extents(model)
    read = np.maximum(found["left"][1], found["right"][1])
    np.testing.assert_allclose(found["first"][0], read, rtol=5e-3)
    assert any("2 pairs" in note for note in notes)


def biased(padding: int) -> onnx.ModelProto:
    """Channels that stay far above 0 behind their Relu."""
    nodes = [
        helper.make_node("Conv", ["x", "w1", "b1"], ["a"], "first"),
        helper.make_node("Relu", ["a"], ["r"], "relu"),
        helper.make_node("Conv", ["r", "w2"], ["y"], "second", pads=[padding] * 4),
    ]
    weights = {
        "w1": RNG(1).uniform(-0.1, 0.1, (4, 3, 1, 1)).astype(np.float32),
        "b1": np.array([5, 0, 8, -0.1], np.float32),
        "w2": RNG(2).standard_normal((2, 4, 3, 3)).astype(np.float32),
    }
    return network(nodes, weights, ["n", 3, 6, 6])


def test_high_biases_move_into_the_next_layer_exactly(tmp_path: Path) -> None:
    proto, seen = biased(0), Samples(x=RNG(3).uniform(-1, 1, (64, 3, 6, 6)).astype(np.float32))
    model, notes = equalized(proto, tmp_path, seen)
    assert any("high bias of 2 channels" in note for note in notes)
    first, second = layers(model.graph)
    assert first.bias is not None
    assert second.bias is not None
    (before,), (after,) = (models.run(m, seen.feeds).values() for m in (proto, ir.to_proto(model)))
    np.testing.assert_allclose(after, before, rtol=1e-5, atol=1e-5)
    untouched, notes = equalized(proto, tmp_path, seen, absorb_bias=False)
    assert layers(untouched.graph)[1].bias is None
    assert not any("bias" in note for note in notes)


def test_a_bias_is_not_absorbed_where_zeros_are_padded(tmp_path: Path) -> None:
    proto, seen = biased(1), Samples(x=RNG(3).uniform(-1, 1, (64, 3, 6, 6)).astype(np.float32))
    model, notes = equalized(proto, tmp_path, seen)
    assert not any("high bias of" in note for note in notes)
    assert layers(model.graph)[1].bias is None


def test_the_rows_of_a_reshape_must_be_those_of_its_input(tmp_path: Path) -> None:
    def found(target: list[int]) -> Chain | Broken:
        nodes = [
            helper.make_node("Conv", ["x", "w1"], ["a"], "first"),
            helper.make_node("Reshape", ["a", "target"], ["r"], "reshape"),
            helper.make_node("Gemm", ["r", "w2"], ["y"], "second"),
        ]
        width = abs(target[-1]) if target[-1] > 0 else 32
        weights = {"w1": uneven(1, 8, 3, 1, 1), "w2": uneven(2, width, 4), "target": np.array(target, np.int64)}
        model, _ = prepare(ir.from_proto(network(nodes, weights, ["n", 3, 2, 2])), tmp_path)
        known = layers(model.graph)
        return chain(layer_source(known[0]), known, known_shapes(model))

    for target in ([0, -1], [-1, 32]):
        item = found(target)
        assert isinstance(item, Chain)
        assert item.readers[0].spread == 4
    assert isinstance(found([-1, 16]), Broken)


def test_a_quantized_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TechniqueFailed, match="quantized already"):
        equalized(models.quantized(), tmp_path)


@given(st.integers(0, 10_000), st.integers(1, 3), st.booleans())
def test_scales_make_extents_equal_and_leave_dead_channels(seed: int, spread: int, dead: bool) -> None:
    chance = RNG(seed)
    first, second = chance.standard_normal((2, 3, 4, 5)), chance.standard_normal((1, 7, 6 * spread, 1))
    if dead:
        first[0, 1] = 0.0
    written, read = output_extents(first), input_extents(second, spread)
    scales = equalizing_scales(written, read)
    alive = written > 0
    np.testing.assert_allclose((written / scales)[alive], (read * scales)[alive])
    assert (scales[~alive] == 1).all()


def test_only_what_lies_above_the_margin_is_absorbed() -> None:
    low, high = np.array([0.0, 1.0, 4.0]), np.array([3.0, 5.0, 6.0])
    np.testing.assert_allclose(absorbable(low, high), [0, 0, 3])


@pytest.mark.parametrize(
    ("operator", "shape", "attributes"),
    [
        ("Conv", (6, 2, 3, 1), {"group": 2}),
        ("ConvTranspose", (4, 3, 2, 2), {"group": 2}),
        ("Gemm", (5, 7), {"transB": 1}),
        ("Gemm", (5, 7), {}),
        ("MatMul", (5, 7), {}),
    ],
)
def test_a_weight_by_channel_finds_its_way_back(
    operator: str, shape: tuple[int, ...], attributes: dict[str, Any]
) -> None:
    proto = network(
        [helper.make_node(operator, ["x", "w"], ["y"], "n", **attributes)], {"w": uneven(1, *shape)}, ["n", "m"]
    )
    (layer,) = layers(ir.from_proto(proto).graph)
    np.testing.assert_array_equal(as_stored(layer, by_channel(layer, layer.weight)), layer.weight)
    assert output_extents(by_channel(layer, layer.weight)).size == layer_source(layer).channels
