"""Evaluations through the whole engine: what is compared, what is kept, and what is only reported."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from accel import run as engine
from accel.child import call
from accel.errors import BindingMismatch
from accel.evaluation.contract import Contract, Metric
from accel.report import EvaluateReport, SandboxSummary
from accel.request import EvaluateRequest
from tests import models
from tests.evaluations import ROWS, WRONG, Bench, done, noisy, report_of

TWO = Contract(metric="accuracy", max_drop=0.02)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def test_everything_that_is_compared(bench: Bench) -> None:
    other = noisy(bench.proto, 0.5)
    arrays = bench.arrays | {"class_names": np.array(["ant", "bee", "cat", "dog"])}
    answer = bench.evaluate(bench.proto, other, arrays=arrays, contract=TWO)
    first, second = report_of(answer).models
    before, after = (models.run(proto, {"x": bench.x})["scores"] for proto in (bench.proto, other))
    right_before, right_after = (scores.argmax(1) == bench.y for scores in (before, after))

    assert first.metrics["accuracy"].value == pytest.approx(1 - WRONG / ROWS)
    assert {"accuracy", "macro_f1", "log_loss", "ece", "auc"} <= set(first.metrics)
    against = second.against_baseline
    assert against is not None
    assert set(against.drops) == set(first.metrics)
    assert against.drops["accuracy"] == against.drop
    assert against.drop is not None
    assert against.drop.value == pytest.approx(right_before.mean() - right_after.mean())
    assert against.drops["log_loss"].value == pytest.approx(
        second.metrics["log_loss"].value - first.metrics["log_loss"].value
    )
    assert (against.lost, against.won) == (
        int((right_before & ~right_after).sum()),
        int((right_after & ~right_before).sum()),
    )
    assert against.flips == int((before.argmax(1) != after.argmax(1)).sum())
    assert against.p_value is not None
    assert against.verdict is not None
    assert against.verdict.outcome == "not_met"

    assert sum(change.lost - change.won for change in against.classes) == against.lost - against.won
    losses = [change.baseline_recall - change.model_recall for change in against.classes]
    assert losses == sorted(losses, reverse=True)
    worst = against.classes[0]
    assert worst.name == ["ant", "bee", "cat", "dog"][worst.label]
    assert worst.samples == int((bench.y == worst.label).sum())
    assert worst.model_recall == pytest.approx(right_after[bench.y == worst.label].mean())

    far = against.divergence
    assert far is not None
    assert far.agreement is not None
    assert far.agreement.value == pytest.approx((before.argmax(1) == after.argmax(1)).mean())
    (noise,) = far.outputs
    assert (noise.output, noise.samples) == ("scores", ROWS)
    snr_db = 10 * np.log10((before.astype(float) ** 2).sum() / ((after - before).astype(float) ** 2).sum())
    assert noise.snr_db == pytest.approx(snr_db, rel=1e-4)
    assert len(far.worst) == 50
    assert far.worst[0].label == int(bench.y[far.worst[0].row])
    assert EvaluateReport.model_validate_json(answer.report.model_dump_json()) == answer.report


def test_predictions_are_kept_and_can_be_opened(bench: Bench) -> None:
    answer = bench.evaluate(bench.proto, noisy(bench.proto, 0.1), batch_size=7)
    assert [attached.name for attached in answer.attachments] == ["predictions-m0.npz", "predictions-m1.npz"]
    for attached, model, proto in zip(
        answer.attachments, report_of(answer).models, (bench.proto, noisy(bench.proto, 0.1)), strict=True
    ):
        assert model.predictions == attached.name
        kept = np.load(attached.path, allow_pickle=False)
        scores = models.run(proto, {"x": bench.x})["scores"]
        np.testing.assert_array_equal(kept["labels"], bench.y)
        np.testing.assert_array_equal(kept["prediction"], scores.argmax(1))
        np.testing.assert_allclose(kept["scores"], scores, rtol=1e-5)
        np.testing.assert_allclose(kept["output_0"], scores, rtol=1e-5)
        assert kept["not_finite"].tolist() == []
        header = json.loads(str(kept["header"]))
        assert (header["kind"], header["output"], header["outputs"]) == ("classes", "scores", ["scores"])
        assert header["circumstances"]["samples"] == ROWS
        assert header["circumstances"]["libraries"]["onnxruntime"]
    leftovers = {path.name for path in (bench.folder / "work1").iterdir()}
    assert leftovers == {"predictions-m0.npz", "predictions-m1.npz"}


def without_reuse(report: EvaluateReport) -> dict[str, Any]:
    return report.model_dump(exclude={"models": {"__all__": {"reused"}}, "environment": True})


def test_kept_predictions_stand_for_a_run(bench: Bench) -> None:
    pair = (bench.proto, noisy(bench.proto, 0.3))
    fresh = bench.evaluate(*pair, contract=TWO)
    kept = {number: attached.path for number, attached in enumerate(fresh.attachments)}
    told: list[str] = []
    request = bench.request(*pair, contract=TWO, kept=kept)
    again = engine.run(request, SandboxSummary(active=(), missing={}), lambda *said: told.append(said[3]))
    assert told == ["model 1 of 2, kept predictions", "model 2 of 2, kept predictions"]
    assert [model.reused for model in report_of(again).models] == [True, True]
    assert [model.reused for model in report_of(fresh).models] == [False, False]
    assert without_reuse(report_of(again)) == without_reuse(report_of(fresh))
    for old, new in zip(fresh.attachments, again.attachments, strict=True):
        assert new.path.parent == request.workspace
        assert new.path.read_bytes() == old.path.read_bytes()
    repeated = bench.evaluate(*pair, contract=TWO)
    assert [a.path.read_bytes() for a in repeated.attachments] == [a.path.read_bytes() for a in fresh.attachments]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"batch_size": 16}, "batch size 32, now 16"),
        ({"split": "validation"}, "split test, now validation"),
        ({"labels": True}, "The labels were others"),
        ({"model": True}, "another model sha256"),
        ({"runtime": "the runtime's version"}, "libraries onnxruntime 0.1, now onnxruntime"),
        ({"cpu": True}, "cpu Abacus, now"),
        ({"damaged": True}, "damaged"),
    ],
)
def test_what_does_not_fit_is_run_again(bench: Bench, change: dict[str, Any], says: str) -> None:
    bench.arrays |= {"x_validation": bench.x, "y_validation": bench.y}
    path = bench.evaluate(bench.proto).attachments[0].path
    proto, more = bench.proto, {}
    if "labels" in change:
        bench.arrays["y_test"] = (bench.y + 1) % models.CLASSES
    elif "model" in change:
        proto = noisy(proto, 0.1)
    elif "runtime" in change or "cpu" in change:
        arrays = dict(np.load(path))
        header = json.loads(str(arrays["header"]))
        where = header["circumstances"]
        where |= {"cpu": "Abacus"} if "cpu" in change else {"libraries": {"onnxruntime": "0.1"}}
        np.savez(path, **(arrays | {"header": np.array(json.dumps(header))}))
    elif "damaged" in change:
        whole = bytearray(path.read_bytes())
        whole[whole.index(bench.y.astype("<i8").tobytes()) + 5] ^= 1
        path.write_bytes(whole)
    else:
        more = change
    (again,) = report_of(bench.evaluate(proto, kept={0: path}, **more)).models
    (fresh,) = report_of(bench.evaluate(proto, **more)).models
    assert not again.reused
    assert any(says in warning and "the model was run" in warning for warning in again.warnings), again.warnings
    assert again.metrics == fresh.metrics


def test_predictions_go_through_the_confined_process(bench: Bench) -> None:
    (bench.folder / "elsewhere").mkdir()
    path = bench.evaluate(bench.proto).attachments[0].path.rename(bench.folder / "elsewhere" / "kept.npz")
    answer = call(bench.request(bench.proto, kept={0: path}), timeout_s=60)
    assert isinstance(answer.report, EvaluateReport)
    assert answer.report.models[0].reused
    assert answer.report.models[0].warnings == ()
    assert answer.attachments[0].path.read_bytes() == path.read_bytes()


def test_a_split_that_was_tuned_on_settles_nothing(bench: Bench) -> None:
    bench.arrays |= {"x_validation": bench.x, "y_validation": bench.y}
    tuned = {1: ("validation",)}
    same = (bench.proto, bench.proto)
    loose = Contract(metric="accuracy", max_drop=0.2)
    outcomes = {}
    for split in ("test", "validation"):
        second = report_of(bench.evaluate(*same, contract=loose, tuned_on=tuned, split=split)).models[1]
        assert second.against_baseline is not None
        verdict = second.against_baseline.verdict
        assert verdict is not None
        outcomes[split] = verdict.outcome
        assert any("too good" in warning for warning in second.warnings) == (split == "validation")
    assert outcomes == {"test": "met", "validation": "inconclusive"}
    assert "split 'validation'" in verdict.explanation
    assert "such as 'test'" in verdict.explanation
    everywhere = report_of(bench.evaluate(*same, contract=loose, tuned_on={1: ("test", "validation")})).models[1]
    assert everywhere.against_baseline is not None
    assert everywhere.against_baseline.verdict is not None
    assert "does not have yet" in everywhere.against_baseline.verdict.explanation


def test_groups_are_drawn_together(bench: Bench) -> None:
    bench.arrays |= {"speaker_test": np.arange(ROWS) // 8}
    pair = (bench.proto, noisy(bench.proto, 0.3))
    binding = {"inputs": {"x": {"column": "x"}}}
    alone = report_of(bench.evaluate(*pair, binding=binding)).models[1].against_baseline
    grouped = report_of(bench.evaluate(*pair, binding=binding | {"group": "speaker"})).models[1].against_baseline
    assert alone is not None
    assert grouped is not None
    assert (alone.groups, grouped.groups) == (None, 15)
    assert alone.p_value is not None
    assert grouped.p_value is None
    assert alone.drop is not None
    assert grouped.drop is not None
    assert alone.drop.value == pytest.approx(grouped.drop.value)
    assert alone.drop.high != grouped.drop.high
    assert (alone.lost, alone.won) == (grouped.lost, grouped.won)


def test_lost_and_won_are_counted_whatever_the_metric(bench: Bench) -> None:
    pair = (bench.proto, noisy(bench.proto, 0.3))
    plain, other = (
        report_of(bench.evaluate(*pair, contract=Contract.model_validate({"metric": metric})))
        .models[1]
        .against_baseline
        for metric in ("accuracy", "log_loss")
    )
    assert plain is not None
    assert other is not None
    assert (plain.lost, plain.won) == (other.lost, other.won)
    assert plain.p_value is not None
    assert (other.metric, other.p_value) == ("log_loss", plain.p_value)


def test_classes_without_a_sample_are_named(bench: Bench) -> None:
    bench.arrays["y_test"] = np.where(bench.y > 1, 0, bench.y)
    bench.arrays["class_names"] = np.array(["ant", "bee", "cat"])
    notes = report_of(bench.evaluate(bench.proto)).notes
    assert any("no sample of the classes 2 (cat), 3:" in note for note in notes)


def test_a_contract_without_labels_needs_a_metric_without_labels(bench: Bench) -> None:
    bench.arrays = {"x_test": bench.x}
    pair = (bench.proto, bench.proto)
    with pytest.raises(BindingMismatch, match="contract on accuracy needs labels") as caught:
        bench.evaluate(*pair, contract=Contract())
    assert "agreement" in caught.value.hint
    second = report_of(bench.evaluate(*pair, contract=Contract(metric="agreement", max_drop=0.1))).models[1]
    assert second.against_baseline is not None
    assert second.against_baseline.verdict is not None
    assert second.against_baseline.verdict.outcome == "met"
    assert (second.against_baseline.lost, second.against_baseline.p_value) == (None, None)


def test_outputs_that_are_no_rows_or_are_large_are_left_out(bench: Bench) -> None:
    """A second output with the batch's mean has no rows; text has no numbers."""
    proto = models.constant_mlp()
    proto.graph.node.append(onnx.helper.make_node("ReduceMean", ["scores"], ["mean"], axes=[0], keepdims=1))
    proto.graph.output.append(onnx.helper.make_tensor_value_info("mean", onnx.TensorProto.FLOAT, [1, models.CLASSES]))
    proto.graph.node.append(onnx.helper.make_node("ArgMax", ["scores"], ["best"], axis=1, keepdims=0))
    proto.graph.output.append(onnx.helper.make_tensor_value_info("best", onnx.TensorProto.INT64, ["n"]))
    answer = bench.evaluate(proto, proto)
    far = report_of(answer).models[1].against_baseline
    assert far is not None
    assert far.divergence is not None
    assert [(noise.output, noise.samples, noise.snr_db) for noise in far.divergence.outputs] == [
        ("scores", ROWS, None),
        ("best", ROWS, None),
    ]


