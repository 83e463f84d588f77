"""SmoothQuant: outliers move into weights, the function stays, and quantized products lose less."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import helper

from accel.context import Context
from accel.errors import DataRequired, TechniqueFailed
from accel.graph.layers import layers
from accel.graph.observe import Probe, observe
from accel.numerics.equalization import product_error, smoothing_scales
from accel.techniques.smooth import Smooth
from tests import models
from tests.samples import Samples

WIDTH = 16
RNG = np.random.default_rng
Node = onnx.NodeProto


DATA = Samples(x=RNG(0).standard_normal((32, 5, WIDTH)).astype(np.float32))


def outliers(seed: int) -> np.ndarray:
    """A norm's scale in which two channels are far larger than the others."""
    scale = RNG(seed).uniform(0.5, 1.5, WIDTH).astype(np.float32)
    scale[[3, 7]] *= 60
    return scale


def weights(seed: int, *shape: int) -> np.ndarray:
    return (RNG(seed).standard_normal(shape) * 0.3).astype(np.float32)


def network(nodes: Sequence[Node], constants: dict[str, np.ndarray]) -> onnx.ModelProto:
    inputs = [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["n", 5, WIDTH])]
    return models.assemble(nodes, inputs, [helper.make_empty_tensor_value_info("y")], constants)


def attention(norm: Sequence[Node], constants: dict[str, np.ndarray]) -> onnx.ModelProto:
    """A norm that gives ``h``, three products that read it, and a product of what attention makes of them."""
    nodes = [
        *norm,
        *(helper.make_node("MatMul", ["h", f"w{part}"], [part], part) for part in "qkv"),
        helper.make_node("Transpose", ["k"], ["kt"], "turn", perm=[0, 2, 1]),
        helper.make_node("MatMul", ["q", "kt"], ["s"], "scores"),
        helper.make_node("Softmax", ["s"], ["p"], "softmax", axis=-1),
        helper.make_node("MatMul", ["p", "v"], ["o"], "mix"),
        helper.make_node("MatMul", ["o", "wo"], ["y"], "out"),
    ]
    own = {f"w{part}": weights(number, WIDTH, WIDTH) * 0.05 for number, part in enumerate("qkvo")}
    return network(nodes, own | constants)


def layer_norm() -> onnx.ModelProto:
    norm = [helper.make_node("LayerNormalization", ["x", "scale", "bias"], ["h"], "norm")]
    return attention(norm, {"scale": outliers(1), "bias": weights(2, WIDTH)})


def primitive_norm() -> onnx.ModelProto:
    """A norm of mean squares, as exporters write it, with a constant added behind it."""
    norm = [
        helper.make_node("Mul", ["x", "x"], ["xx"], "square"),
        helper.make_node("ReduceMean", ["xx"], ["mean"], "mean", axes=[-1]),
        helper.make_node("Add", ["mean", "epsilon"], ["shifted"], "shift"),
        helper.make_node("Sqrt", ["shifted"], ["root"], "root"),
        helper.make_node("Div", ["x", "root"], ["normed"], "divide"),
        helper.make_node("Mul", ["scale", "normed"], ["scaled"], "scale_node"),
        helper.make_node("Add", ["scaled", "bias"], ["h"], "bias_node"),
    ]
    return attention(norm, {"scale": outliers(1), "bias": weights(2, WIDTH), "epsilon": np.array(1e-5, np.float32)})


def smoothed(
    proto: onnx.ModelProto, folder: Path, data: Samples | None = DATA, **given: object
) -> tuple[ir.Model, list[str]]:
    context = Context(folder, 0, lambda *_: None, data)
    return Smooth.model_validate(given).apply(ir.from_proto(proto), context), context.notes


def difference(proto: onnx.ModelProto, model: ir.Model) -> float:
    feed = {"x": RNG(5).standard_normal((4, 5, WIDTH)).astype(np.float32)}
    (before,), (after,) = models.run(proto, feed).values(), models.run(ir.to_proto(model), feed).values()
    return float(np.abs(before - after).max() / np.abs(before).max())


def extent(model: ir.Model, name: str, folder: Path) -> np.ndarray:
    """The largest magnitude of each channel that a layer reads."""
    (layer,) = (layer for layer in layers(model.graph) if layer.name == name)
    probe = Probe(str(layer.input.name), "channel_extremes", -1)
    low, high = (
        np.asarray(part, np.float32) for part in observe(model, [probe], DATA.feeds, folder).run(DATA.feeds)[probe]
    )
    return np.maximum(-low, high)


