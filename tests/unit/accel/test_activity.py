"""Channels: what the graph expects of them, what they do, and which of them serve for nothing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import helper

from accel.context import rows_in
from accel.graph.layers import Layer, layers
from accel.graph.observe import observe
from accel.graph.prepare import prepare
from accel.numerics.activity import Moments, channel_meter, expectation, first_layer
from accel.numerics.channel_activity import ChannelActivity
from accel.report.quantization import Finding
from tests.models import _value, assemble


def channel_activity(
    model: ir.Model, of: Sequence[Layer], batches: Iterable[Mapping[str, np.ndarray]], folder: Path
) -> tuple[Finding, ...]:
    """What is found of the channels of layers on batches."""
    activity, observed = ChannelActivity(of), None
    for batch in batches if of else ():
        observed = observed or observe(model, activity.probes, batch, folder)
        activity.add(observed.run(batch), rows_in(batch))
    return activity.findings()


NODE = helper.make_node


def conv_clip(bias: np.ndarray, factor: np.ndarray, *, clip: bool = True) -> onnx.ModelProto:
    """One input channel times a factor plus a bias for each output channel, then Clip to 0..6 or Relu."""
    weights = {"w": factor.astype(np.float32).reshape(-1, 1, 1, 1), "b": bias.astype(np.float32)}
    nodes = [NODE("Conv", ["x", "w", "b"], ["c"], "conv", kernel_shape=[1, 1])]
    if clip:
        nodes.append(NODE("Clip", ["c", "zero", "six"], ["y"], "clip"))
        weights |= {"zero": np.array(0, np.float32), "six": np.array(6, np.float32)}
    else:
        nodes.append(NODE("Relu", ["c"], ["y"], "relu"))
    return assemble(nodes, [_value("x", ["n", 1, 4, 4])], [_value("y", ["n", len(bias), 4, 4])], weights)


def images(rows: int = 24) -> list[dict[str, np.ndarray]]:
    x = np.random.default_rng(3).uniform(0, 5, (rows, 1, 4, 4)).astype(np.float32)
    return [{"x": x[start : start + 8]} for start in range(0, rows, 8)]


def activity(model: onnx.ModelProto, batches: list[dict[str, np.ndarray]], folder: Path) -> dict[str, Finding]:
    prepared, _ = prepare(ir.from_proto(model), folder)
    found = channel_activity(prepared, layers(prepared.graph), batches, folder)
    return {finding.code: finding for finding in found}


def test_healthy_channels_give_no_finding(tmp_path: Path) -> None:
    assert activity(conv_clip(np.zeros(8), np.linspace(0.5, 1, 8)), images(), tmp_path) == {}


def test_dead_channels_are_counted_by_layer(tmp_path: Path) -> None:
    found = activity(conv_clip(np.array([-50, 0, 0, -50]), np.ones(4), clip=False), images(), tmp_path)
    assert set(found) == {"dead_channels"}
    assert "2 of 4 channels never changed on 24 samples: conv (2 of 4)" in found["dead_channels"].message
    assert found["dead_channels"].severity == "info"
    all_dead = activity(conv_clip(np.full(4, -50), np.ones(4)), images(), tmp_path)
    assert all_dead["dead_channels"].severity == "warning"


def test_a_channel_that_lives_in_one_batch_is_not_dead(tmp_path: Path) -> None:
    batches = [{"x": np.zeros((2, 1, 4, 4), np.float32)}, {"x": np.ones((2, 1, 4, 4), np.float32)}]
    assert activity(conv_clip(np.zeros(2), np.ones(2)), batches, tmp_path) == {}
    assert set(activity(conv_clip(np.zeros(2), np.ones(2)), batches[:1], tmp_path)) == {"dead_channels"}


def test_saturated_channels_are_not_called_dead(tmp_path: Path) -> None:
    found = activity(conv_clip(np.array([50, 0, 0, 0]), np.ones(4)), images(), tmp_path)
    assert set(found) == {"saturated_channels"}
    assert "1 of 4" in found["saturated_channels"].message
    assert found["saturated_channels"].severity == "warning"


def test_channels_below_four_steps_are_uneven(tmp_path: Path) -> None:
    factors = np.array([1, 1, 1, 5 / 255, 3 / 255])
    found = activity(conv_clip(np.zeros(5), factors, clip=False), images(), tmp_path)
    assert set(found) == {"uneven_channels"}
    assert "1 of 5" in found["uneven_channels"].message
    assert "equalize" in found["uneven_channels"].hint


def test_only_the_worst_layers_are_named(tmp_path: Path) -> None:
    nodes = [NODE("Gemm", ["x", f"w{i}", f"b{i}"], [f"h{i}"], f"layer{i:02d}") for i in range(12)]
    nodes += [NODE("Relu", [f"h{i}"], [f"y{i}"], f"relu{i}") for i in range(12)]
    weights = {f"w{i}": np.eye(4, 16, dtype=np.float32) + np.float32(0.5) for i in range(12)}
    weights |= {f"b{i}": np.where(np.arange(16) <= i, -99, 0).astype(np.float32) for i in range(12)}
    model = assemble(nodes, [_value("x", ["n", 4])], [_value(f"y{i}", ["n", 16]) for i in range(12)], weights)
    x = np.random.default_rng(0).uniform(0, 1, (16, 4)).astype(np.float32)
    message = activity(model, [{"x": x}], tmp_path)["dead_channels"].message
    assert message.startswith("78 of 192 channels")
    assert "layer11 (12 of 16), layer10 (11 of 16)" in message
    assert "layer01" not in message
    assert message.endswith("layer02 (3 of 16) and 2 more layers.")


def test_without_layers_or_samples_there_is_nothing_to_say(tmp_path: Path) -> None:
    prepared, _ = prepare(ir.from_proto(conv_clip(np.zeros(2), np.ones(2))), tmp_path)
    assert channel_activity(prepared, [], images(), tmp_path) == ()
    assert channel_activity(prepared, layers(prepared.graph), [], tmp_path) == ()


def test_moments_equal_those_of_numpy(tmp_path: Path) -> None:
    factors = np.array([1.0, -2.0, 3.0])
    model = ir.from_proto(conv_clip(np.array([0, 1, 2]), factors))
    before = ir.to_proto(model).SerializeToString(deterministic=True)
    batches = images()
    meter = channel_meter(model, {"c": 1, "x": None}, batches[0], tmp_path)
    measured = meter.measure(batches)
    x = np.concatenate([batch["x"] for batch in batches]).astype(np.float64)
    np.testing.assert_allclose(measured["c"].mean, x.mean() * factors + [0, 1, 2], rtol=1e-5)
    np.testing.assert_allclose(measured["c"].spread, x.std() * np.abs(factors), rtol=1e-4)
    np.testing.assert_allclose(measured["x"].mean, [x.mean()], rtol=1e-5)
    assert ir.to_proto(model).SerializeToString(deterministic=True) == before
    with pytest.raises(ValueError, match="no batch"):
        meter.measure([])


def test_misfit_and_distance() -> None:
    here = Moments(np.array([0.0, 10.0]), np.array([1.0, 2.0]))
    assert here.misfit(here) == 0
    assert here.distance(here) == (0, 1)
    there = Moments(np.array([3.0, 16.0]), np.array([2.0, 4.0]))
    assert here.distance(there) == pytest.approx((3, 2))
    # J = ((s2^2 + d^2) / s1^2 + (s1^2 + d^2) / s2^2) / 2 - 1 = ((4 + 9) / 1 + (1 + 9) / 4) / 2 - 1 = 6.75
    assert here.misfit(there) == pytest.approx(np.log(7.75))


def chain(nodes: list[onnx.NodeProto], weights: dict[str, np.ndarray], shape: list[int | str]) -> ir.Model:
    last = nodes[-1].output[0]
    return ir.from_proto(assemble(nodes, [_value("x", shape)], [_value(last, ["n"])], weights))


@pytest.mark.parametrize(
    ("operators", "numbers", "mean", "spread", "kind"),
    [
        (("Sub", "Div"), (5, 2), 5, 2, "normalisation"),
        (("Mul", "Sub"), (0.5, 3), 6, 2, "normalisation"),
        (("Div", "Add"), (4, 1), -4, 4, "normalisation"),
        (("Mul",), (0.25,), 0, 4, "scale"),
    ],
)
def test_a_normalisation_in_front_is_read(
    operators: tuple[str, ...], numbers: tuple[float, ...], mean: float, spread: float, kind: str
) -> None:
    nodes, weights, last = [], {}, "x"
    for place, (operator, number) in enumerate(zip(operators, numbers, strict=True)):
        weights[f"k{place}"] = np.array(number, np.float32)
        nodes.append(NODE(operator, [last, f"k{place}"], [f"v{place}"], f"n{place}"))
        last = f"v{place}"
    nodes.append(NODE("Relu", [last], ["y"], "relu"))
    found = expectation(chain(nodes, weights, ["n", 3]), "x")
    assert found is not None
    assert (found.value, found.axis, found.kind, found.source) == ("x", None, kind, "n0")
    np.testing.assert_allclose(found.moments.mean, [mean])
    np.testing.assert_allclose(found.moments.spread, [spread])


def test_a_normalisation_by_channel_knows_its_axis_and_constants_may_come_first() -> None:
    mean = np.array([1, 2, 3], np.float32).reshape(3, 1, 1)
    nodes = [
        NODE("Sub", ["m", "x"], ["d"], "turned"),
        NODE("Div", ["d", "s"], ["y"], "div"),
    ]
    found = expectation(chain(nodes, {"m": mean, "s": np.array(2, np.float32)}, ["n", 3, 4, 4]), "x")
    assert found is not None
    assert found.axis == -3
    np.testing.assert_allclose(found.moments.mean, [1, 2, 3])
    np.testing.assert_allclose(found.moments.spread, [2, 2, 2])


def test_a_shift_alone_and_a_product_of_inputs_say_nothing() -> None:
    assert (
        expectation(chain([NODE("Add", ["x", "k"], ["y"], "a")], {"k": np.array(3, np.float32)}, ["n", 3]), "x") is None
    )
    assert expectation(chain([NODE("Mul", ["x", "x"], ["y"], "a")], {}, ["n", 3]), "x") is None
    assert (
        expectation(chain([NODE("Div", ["k", "x"], ["y"], "a")], {"k": np.array(3, np.float32)}, ["n", 3]), "x") is None
    )
    assert expectation(chain([NODE("Relu", ["x"], ["y"], "a")], {}, ["n", 3]), "no input") is None


def test_the_first_batch_norm_behind_the_input_is_read_from_constant_nodes_too() -> None:
    statistics = {"scale": [1, 1], "shift": [0, 0], "mean": [3, 4], "variance": [4, 9]}
    nodes = [
        NODE("Constant", [], [name], name, value=onnx.numpy_helper.from_array(np.array(values, np.float32)))
        for name, values in statistics.items()
    ]
    nodes += [
        NODE("Conv", ["x", "w"], ["c"], "conv", kernel_shape=[1, 1]),
        NODE("BatchNormalization", ["c", *statistics], ["y"], "bn", epsilon=0.0),
    ]
    found = expectation(chain(nodes, {"w": np.ones((2, 1, 1, 1), np.float32)}, ["n", 1, 4, 4]), "x")
    assert found is not None
    assert (found.value, found.axis, found.kind, found.source) == ("c", 1, "batch norm", "bn")
    np.testing.assert_allclose(found.moments.mean, [3, 4])
    np.testing.assert_allclose(found.moments.spread, [2, 3])


def test_the_first_layer_is_found_behind_what_keeps_values() -> None:
    w = {"w": np.ones((2, 1, 1, 1), np.float32)}
    conv = NODE("Conv", ["v", "w"], ["y"], "conv", kernel_shape=[1, 1])
    found = first_layer(chain([NODE("Identity", ["x"], ["v"], "same"), conv], w, ["n", 1, 4, 4]), "x")
    assert found is not None
    assert found.name == "conv"
    assert first_layer(chain([NODE("Relu", ["x"], ["v"], "other"), conv], w, ["n", 1, 4, 4]), "x") is None