def kinds() -> dict[str, tuple[onnx.ModelProto, onnx.ModelProto, dict[str, np.ndarray], dict[str, Any]]]:
    """For each kind of prediction: two models, their data, and what else is asked."""
    chance = np.random.default_rng(5)
    frames, rows = (chance.standard_normal(shape).astype(np.float32) for shape in ((40, 7, 8), (40, 16)))
    lines = {"x_test": frames, "y_test": np.tile(np.array([1, 2, 3, 0]), (40, 1))}
    yes = {"x_test": frames, "y_test": chance.random((40, 7, 5)) < 0.3}
    one, two = (chance.standard_normal((16, 6)).astype(np.float32) for _ in range(2))
    pairs = {"x_test": rows, "other_test": rows[::-1].copy(), "y_test": chance.random(40)}
    second = {"decoder": "embedding", "second": {"x": {"column": "other"}}}
    inputs = {"inputs": {"x": {"column": "x"}}}
    missing = {"corruptions": ({"corruption": "missing", "severity": 5},)}
    return {
        "sequences": (
            models.framewise(),
            models.framewise(seed=7),
            lines,
            {"binding": {"decoder": {"decoder": "ctc_greedy"}}},
        ),
        "decisions": (
            models.framewise("Sigmoid"),
            models.framewise("Sigmoid", seed=7),
            yes,
            {"binding": {"decoder": {"decoder": "threshold"}}},
        ),
        "values": (
            models.regression(),
            models.linear(one[:, :1], name="y"),
            {"x_test": rows, "y_test": chance.random((40, 1))},
            missing,
        ),
        "pairs": (models.linear(one), models.linear(two), pairs, missing | {"binding": inputs | {"decoder": second}}),
        "vectors": (
            models.linear(one),
            models.linear(two),
            {"x_test": rows},
            {"binding": {"decoder": {"decoder": "embedding"}}},
        ),
    }