@pytest.mark.parametrize("make", [layer_norm, primitive_norm])
def test_the_norm_takes_the_division_for_all_that_read_it(make: Callable[[], onnx.ModelProto], tmp_path: Path) -> None:
    proto = make()
    model, notes = smoothed(proto, tmp_path)
    assert difference(proto, model) < 1e-5
    before = extent(ir.from_proto(proto), "q", tmp_path)
    after = extent(model, "q", tmp_path)
    assert before.max() / np.median(before) > 40
    assert after.max() / np.median(after) < 15
    assert sum(node.op_type == "Mul" for node in model.graph) == sum(node.op_type == "Mul" for node in proto.graph.node)
    read = np.max([np.abs(layer.weight).max(1) for layer in layers(model.graph) if layer.name in "qkv"], axis=0)
    np.testing.assert_allclose(after / read, np.full(WIDTH, (after / read)[0]), rtol=1e-3)  # alpha 0.5: both alike
    assert any("out" in note and "were left" in note for note in notes)


def test_an_explicit_product_is_put_in_only_where_asked_for(tmp_path: Path) -> None:
    proto = layer_norm()
    model, notes = smoothed(proto, tmp_path, explicit=True)
    assert [node.op_type for node in model.graph].count("Mul") == 1
    assert difference(proto, model) < 1e-5
    assert not any("were left" in note for note in notes)


def test_a_norm_that_something_else_reads_is_left(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("LayerNormalization", ["x", "scale", "bias"], ["h"], "norm"),
        helper.make_node("MatMul", ["h", "w"], ["m"], "product"),
        helper.make_node("Add", ["h", "m"], ["y"], "residual"),
    ]
    proto = network(nodes, {"scale": outliers(1), "bias": weights(2, WIDTH), "w": weights(3, WIDTH, WIDTH)})
    model, notes = smoothed(proto, tmp_path)
    assert difference(proto, model) == 0.0
    assert any("product" in note and "were left" in note for note in notes)
    model, _ = smoothed(proto, tmp_path, explicit=True)
    assert 0 < difference(proto, model) < 1e-5


def test_a_layer_takes_the_division_for_the_next(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("MatMul", ["x", "w1"], ["a"], "first"),
        helper.make_node("Add", ["a", "b1"], ["b"], "bias"),
        helper.make_node("Relu", ["b"], ["r"], "relu"),
        helper.make_node("MatMul", ["r", "w2"], ["y"], "second"),
    ]
    constants = {"w1": weights(1, WIDTH, WIDTH) * outliers(2), "b1": weights(3, WIDTH), "w2": weights(4, WIDTH, 3)}
    proto = network(nodes, constants)
    model, notes = smoothed(proto, tmp_path)
    assert difference(proto, model) < 1e-5
    before, after = (extent(m, "second", tmp_path) for m in (ir.from_proto(proto), model))
    assert after.max() / np.median(after) < 0.5 * before.max() / np.median(before)
    assert any("1 groups" in note for note in notes)


def test_auto_finds_an_alpha_that_loses_less_than_none(tmp_path: Path) -> None:
    proto = layer_norm()
    model, notes = smoothed(proto, tmp_path, alpha="auto")
    assert any("alpha 0." in note and note.startswith("q, k, v") for note in notes)
    assert difference(proto, model) < 1e-5
    assert [layer.name for layer in layers(model.graph) if layer.name in "qkv"] == ["q", "k", "v"]


def test_it_needs_samples_and_a_float_model(tmp_path: Path) -> None:
    with pytest.raises(DataRequired, match="smooth needs"):
        smoothed(layer_norm(), tmp_path, data=None)
    with pytest.raises(TechniqueFailed, match="quantized already"):
        smoothed(models.quantized(), tmp_path)


@given(st.integers(0, 10_000), st.floats(0.0, 1.0))
def test_scales_share_the_spread(seed: int, alpha: float) -> None:
    chance = RNG(seed)
    activations, read = np.exp(chance.normal(0, 2, 12)), np.exp(chance.normal(0, 1, 12))
    activations[0], read[1] = 0.0, 0.0
    scales = smoothing_scales(activations, read, alpha)
    assert (scales[:2] == 1).all()
    wanted = activations[2:] ** alpha / read[2:] ** (1 - alpha)
    np.testing.assert_allclose(scales[2:] / scales[2], wanted / wanted[0])


def test_smoothing_outliers_makes_quantized_products_better() -> None:
    activations = weights(1, 64, WIDTH) * outliers(2)
    matrix = weights(3, WIDTH, 8)
    scales = smoothing_scales(np.abs(activations).max(0), np.abs(matrix).max(1), 0.5)
    plain = product_error(activations, [matrix], np.ones(WIDTH))
    assert product_error(activations, [matrix], scales) < 0.5 * plain
