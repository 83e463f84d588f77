"""Which layers saturate without VNNI, and a graph that computes as they do then, against loops."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from onnx import helper

from accel.errors import BadDataset
from accel.graph.layers import layers
from accel.graph.placement import place
from accel.graph.prepare import prepare
from accel.graph.qdq import QuantizedActivation, QuantizedWeight, insert
from accel.graph.quantized import quantized_layers
from accel.graph.saturating import Exposure, exposure, saturating
from accel.numerics.calibration import calibrate
from accel.numerics.portability import certify
from accel.numerics.saturation import saturating_product
from accel.numerics.scales import ACTIVATIONS, WEIGHTS, Granularity, parameters, quantize_tensor
from tests import models
from tests.models import _value, assemble

INPUT_SCALE, WEIGHT_SCALE = 0.5, 0.25


@dataclass
class Case:
    """One layer on 8-bit integers, whose output is not quantized, so that it shows its accumulators."""

    operator: str
    inputs: tuple[int, ...]
    weights: tuple[int, ...]
    attributes: dict[str, Any] = field(default_factory=dict)
    zero_point: int = 7
    signed: bool = False
    integers: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int8))
    """Random and extreme where none are given."""

    def __post_init__(self) -> None:
        chance = np.random.default_rng(sum(self.weights) + len(self.inputs))
        if not self.integers.size:
            self.integers = chance.integers(-127, 128, self.weights).astype(np.int8)
            self.integers[chance.random(self.weights) < 0.5] = 127
            self.integers[chance.random(self.weights) < 0.3] = -127
        self.bytes = chance.integers(0, 256, self.inputs).astype(np.uint8)
        self.bytes[chance.random(self.inputs) < 0.5] = 255

    @property
    def feed(self) -> dict[str, np.ndarray]:
        return {"x": ((self.bytes.astype(np.float32) - self.zero_point) * np.float32(INPUT_SCALE)).astype(np.float32)}

    def model(self, *, weight_dtype: type = np.int8) -> ir.Model:
        offset, dtype = (128, np.int8) if self.signed else (0, np.uint8)
        weights = self.integers
        zero = 0
        if weight_dtype is np.uint8:
            weights, zero = (self.integers.astype(np.int16) + 128).astype(np.uint8), 128
        constants: dict[str, np.ndarray] = {
            "s": np.array(INPUT_SCALE, np.float32),
            "z": np.array(self.zero_point - offset, dtype),
            "w8": weights,
            "ws": np.array(WEIGHT_SCALE, np.float32),
            "wz": np.array(zero, weight_dtype),
        }
        nodes = [
            helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"], "quantize"),
            helper.make_node("DequantizeLinear", ["q", "s", "z"], ["d"], "dequantize"),
            helper.make_node("DequantizeLinear", ["w8", "ws", "wz"], ["w"], "weight"),
            helper.make_node(self.operator, ["d", "w"], ["y"], "layer", **self.attributes),
        ]
        rank = len(self.inputs)
        proto = assemble(nodes, [_value("x", list(self.inputs))], [_value("y", [None] * rank)], constants)
        return ir.from_proto(proto)

    def accumulators(self) -> np.ndarray:
        """Whole numbers, computed by loops; zero points are taken off as the runtime does it."""
        sums = [total(seen, weights, self.zero_point) for _, seen, weights in self.dots()]
        return np.array(sums).reshape(*self._shape())

    def dots(self) -> Iterator[tuple[int, list[int], list[int]]]:
        """The output channel, the inputs and the weights of each dot product, in the order of the output."""
        if self.operator == "Conv":
            yield from self._convolved()
            return
        weights = self.integers.T if self.attributes.get("transB") else self.integers
        for row in self.bytes.reshape(-1, self.inputs[-1]).tolist():
            for channel, column in enumerate(weights.T.tolist()):
                yield channel, row, column

    def _shape(self) -> list[int]:
        if self.operator != "Conv":
            return [*self.inputs[:-1], -1]
        rank, kernel, pads, strides, dilations = self._window()
        return [
            self.inputs[0],
            self.weights[0],
            *(
                (self.inputs[2 + a] + pads[a] + pads[a + rank] - dilations[a] * (kernel[a] - 1) - 1) // strides[a] + 1
                for a in range(rank)
            ),
        ]

    def _window(self) -> tuple[int, list[int], list[int], list[int], list[int]]:
        kernel = list(self.weights[2:])
        rank = len(kernel)
        strides, dilations = (self.attributes.get(name, [1] * rank) for name in ("strides", "dilations"))
        return rank, kernel, self.attributes.get("pads", [0] * 2 * rank), strides, dilations

    def _convolved(self) -> Iterator[tuple[int, list[int], list[int]]]:
        rank, kernel, pads, strides, dilations = self._window()
        out, per_group = self.weights[:2]
        size = self.inputs[2:]
        for sample, channel, *at in product(*map(range, self._shape())):
            first = channel // (out // self.attributes.get("group", 1)) * per_group
            seen, weights = [], []
            for here in product(*map(range, kernel)):  # by place in the kernel, then by input channel
                spot = [at[a] * strides[a] + here[a] * dilations[a] - pads[a] for a in range(rank)]
                inside = all(0 <= spot[a] < size[a] for a in range(rank))
                for c in range(per_group):
                    seen.append(int(self.bytes[(sample, first + c, *spot)]) if inside else self.zero_point)
                    weights.append(int(self.integers[(channel, c, *here)]))
            yield channel, seen, weights


def pair_sums(inputs: list[int], weights: list[int]) -> list[int]:
    products = [a * b for a, b in zip(inputs, weights, strict=True)]
    return [sum(products[k : k + 2]) for k in range(0, len(products), 2)]


def total(inputs: list[int], weights: list[int], zero_point: int) -> int:
    saturated = sum(max(-32768, min(32767, value)) for value in pair_sums(inputs, weights))
    return saturated - zero_point * sum(weights)


CASES = {
    "padding, stride, dilation": Case(
        "Conv", (2, 3, 7, 6), (4, 3, 3, 2), {"pads": [1, 0, 2, 1], "strides": [2, 1], "dilations": [1, 2]}
    ),
    "groups": Case("Conv", (1, 6, 5, 5), (8, 3, 3, 3), {"group": 2, "pads": [1, 1, 1, 1]}),
    "groups of one channel": Case("Conv", (2, 3, 5, 5), (6, 1, 3, 3), {"group": 3}),
    "point": Case("Conv", (2, 5, 3, 4), (7, 5, 1, 1)),
    "point with stride": Case("Conv", (2, 6, 5, 5), (8, 6, 1, 1), {"strides": [2, 2]}),
    "one axis": Case("Conv", (2, 4, 20), (6, 4, 5), {"strides": [3], "pads": [2, 1]}),
    "three axes": Case("Conv", (1, 3, 3, 4, 3), (3, 3, 2, 2, 2)),
    "signed": Case("Conv", (1, 4, 5, 5), (4, 4, 3, 3), {"pads": [1, 1, 1, 1]}, zero_point=130, signed=True),
    "matrix": Case("MatMul", (5, 20), (20, 6)),
    "matrix, odd": Case("MatMul", (2, 3, 21), (21, 6)),
    "matrix, signed": Case("MatMul", (5, 20), (20, 6), zero_point=128, signed=True),
    "many pairs": Case("MatMul", (3, 64), (64, 40), integers=np.full((64, 40), 127, np.int8)),
    "gemm": Case("Gemm", (4, 9), (9, 5)),
    "gemm, transposed": Case("Gemm", (4, 10), (5, 10), {"transB": 1}),
}


@pytest.fixture(params=list(CASES.values()), ids=list(CASES))
def case(request: pytest.FixtureRequest) -> Case:
    found: Case = request.param
    return found


def outputs(model: ir.Model, feed: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return models.run(ir.to_proto(model), feed)


def as_integers(values: np.ndarray) -> np.ndarray:
    return np.rint(values.astype(np.float64) / (INPUT_SCALE * WEIGHT_SCALE)).astype(np.int64)


def test_the_graph_equals_loops_to_the_last_bit(case: Case) -> None:
    model = case.model()
    before = ir.to_proto(model).SerializeToString(deterministic=True)
    changed = saturating(model)
    (found,) = outputs(changed, case.feed).values()
    expected = case.accumulators()
    assert np.array_equal(as_integers(found), expected)
    assert np.array_equal(found, expected * np.float32(INPUT_SCALE * WEIGHT_SCALE))
    assert ir.to_proto(model).SerializeToString(deterministic=True) == before
    again = ir.to_proto(saturating(model)).SerializeToString(deterministic=True)
    assert ir.to_proto(changed).SerializeToString(deterministic=True) == again


def test_the_certificate_counts_what_loops_count(case: Case, tmp_path: Path) -> None:
    model = case.model()
    (entry,) = certify(model, [case.feed], tmp_path).layers
    assert entry.verdict == "at_risk"
    assert not entry.any_order
    assert entry.saturated is not None
    assert 0 < len(entry.saturated) <= entry.risky <= entry.pairs
    pairs, hits, errors, exact = set(), [], [], []
    for channel, seen, weights in case.dots():
        sums = pair_sums(seen, weights)
        beyond = [pair for pair, value in enumerate(sums) if not -32769 < value < 32768]
        pairs |= {(channel, pair) for pair in beyond}
        hits.append(bool(beyond))
        exact.append(sum(sums) - case.zero_point * sum(weights))
        errors.append(total(seen, weights, case.zero_point) - exact[-1])
    saturated = zip(entry.saturated.channel.tolist(), (entry.saturated.product // 2).tolist(), strict=True)
    assert set(saturated) == pairs
    assert entry.share == pytest.approx(np.mean(hits))
    assert entry.largest_error == pytest.approx(np.abs(errors).max() / np.abs(exact).max(), rel=1e-6)


@pytest.mark.parametrize("case", [CASES["matrix"], CASES["matrix, odd"], CASES["gemm"]])
def test_the_graph_equals_the_emulation_on_arrays(case: Case) -> None:
    (found,) = outputs(saturating(case.model()), case.feed).values()
    sums = saturating_product(case.bytes.reshape(-1, case.inputs[-1]), case.integers)
    expected = sums - case.zero_point * case.integers.astype(np.int64).sum(0)
    assert np.array_equal(as_integers(found).reshape(expected.shape), expected)


@pytest.mark.parametrize("auto_pad", ["SAME_UPPER", "SAME_LOWER", "VALID"])
@pytest.mark.parametrize("stride", [1, 2])
def test_automatic_padding_is_as_the_runtime_pads(auto_pad: str, stride: int, tmp_path: Path) -> None:
    given = Case("Conv", (1, 2, 6, 7), (3, 2, 4, 2), {"auto_pad": auto_pad, "strides": [stride, stride]})
    (layer,) = quantized_layers(given.model().graph)
    exposed = exposure(layer)
    assert isinstance(exposed, Exposure)
    assert exposed.window is not None
    pads = list(zip(*exposed.window.padding((6, 7)), strict=True))
    explicit = Case("Conv", given.inputs, given.weights, {"pads": [*pads[0], *pads[1]], "strides": [stride, stride]})
    (found,) = outputs(saturating(given.model()), given.feed).values()
    assert found.shape[2:] == exposed.window.size((6, 7))
    assert np.array_equal(as_integers(found), explicit.accumulators())
    first, second = (certify(one.model(), [one.feed], tmp_path).layers[0] for one in (given, explicit))
    assert (first.share, first.largest_error) == (second.share, second.largest_error)


def test_small_inputs_are_safe_on_data(tmp_path: Path) -> None:
    case = CASES["padding, stride, dilation"]
    certificate = certify(case.model(), [{"x": case.feed["x"] * 0}], tmp_path)
    assert certificate.named("safe_on_data") == ("layer",)
    assert certificate.samples == 2
    (entry,) = certificate.layers
    assert entry.risky > 0
    assert entry.share == 0.0
    assert entry.largest_error == 0.0
    assert entry.saturated is not None
    assert not len(entry.saturated)


def test_batches_add_up(tmp_path: Path) -> None:
    case = CASES["matrix"]
    (whole,) = certify(case.model(), [case.feed], tmp_path).layers
    calls: list[int] = []
    parts = Case(case.operator, (1, 20), case.weights, integers=case.integers).model()
    rows = ({"x": case.feed["x"][row : row + 1]} for row in range(5))
    (entry,) = certify(parts, rows, tmp_path, tell=lambda _, done, *__: calls.append(done)).layers
    assert (entry.share, entry.risky) == (whole.share, whole.risky)
    assert entry.largest_error == pytest.approx(whole.largest_error)
    assert entry.saturated is not None
    assert whole.saturated is not None
    assert np.array_equal(entry.saturated.product, whole.saturated.product)
    assert calls == [1, 2, 3, 4, 5]


class Untouched:
    """Samples that nobody may read."""

    def __iter__(self) -> Iterator[dict[str, np.ndarray]]:
        raise AssertionError("the samples were read")


SAFE = {
    "weights of 7 bits": (
        Case("MatMul", (5, 20), (20, 6), integers=np.full((20, 6), 63, np.int8)).model(),
        "exceed 16",
    ),
    "depthwise": (Case("Conv", (1, 3, 5, 5), (3, 1, 3, 3), {"group": 3}).model(), "depthwise"),
    "unsigned weights": (CASES["matrix"].model(weight_dtype=np.uint8), "unsigned"),
    "transposed": (Case("ConvTranspose", (1, 3, 5, 5), (3, 4, 3, 3)).model(), "float"),
}


@pytest.mark.parametrize(("model", "reason"), SAFE.values(), ids=list(SAFE))
def test_safe_layers_say_why_and_need_no_samples(model: ir.Model, reason: str, tmp_path: Path) -> None:
    certificate = certify(model, Untouched(), tmp_path)
    (entry,) = certificate.layers
    assert entry.verdict == "safe"
    assert reason in entry.reason
    assert entry.any_order
    assert certificate.samples == 0
    assert ir.to_proto(saturating(model)) == ir.to_proto(model)


def test_float_activations_are_safe(tmp_path: Path) -> None:
    model = CASES["matrix"].model()
    layer = next(node for node in model.graph if node.name == "layer")
    layer.replace_input_with(0, model.graph.inputs[0])
    (entry,) = certify(model, Untouched(), tmp_path).layers
    assert entry.verdict == "safe"
    assert "activations" in entry.reason


def test_stacks_of_matrices_are_judged_by_their_weights(tmp_path: Path) -> None:
    risky = Case("MatMul", (2, 3, 8), (2, 8, 4))
    (entry,) = certify(risky.model(), Untouched(), tmp_path).layers
    assert entry.verdict == "at_risk"
    assert entry.saturated is None
    assert ir.to_proto(saturating(risky.model())) == ir.to_proto(risky.model())
    safe = Case("MatMul", (2, 3, 8), (2, 8, 4), integers=np.full((2, 8, 4), 60, np.int8))
    (entry,) = certify(safe.model(), Untouched(), tmp_path).layers
    assert entry.verdict == "safe"


def test_no_sample_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadDataset, match="no sample"):
        certify(CASES["matrix"].model(), [], tmp_path)


def test_a_quantized_model_is_certified_layer_by_layer(tmp_path: Path) -> None:
    proto = models.convnet()
    model, _ = prepare(ir.from_proto(proto), tmp_path)
    placement = place(layers(model.graph))
    batches = [models.inputs_of(proto, 8, seed) for seed in range(2)]
    ranges = calibrate(
        model, placement.measured, batches, method="minmax", scheme=ACTIVATIONS, workspace=tmp_path
    ).ranges
    weights = {}
    for layer in placement.layers:
        granularity = Granularity(layer.channel_axis)
        integers, found = quantize_tensor(layer.weight, WEIGHTS, granularity)
        weights[layer.name] = QuantizedWeight(integers, found, WEIGHTS, granularity)
    activations = {
        name: QuantizedActivation(parameters(*bounds, ACTIVATIONS), ACTIVATIONS) for name, bounds in ranges.items()
    }
    insert(model, placement, weights, activations)
    certificate = certify(model, iter(batches), tmp_path)
    assert [entry.name for entry in certificate.layers] == ["conv", "hidden", "out"]
    assert [entry.operator for entry in certificate.layers] == ["Conv", "Gemm", "Gemm"]
    assert all(entry.risky > 0 for entry in certificate.layers)
    assert certificate.samples == 16
    assert not list(tmp_path.iterdir())
    changed = saturating(model)
    weight = next(node for node in changed.graph if node.name == "hidden").inputs[1]
    assert weight is not None
    assert weight.const_value is not None  # no pattern of a quantized layer is left that a runtime could fuse
    scores = outputs(changed, batches[0])["scores"]
    assert scores.shape == (8, models.CLASSES)