MEASURES = {
    "sequences": ("edit_distance", "accuracy"),
    "decisions": ("decisions", "f1"),
    "values": ("abs_difference", "rmse"),
    "pairs": ("abs_difference", "spearman"),
    "vectors": ("cosine_distance", "cosine"),
}


@pytest.mark.parametrize("kind", list(MEASURES))
def test_every_kind_is_compared_kept_and_reused(bench: Bench, kind: str) -> None:
    one, two, arrays, more = kinds()[kind]
    fresh = bench.evaluate(one, two, arrays=arrays, **more)
    kept = {number: attached.path for number, attached in enumerate(fresh.attachments)}
    again = bench.evaluate(one, two, arrays=arrays, kept=kept, **more)
    assert [model.reused for model in report_of(again).models] == [True, True]
    assert without_reuse(report_of(again)) == without_reuse(report_of(fresh))
    other = report_of(fresh).models[1]
    assert (other.error, other.warnings) == (None, ())
    against = other.against_baseline
    assert against is not None
    assert against.divergence is not None
    assert (against.divergence.ordered_by, against.metric) == MEASURES[kind]
    assert against.divergence.worst
    assert len(other.robustness) == len(more.get("corruptions", ()))
    assert EvaluateReport.model_validate_json(fresh.report.model_dump_json()) == fresh.report


