"""Outputs that a decoder reads, through the whole engine: evaluations, recipes with contracts, and what is refused."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from accel import run as engine
from accel.data.binding import Binding
from accel.errors import AccelError, BadDataset, BindingMismatch, LabelsOutOfRange, RuntimeFailed
from accel.evaluation.contract import Contract
from accel.report import CompressReport, EvaluatedModel, EvaluateReport, SandboxSummary
from accel.request import CompressRequest, DatasetFile, EvaluateRequest, ModelFile
from accel.techniques import adapter
from tests import models

STEPS, CLASSES, BLANK = 7, 5, 0
CTC, YES_NO = {"decoder": "ctc_greedy"}, {"decoder": "threshold"}
Arrays = dict[str, np.ndarray]


class Bench:
    """A folder for models, data and results; each call of the engine has a workspace of its own."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._runs = folder, 0

    def evaluate(
        self, protos: list[onnx.ModelProto], arrays: Arrays, decoder: dict | None, **more: Any
    ) -> tuple[EvaluatedModel, ...]:
        listed = tuple(self._model(proto, f"m{number}") for number, proto in enumerate(protos))
        request = EvaluateRequest(
            workspace=self._workspace(), models=listed, baseline_id="m0", dataset=self._data(arrays),
            **{"binding": Binding.model_validate({"decoder": decoder}), "batch_size": 16, **more},
        )  # fmt: skip
        report = engine.run(request, SandboxSummary(active=(), missing={}), lambda *_: None).report
        assert isinstance(report, EvaluateReport)
        return report.models

    def compress(
        self, proto: onnx.ModelProto, arrays: Arrays, decoder: dict | None, step: dict, **more: Any
    ) -> CompressReport:
        request = CompressRequest(
            workspace=self._workspace(), model=self._model(proto, "m"), dataset=self._data(arrays),
            steps=(adapter.validate_python(step),), result_ids=("r",), measure_speed=False,
            **{"binding": Binding.model_validate({"decoder": decoder}), **more},
        )  # fmt: skip
        report = engine.run(request, SandboxSummary(active=(), missing={}), lambda *_: None).report
        assert isinstance(report, CompressReport)
        return report

    def _workspace(self) -> Path:
        self._runs += 1
        path = self._folder / f"work{self._runs}"
        path.mkdir()
        return path

    def _model(self, proto: onnx.ModelProto, name: str) -> ModelFile:
        return ModelFile(model_id=name, path=models.save(proto, self._folder / f"{name}.onnx"))

    def _data(self, arrays: Arrays) -> DatasetFile:
        np.savez(self._folder / "data.npz", **arrays)
        return DatasetFile(path=self._folder / "data.npz")


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def features(rows: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((rows, STEPS, 8)).astype(np.float32)


def answers(proto: onnx.ModelProto, x: np.ndarray) -> np.ndarray:
    (found,) = models.run(proto, {"x": x}).values()
    return found


def spelt(paths: np.ndarray, padding: int) -> np.ndarray:
    """Paths as sequences, by the plain rule, filled up with padding."""
    rows = [[symbol for symbol, _ in itertools.groupby(path) if symbol != BLANK] for path in paths.tolist()]
    return np.array([row + [padding] * (STEPS - len(row)) for row in rows], np.int64)


def lines(proto: onnx.ModelProto, *, rows: int = 200, wrong: int = 0, padding: int = -1) -> Arrays:
    """Features and the sequences that the model reads in them, but for the first rows of ``test``."""
    arrays = {"x_train": features(60, 1), "x_test": features(rows, 2)}
    for split in ("train", "test"):
        arrays[f"y_{split}"] = spelt(answers(proto, arrays[f"x_{split}"]).argmax(2), padding)
    arrays["y_test"][:wrong, 0] = 1 + arrays["y_test"][:wrong, 0] % (CLASSES - 1)
    return arrays


def notes(proto: onnx.ModelProto, *, rows: int = 200, flipped: int = 0) -> Arrays:
    """Features and the decisions that the model makes on them, but for the first step of the first rows of ``test``."""
    arrays = {"x_train": features(60, 3), "x_test": features(rows, 4)}
    for split in ("train", "test"):
        arrays[f"y_{split}"] = (answers(proto, arrays[f"x_{split}"]) >= 0.5).astype(np.uint8)
    arrays["y_test"][:flipped, 0] ^= 1
    return arrays


@pytest.mark.parametrize("padding", [-1, BLANK])
def test_sequences_are_evaluated_in_pairs(bench: Bench, padding: int) -> None:
    first, second = models.framewise(), models.framewise(seed=62)
    arrays = lines(first, wrong=20, padding=padding)
    baseline, other = bench.evaluate([first, second], arrays, CTC, contract=Contract(max_drop=0.05))
    assert set(baseline.metrics) == {"accuracy"}
    assert baseline.metrics["accuracy"].value == pytest.approx(0.9)
    assert other.error is None
    against = other.against_baseline
    assert against is not None
    theirs = spelt(answers(second, arrays["x_test"]).argmax(2), -1)
    ours = spelt(answers(first, arrays["x_test"]).argmax(2), -1)
    assert against.flips == int((theirs != ours).any(1).sum())
    assert against.p_value is not None
    assert against.p_value < 1e-6
    assert against.verdict is not None
    assert against.verdict.outcome == "not_met"


def test_decisions_are_evaluated_sample_by_sample(bench: Bench) -> None:
    proto = models.framewise("Sigmoid")
    arrays = notes(proto, flipped=50)
    baseline, twin = bench.evaluate([proto, proto], arrays, YES_NO, contract=Contract(metric="f1", max_drop=0.05))
    assert list(baseline.metrics) == ["f1", "accuracy"]
    said, truth = answers(proto, arrays["x_test"]) >= 0.5, arrays["y_test"] > 0
    f1 = 2 * (said & truth).sum() / (said.sum() + truth.sum())
    assert baseline.metrics["f1"].value == pytest.approx(f1)
    accuracy = baseline.metrics["accuracy"]
    assert accuracy.value == pytest.approx(1 - 50 * CLASSES / said.size)
    assert 0 < (accuracy.low or 0) < accuracy.value < (accuracy.high or 0) < 1
    against = twin.against_baseline
    assert against is not None
    assert against.drop is not None
    assert (against.metric, against.drop.value, against.flips, against.p_value) == ("f1", 0, None, None)
    assert against.verdict is not None
    assert against.verdict.outcome == "met"


@pytest.mark.parametrize("as_labels", [bool, np.float32, lambda y: y[..., None] * np.int64(7)])
def test_labels_of_decisions_come_in_many_types(bench: Bench, as_labels: Callable[[np.ndarray], np.ndarray]) -> None:
    proto = models.framewise("Sigmoid")
    arrays = notes(proto)
    arrays["y_test"] = (
        arrays["y_test"].astype(as_labels) if isinstance(as_labels, type) else as_labels(arrays["y_test"])
    )
    (found,) = bench.evaluate([proto], {name: arrays[name] for name in ("x_test", "y_test")}, YES_NO)
    values = {metric: estimate.value for metric, estimate in found.metrics.items()}
    assert values == {"f1": 1, "accuracy": 1}


def test_where_nothing_is_yes_accuracy_is_left(bench: Bench) -> None:
    proto = models.framewise("Sigmoid")
    arrays = {"x_test": features(20, 5), "y_test": np.zeros((20, STEPS, CLASSES), bool)}
    (found,) = bench.evaluate([proto], arrays, YES_NO)
    assert set(found.metrics) == {"accuracy"}
    with pytest.raises(BadDataset, match=r"f1 is no number.*the target is no everywhere, in all of the 20 rows"):
        bench.evaluate([proto], arrays, YES_NO, metrics=("f1",))
    with pytest.raises(BadDataset, match="f1 is no number"):
        bench.compress(proto, arrays, YES_NO, {"technique": "optimize_graph"}, contract=Contract(metric="f1"))


@pytest.mark.parametrize(("decoder", "last"), [(CTC, "Softmax"), (YES_NO, "Sigmoid")])
def test_without_labels_models_agree_or_not(bench: Bench, decoder: dict, last: str) -> None:
    first, second = models.framewise(last), models.framewise(last, seed=62)
    arrays = {"x_test": features(100, 6)}
    baseline, other = bench.evaluate([first, second], arrays, decoder)
    assert baseline.metrics["agreement"].value == 1
    one, two = (answers(proto, arrays["x_test"]) for proto in (first, second))
    same = ((one >= 0.5) == (two >= 0.5)).mean()
    if decoder is CTC:
        same = (spelt(one.argmax(2), -1) == spelt(two.argmax(2), -1)).all(1).mean()
    assert other.metrics["agreement"].value == pytest.approx(same)
    report = bench.compress(first, arrays, decoder, {"technique": "quantize_dynamic"})
    assert report.comparison.metric == "agreement"
    assert report.comparison.result_metric is not None
    assert report.comparison.agreement == pytest.approx(report.comparison.result_metric.value)
    assert 0.5 < report.comparison.agreement <= 1


@pytest.mark.parametrize("technique", ["quantize_static", "mixed_precision"])
@pytest.mark.parametrize(("decoder", "metric"), [(CTC, "accuracy"), (YES_NO, "f1")])
def test_a_contract_is_judged_on_what_was_decoded(bench: Bench, technique: str, decoder: dict, metric: str) -> None:
    proto = models.framewise("Softmax" if decoder is CTC else "Sigmoid")
    arrays = lines(proto, rows=400) if decoder is CTC else notes(proto, rows=400)
    step = {"technique": technique, "samples": 20, "contract": {"metric": metric, "max_drop": 0.2}}
    report = bench.compress(proto, arrays, decoder, step)
    verdict, found = report.steps[0].verdict, report.comparison
    assert verdict is not None
    assert verdict.outcome == "met", verdict.explanation
    assert (found.metric, found.samples) == (metric, 400)
    assert found.parent_metric is not None
    assert found.parent_metric.value == 1, "the labels are the model's own"
    assert found.result_metric is not None
    assert found.drop is not None
    assert found.drop.value == pytest.approx(1 - found.result_metric.value)
    if metric == "accuracy":
        assert found.agreement == pytest.approx(found.result_metric.value)


def test_the_layer_that_would_break_sequences_stays_in_float(bench: Bench) -> None:
    """A feature of 5,000 that no weight uses stands beside those that matter: 8 bits see nothing else."""
    proto = models.framewise()
    weight = onnx.numpy_helper.to_array(proto.graph.initializer[0]).copy()
    weight[0] = 0
    proto.graph.initializer[0].CopyFrom(onnx.numpy_helper.from_array(weight, "w1"))
    arrays = lines(proto, rows=300)
    for split in ("train", "test"):
        arrays[f"x_{split}"][..., 0] = 5000
    step = {"technique": "mixed_precision", "samples": 20, "contract": {"metric": "accuracy", "max_drop": 0.2}}
    report = bench.compress(proto, arrays, CTC, step)
    quantization, verdict = report.steps[0].quantization, report.steps[0].verdict
    assert quantization is not None
    assert [layer.name for layer in quantization.layers if layer.weight_bits is None] == ["first"]
    assert verdict is not None
    assert verdict.outcome == "met", verdict.explanation


@pytest.mark.parametrize(("decoder", "metric"), [(CTC, "accuracy"), (YES_NO, "f1")])
def test_recipes_are_compared_without_a_contract_too(bench: Bench, decoder: dict, metric: str) -> None:
    proto = models.framewise("Softmax" if decoder is CTC else "Sigmoid")
    arrays = lines(proto) if decoder is CTC else notes(proto)
    found = bench.compress(proto, arrays, decoder, {"technique": "quantize_dynamic"}).comparison
    assert found.metric == metric
    assert found.drop is not None
    assert found.drop.value >= 0


def test_a_broken_result_is_said_in_the_words_of_its_output(bench: Bench) -> None:
    step = {"technique": "quantize_weights", "bits": 2, "method": "nearest"}
    for decoder, last, words in (
        (CTC, "Softmax", "samples keep their sequence"),
        (YES_NO, "Sigmoid", "decisions stay"),
    ):
        proto = models.framewise(last)
        report = bench.compress(proto, lines(proto) if decoder is CTC else notes(proto), decoder, step)
        assert any(words in warning for warning in report.comparison.warnings)


def swapped(arrays: Arrays, **others: np.ndarray) -> Arrays:
    return arrays | {f"{name}_{split}": array for name, array in others.items() for split in ("train", "test")}


CONTRACT = Contract(metric="accuracy", max_drop=0.1)
X, SEQUENCES = features(10, 7), np.ones((10, STEPS), np.int64)
WORDS = np.array(["a line"] * 10)
HALF = np.full((10, STEPS, CLASSES), 0.5)
HALF[3] = np.nan
WRONG: list[tuple[dict | None, np.ndarray, type[AccelError], str, str]] = [
    (CTC, SEQUENCES[:, 0], BindingMismatch, r"the shape \[10\] of int64; ctc_greedy compares with sequences", "0 or -1"),
    (CTC, SEQUENCES[..., None], BindingMismatch, r"the shape \[10, 7, 1\]", "numbers of its classes"),
    (CTC, WORDS, BindingMismatch, r"\[10\] of <U6", "numbers of its classes"),
    (CTC, SEQUENCES * 1.5, LabelsOutOfRange, "of type float64; whole numbers", "Encode the classes as"),
    (CTC, SEQUENCES * 9, LabelsOutOfRange, "label 9 is outside the model's 5 classes.*10 of 10 rows", "which output"),
    (CTC | {"blank": 5}, SEQUENCES, BindingMismatch, "no class 5, which the decoder names", "count from 0"),
    (YES_NO, SEQUENCES, BindingMismatch, r"output has rows of \[7, 5\], what it is .* rows of \[7\]", "which output"),
    (YES_NO, SEQUENCES[:, :5, None] * SEQUENCES[:, None, :], BindingMismatch, r"rows of \[5, 7\]", "do not count"),
    (YES_NO, WORDS, LabelsOutOfRange, "of type <U6; threshold needs 0 or 1", "yes as 1"),
    (YES_NO, HALF, LabelsOutOfRange, "holds what is no number", "yes as 1"),
    (None, SEQUENCES, BindingMismatch, "shape|parts of samples", "ctc_greedy.*threshold"),
]  # fmt: skip


@pytest.mark.parametrize(("decoder", "labels", "error", "says", "hint"), WRONG)
def test_what_does_not_fit_is_named(
    bench: Bench, decoder: dict | None, labels: np.ndarray, error: type[AccelError], says: str, hint: str
) -> None:
    arrays = swapped({}, x=X, y=labels)
    for work in (
        lambda: bench.evaluate([models.framewise()], arrays, decoder),
        lambda: bench.compress(models.framewise(), arrays, decoder, {"technique": "optimize_graph"}, contract=CONTRACT),
    ):
        with pytest.raises(error, match=says) as caught:
            work()
        assert re.search(hint, caught.value.hint), caught.value.hint


def test_a_decoder_on_classes_and_metrics_that_do_not_apply(bench: Bench) -> None:
    rows = X[:, 0]
    classes = swapped({}, x=np.concatenate([rows, rows], 1), y=SEQUENCES)
    for work in (
        bench.evaluate,
        lambda protos, *rest: bench.compress(protos[0], *rest, {"technique": "optimize_graph"}),
    ):
        with pytest.raises(BindingMismatch, match=r"\[10, 4\]; ctc_greedy reads scores"):
            work([models.constant_mlp()], classes, CTC)
    sequences = swapped({}, x=X, y=SEQUENCES)
    with pytest.raises(BindingMismatch, match="macro_f1 does not apply"):
        bench.evaluate([models.framewise()], sequences, CTC, metrics=("accuracy", "macro_f1"))
    for metric in ("f1", "rmse", "top5_accuracy"):
        contract = Contract.model_validate({"metric": metric})
        with pytest.raises(BindingMismatch, match=f"^{metric} does not apply"):
            bench.compress(models.framewise(), sequences, CTC, {"technique": "optimize_graph"}, contract=contract)
    with pytest.raises(BindingMismatch, match="accuracy needs labels"):
        bench.compress(models.framewise(), {"x_test": X}, CTC, {"technique": "optimize_graph"}, contract=CONTRACT)
    labels = {"x_test": classes["x_test"], "y_test": np.zeros(10, np.int64)}
    with pytest.raises(BindingMismatch, match="f1 does not apply") as caught:
        bench.evaluate([models.constant_mlp()], labels, None, metrics=("f1",))
    assert "macro_f1" in caught.value.hint


def test_a_candidate_of_another_shape_is_reported_and_the_rest_go_on(bench: Bench) -> None:
    proto, wider = models.framewise("Sigmoid"), models.framewise("Sigmoid", classes=6)
    labelled = notes(proto)
    for arrays in (labelled, {"x_test": labelled["x_test"]}):
        _, failed, twin = bench.evaluate([proto, wider, proto], arrays, YES_NO)
        assert failed.samples == 0
        assert "[7, 6]" in (failed.error or "")
        assert twin.error is None


def test_steps_before_samples_are_not_taken_for_samples(bench: Bench) -> None:
    """As many exporters write CTC outputs: [steps, samples, classes]."""
    proto = models.framewise()
    proto.graph.node[-1].output[0] = "by_sample"
    proto.graph.node.append(onnx.helper.make_node("Transpose", ["by_sample"], ["y"], "turn", perm=[1, 0, 2]))
    arrays = {"x_test": X[:5], "y_test": SEQUENCES[:5]}
    with pytest.raises(RuntimeFailed, match=r"one row for each sample: it has the shape \[7, 5, 5\] for a batch of 5"):
        bench.evaluate([proto], arrays, CTC)
    with pytest.raises(RuntimeFailed, match="one row for each sample"):
        bench.compress(proto, arrays, CTC, {"technique": "optimize_graph"})
