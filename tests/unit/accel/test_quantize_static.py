"""Static quantization as a technique, and mixed precision, on tiny models with a known weakness."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper

from accel.context import Context
from accel.data.bind import Bound, bind
from accel.data.dataset import Dataset, open_dataset
from accel.data.spec import DatasetSpec
from accel.errors import BadDataset, TechniqueFailed
from accel.evaluation.contract import Contract
from accel.evaluation.trial import Trial
from accel.evaluation.truth import truth_of
from accel.graph.load import load, save
from accel.report.quantization import QuantizationReport
from accel.runtimes.onnxruntime import open_session
from accel.technique import Technique
from accel.techniques.mixed_precision import MixedPrecision
from accel.techniques.quantize_static import QuantizeStatic
from tests import models

CLASSES, FEATURES, HIDDEN = 4, 8, 16


@dataclass(frozen=True)
class Result:
    """A quantized model, and what was said of it."""

    path: Path
    context: Context
    feed: dict[str, np.ndarray]
    source: Path

    @property
    def report(self) -> QuantizationReport:
        """What the step reported."""
        assert self.context.quantization is not None
        return self.context.quantization

    @property
    def in_float(self) -> set[str]:
        """Layers that stayed in float."""
        return {layer.name for layer in self.report.layers if layer.weight_bits is None}

    def operators(self) -> list[str]:
        """Operators of the file."""
        return [node.op_type for node in onnx.load(self.path).graph.node]

    def agreement(self) -> float:
        """Share of rows with the same top class as the original."""
        (before,), (after,) = models.run(self.source, self.feed).values(), models.run(self.path, self.feed).values()
        return float((before.argmax(1) == after.argmax(1)).mean())


def fragile() -> onnx.ModelProto:
    """Three layers, of which the second cannot be quantized: a constant of 5,000 stands beside the 15 values that matter."""
    chance = np.random.default_rng(3)
    first = chance.standard_normal((FEATURES, HIDDEN)).astype(np.float32)
    first[:, 0] = 0
    second = chance.standard_normal((HIDDEN, HIDDEN)).astype(np.float32)
    second[0] = 0
    nodes = [
        helper.make_node("Gemm", ["x", "w1", "b1"], ["h1"], "first"),
        helper.make_node("Gemm", ["h1", "w2", "b2"], ["h2"], "second"),
        helper.make_node("Relu", ["h2"], ["r2"], "relu"),
        helper.make_node("Gemm", ["r2", "w3", "b3"], ["y"], "third"),
    ]
    weights = {
        "w1": first,
        "b1": np.array([5000.0] + [0.0] * (HIDDEN - 1), np.float32),
        "w2": second,
        "b2": np.zeros(HIDDEN, np.float32),
        "w3": chance.standard_normal((HIDDEN, CLASSES)).astype(np.float32),
        "b3": np.zeros(CLASSES, np.float32),
    }
    value = helper.make_tensor_value_info
    return models.assemble(
        nodes,
        [value("x", onnx.TensorProto.FLOAT, ["n", FEATURES])],
        [value("y", onnx.TensorProto.FLOAT, ["n", CLASSES])],
        weights,
    )


def applied(
    technique: Technique,
    proto: onnx.ModelProto,
    folder: Path,
    *,
    rows: int = 96,
    feed: dict[str, np.ndarray] | None = None,
    labels: bool = True,
) -> Result:
    """Apply a technique with a third of the rows to calibrate on and a third to choose by; labels are the model's own."""
    source = models.save(proto, folder / "source.onnx")
    feed = models.inputs_of(proto, rows=rows) if feed is None else feed
    arrays = {f"{name}_train": array for name, array in feed.items()}
    if labels:
        (scores,) = models.run(source, feed).values()
        arrays["y_train"] = scores.argmax(1)
    np.savez(folder / "data.npz", **arrays)
    data = open_dataset(folder / "data.npz", DatasetSpec(), folder)
    session = open_session(source, "onnxruntime:cpu")
    bound = bind(session.inputs, session.outputs, data, "train", None)
    third = max(1, len(bound) // 3)
    trial = chosen_by(data, bound, np.arange(third, min(2 * third, len(bound))), technique, session.outputs)
    context = Context(folder, 0, lambda *_: None, bound.select(np.arange(third)), None, trial)
    result = technique.apply(load(source), context)
    save(result, folder / "result.onnx")
    return Result(folder / "result.onnx", context, feed, source)


def chosen_by(data: Dataset, bound: Bound, index: np.ndarray, technique: Technique, outputs: object) -> Trial | None:
    """The rows that the technique chooses by."""
    if not len(index) or not technique.chooses:
        return None
    part = bound.select(index)
    contracts = [technique.promise] if technique.promise is not None else []
    return Trial("onnxruntime:cpu", 0, lambda *_: None, part, truth=truth_of(data, part, contracts, outputs))  # type: ignore[arg-type]


def kernels(result: Result) -> dict[str, str | None]:
    """What each layer is computed with."""
    return {layer.name: layer.kernel for layer in result.report.layers}


def test_every_layer_is_computed_in_integers_and_described(tmp_path: Path) -> None:
    result = applied(QuantizeStatic(), models.convnet(), tmp_path)
    assert kernels(result) == {"conv": "QLinearConv", "hidden": "QGemm", "out": "QGemm"}
    for layer in result.report.layers:
        assert (layer.weight_bits, layer.activation_bits, layer.granularity) == (8, 8, "channel")
        assert layer.weight_snr_db is not None
        assert layer.weight_snr_db > 35
        assert layer.output_snr_db is not None
        assert layer.output_snr_db > 30
        assert layer.portability is not None
        assert layer.note == ""
    assert result.agreement() > 0.95


@pytest.mark.parametrize("method", ["auto", "minmax", "moving_average", "percentile", "entropy", "mse"])
def test_every_way_to_choose_a_range(method: str, tmp_path: Path) -> None:
    result = applied(QuantizeStatic.model_validate({"calibration": method}), models.convnet(), tmp_path)
    assert result.agreement() > 0.9
    assert result.report.calibration is not None
    assert result.report.calibration.method == ("minmax" if method == "auto" else method) or method == "auto"


def test_a_layer_that_breaks_the_model_stays_in_float_and_is_named(tmp_path: Path) -> None:
    broken = applied(QuantizeStatic(keep_snr_db=None), fragile(), tmp_path)
    assert broken.in_float == set()
    assert broken.agreement() < 0.7
    whole = applied(QuantizeStatic(), fragile(), tmp_path)
    assert whole.in_float == {"second"}
    assert whole.agreement() > 0.95
    assert any("1 stayed in float: second" in note for note in whole.context.notes)
    assert kernels(whole)["second"] == "Gemm"
    assert "second" in whole.report.fallback
    assert len(whole.report.fallback) == 2


def test_mixed_precision_finds_the_one_layer_and_gives_it_ready_to_paste(tmp_path: Path) -> None:
    contract = Contract(metric="accuracy", max_drop=0.06)
    result = applied(MixedPrecision(contract=contract), fragile(), tmp_path, rows=300)
    # Without VNNI the third layer saturates, so that it is found as well.
    assert {"second"} <= result.in_float <= {"second", "third"}
    note = next(note for note in result.context.notes if "stay in float" in note)
    pasted = json.loads(note[note.index("{") :])
    again = applied(QuantizeStatic.model_validate(pasted), fragile(), tmp_path)
    assert {layer.name for layer in again.report.layers} == {"first", "second", "third"} - result.in_float
    assert result.report.tried[0].in_float == ()


def test_mixed_precision_in_16_bits(tmp_path: Path) -> None:
    technique = MixedPrecision(contract=Contract(max_drop=0.06), sensitive_layers="int16")
    result = applied(technique, fragile(), tmp_path, rows=300)
    bits = {layer.name: layer.activation_bits for layer in result.report.layers}
    assert bits == {"first": 8, "second": 16, "third": 8}
    assert result.agreement() > 0.95


def test_a_contract_on_quantize_static_leaves_layers_in_float_too(tmp_path: Path) -> None:
    technique = QuantizeStatic(contract=Contract(metric="agreement", max_drop=0.02), keep_snr_db=None)
    assert applied(technique, fragile(), tmp_path, labels=False).in_float == {"second"}


def test_include_and_exclude(tmp_path: Path) -> None:
    result = applied(QuantizeStatic(exclude=("Conv", "ou?")), models.convnet(), tmp_path)
    assert [layer.name for layer in result.report.layers] == ["hidden"]
    result = applied(QuantizeStatic(include=("conv",)), models.convnet(), tmp_path)
    assert [layer.name for layer in result.report.layers] == ["conv"]
    with pytest.raises(TechniqueFailed, match="leave no layer") as caught:
        applied(QuantizeStatic(include=("conv",), exclude=("c*",)), models.convnet(), tmp_path)
    assert "hidden" in caught.value.hint
    with pytest.raises(TechniqueFailed, match=r"'hiden\*' matches no node") as caught:
        applied(QuantizeStatic(exclude=("hiden*",)), models.convnet(), tmp_path)
    assert "hidden" in caught.value.hint


@pytest.mark.parametrize(
    ("parameters", "zero_point"),
    [
        ({"activation_type": "signed"}, onnx.TensorProto.INT8),
        ({"activation_type": "signed", "symmetric_activations": True}, onnx.TensorProto.INT8),
        ({"symmetric_activations": True}, onnx.TensorProto.UINT8),
        ({"activation_bits": 16}, onnx.TensorProto.UINT16),
        ({"activation_bits": 16, "activation_type": "signed"}, onnx.TensorProto.INT16),
        ({"per_channel": False}, onnx.TensorProto.UINT8),
        ({"symmetric_weights": False}, onnx.TensorProto.UINT8),
        ({"weight_bits": 5}, onnx.TensorProto.UINT8),
        ({"block_size": 32}, onnx.TensorProto.UINT8),
    ],
    ids=str,
)
def test_every_type(parameters: dict[str, object], zero_point: int, tmp_path: Path) -> None:
    result = applied(QuantizeStatic.model_validate(parameters), models.convnet(), tmp_path)
    assert result.agreement() > 0.9
    graph = onnx.load(result.path).graph
    kinds = {tensor.name: tensor.data_type for tensor in graph.initializer}
    assert {kinds[node.input[2]] for node in graph.node if node.op_type == "QuantizeLinear"} == {zero_point}


def test_what_has_no_integer_kernel_is_said(tmp_path: Path) -> None:
    result = applied(QuantizeStatic(activation_bits=16), models.convnet(), tmp_path)
    assert all("no integer kernel" in layer.note for layer in result.report.layers)


def test_seven_bits_are_the_same_everywhere(tmp_path: Path) -> None:
    held = np.full((32, CLASSES), 0.5, np.float32)
    held[::3] = -0.5
    proto = models.linear(held)
    (name,) = (entry.name for entry in proto.graph.input)
    feed = {name: np.random.default_rng(1).uniform(0.8, 1, (60, 32)).astype(np.float32)}
    plain = applied(QuantizeStatic(), proto, tmp_path, feed=feed)
    assert plain.report.portability is not None
    assert len(plain.report.portability.at_risk) == 1
    (layer,) = plain.report.layers
    assert "saturated on the samples" in layer.portability_reason
    assert 0 < (layer.saturated_share or 0) <= 1
    assert (layer.saturation_error or 0) > 0
    mended = applied(QuantizeStatic(portable=True), proto, tmp_path, feed=feed)
    assert mended.report.portability is not None
    assert (mended.report.portability.at_risk, mended.report.portability.safe_on_data) == ((), 0)
    assert mended.report.portability.changed == plain.report.portability.at_risk
    assert [layer.weight_bits for layer in mended.report.layers] == [7]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_samples_that_are_not_finite_are_refused_with_their_place(value: float, tmp_path: Path) -> None:
    feed = models.inputs_of(models.convnet(), rows=30)
    feed["image"][4, 0, 2, 2] = value
    with pytest.raises(BadDataset, match=r"'image' \(row 4"):
        applied(QuantizeStatic(), models.convnet(), tmp_path, feed=feed, labels=False)


@pytest.mark.parametrize("rows", [1, 3])
def test_one_sample_is_enough_to_run(rows: int, tmp_path: Path) -> None:
    result = applied(QuantizeStatic(), models.convnet(), tmp_path, rows=rows)
    assert kernels(result)["conv"] == "QLinearConv"


@pytest.mark.parametrize("value", [0.0, 0.25, -3.0])
def test_constant_samples(value: float, tmp_path: Path) -> None:
    feed = {"image": np.full((30, 1, 8, 8), value, np.float32)}
    result = applied(QuantizeStatic(), models.convnet(), tmp_path, feed=feed)
    assert result.agreement() == 1.0


def test_calibration_stops_when_the_scales_have_settled(tmp_path: Path) -> None:
    feed = {"image": np.tile(models.inputs_of(models.convnet(), rows=8)["image"], (48, 1, 1, 1))}
    result = applied(QuantizeStatic(tolerance=0.01), models.convnet(), tmp_path, feed=feed)
    found = result.report.calibration
    assert found is not None
    assert found.settled
    assert found.samples < 100
    assert found.curve[-1].largest_change <= 0.01
    whole = applied(QuantizeStatic(tolerance=0), models.convnet(), tmp_path, feed=feed).report.calibration
    assert whole is not None
    assert not whole.settled
    assert whole.samples == 100


def test_tables_of_embeddings_are_stored_in_8_bits(tmp_path: Path) -> None:
    table = np.random.default_rng(5).standard_normal((400, 16)).astype(np.float32)
    weight = np.random.default_rng(6).standard_normal((16, CLASSES)).astype(np.float32)
    nodes = [
        helper.make_node("Gather", ["table", "ids"], ["rows"], "gather"),
        helper.make_node("ReduceMean", ["rows"], ["mean"], "mean", axes=[1], keepdims=0),
        helper.make_node("MatMul", ["mean", "w"], ["y"], "product"),
    ]
    ids = helper.make_tensor_value_info("ids", onnx.TensorProto.INT64, ["n", 5])
    scores = helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["n", CLASSES])
    proto = models.assemble(nodes, [ids], [scores], {"table": table, "w": weight})
    feed = {"ids": np.random.default_rng(7).integers(0, 400, (60, 5))}
    result = applied(QuantizeStatic(), proto, tmp_path, feed=feed)
    assert result.path.stat().st_size < 0.4 * len(proto.SerializeToString())
    assert result.agreement() > 0.95