def scores_of(weight: np.ndarray, tail: str | None = None) -> onnx.ModelProto:
    """Scores by one product; with a tail, an operator behind it makes the output, called ``tail``."""
    proto = models.linear(weight.astype(np.float32))
    if tail is not None:
        kind = onnx.TensorProto.INT64 if tail == "ArgMax" else onnx.TensorProto.FLOAT
        more = {"axis": 1, "keepdims": 0} if tail == "ArgMax" else {}
        shape = ["n"] if tail == "ArgMax" else ["n", weight.shape[1]]
        proto.graph.node.append(onnx.helper.make_node(tail, ["scores"], ["tail"], **more))
        del proto.graph.output[:]
        proto.graph.output.append(onnx.helper.make_tensor_value_info("tail", kind, shape))
    return proto


WEIGHT = np.random.default_rng(3).standard_normal((16, 7))


@pytest.mark.parametrize("metric", ["accuracy", "log_loss", "auc"])
def test_a_model_without_a_class_that_the_labels_name_is_reported_and_the_rest_go_on(
    bench: Bench, metric: Metric
) -> None:
    arrays = {"x_test": bench.x, "y_test": np.arange(ROWS) % 7}
    whole, short = scores_of(WEIGHT), scores_of(WEIGHT[:, :4])
    answer = bench.evaluate(whole, short, whole, arrays=arrays, contract=Contract(metric=metric))
    first, second, third = report_of(answer).models
    assert (first.error, third.error) == (None, None)
    assert second.error == "The label 4 is outside the model's 4 classes; 51 of 120 rows are so."
    assert third.against_baseline is not None


def test_a_metric_that_a_model_has_no_scores_for_is_left_out_and_breaks_its_contract(bench: Bench) -> None:
    arrays = {"x_test": bench.x, "y_test": np.arange(ROWS) % 7}
    pair = (scores_of(WEIGHT), scores_of(WEIGHT, "ArgMax"))
    asked = {"contract": Contract(metric="auc"), "corruptions": ({"corruption": "missing"},)}
    first, second = report_of(bench.evaluate(*pair, arrays=arrays, **asked)).models
    assert second.error is None
    assert (len(first.robustness), len(second.robustness)) == (1, 0)
    assert any(warning.startswith("With missing 3: auc does not apply") for warning in second.warnings)
    assert set(second.metrics) == {"accuracy", "macro_f1"}
    assert any(
        warning.startswith("auc is no number on these samples: the output gives no scores")
        for warning in second.warnings
    )
    against = second.against_baseline
    assert against is not None
    assert against.verdict is not None
    assert (against.verdict.outcome, against.flips, against.drop) == ("not_met", 0, None)
    assert set(against.drops) == {"accuracy", "macro_f1"}
    with pytest.raises(BindingMismatch, match="auc does not apply, since the output gives no scores"):
        bench.evaluate(*reversed(pair), arrays=arrays, metrics=("auc",))
    with pytest.raises(BindingMismatch, match="top10_accuracy does not apply, since the model has no more than 10"):
        bench.evaluate(*pair, arrays=arrays, metrics=("top10_accuracy",))


def test_outputs_that_are_compared_may_be_called_otherwise(bench: Bench) -> None:
    far = report_of(bench.evaluate(scores_of(WEIGHT), scores_of(WEIGHT, "Relu"))).models[1].against_baseline
    assert far is not None
    assert far.divergence is not None
    (noise,) = far.divergence.outputs
    assert (noise.output, noise.samples) == ("scores", ROWS)
    assert noise.max_abs_difference > 0


def test_what_is_no_number_is_the_worst_and_a_broken_baseline_is_said(bench: Bench) -> None:
    bench.x[7, 3] = bench.x[90, 0] = np.nan
    weight = WEIGHT[:, :4].copy()
    blind = weight.copy()
    blind[[0, 3]] = 0
    proto = scores_of(weight)
    # The blind model replaces what is no number, and says something everywhere.
    sound = scores_of(blind)
    sound.graph.node.insert(0, onnx.helper.make_node("IsNaN", ["x"], ["gone"]))
    sound.graph.node.insert(1, onnx.helper.make_node("Where", ["gone", "zero", "x"], ["clean"]))
    sound.graph.initializer.append(onnx.numpy_helper.from_array(np.float32(0), "zero"))
    sound.graph.node[2].input[0] = "clean"
    first, second = report_of(bench.evaluate(proto, sound, contract=Contract(metric="accuracy", max_drop=0.9))).models
    assert (first.not_finite, second.not_finite) == (2, 0)
    against = second.against_baseline
    assert against is not None
    assert against.divergence is not None
    assert [(sample.row, sample.difference) for sample in against.divergence.worst[:2]] == [(7, None), (90, None)]
    assert against.divergence.worst[2].difference is not None
    assert against.verdict is not None
    assert against.verdict.outcome == "met"
    assert "the baseline's output is not finite for 2 of 120 samples" in against.verdict.explanation


def test_names_of_models_become_files_of_their_own(bench: Bench) -> None:
    request = bench.request(bench.proto, noisy(bench.proto, 0.5))
    first, second = request.models
    renamed = (first.model_copy(update={"model_id": "2"}), second.model_copy(update={"model_id": "a/b"}))
    answer = done(request.model_copy(update={"models": renamed, "baseline_id": "2"}))
    assert [attached.name for attached in answer.attachments] == ["predictions-1.npz", "predictions-2.npz"]
    twice = request.model_dump() | {"models": [model.model_dump() for model in (first, first)], "baseline_id": "m0"}
    with pytest.raises(ValueError, match="model_id of its own"):
        EvaluateRequest.model_validate(twice)


def test_rows_that_belong_to_no_group_are_refused(bench: Bench) -> None:
    bench.arrays |= {"speaker_test": np.where(np.arange(ROWS) < 3, np.nan, np.arange(ROWS) // 8)}
    with pytest.raises(BindingMismatch, match="no number in 3 of 120 rows, the first of them 0"):
        bench.evaluate(bench.proto, binding={"inputs": {"x": {"column": "x"}}, "group": "speaker"})
