"""The engine end to end, in this process: recipes, evaluations, benchmarks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from accel import run as engine
from accel.errors import AccelError, DataRequired, LabelsOutOfRange
from accel.evaluation.contract import Contract
from accel.events import Done
from accel.report import CompressReport, EvaluateReport, SandboxSummary
from accel.request import CompressRequest, DatasetFile, EngineRequest, EvaluateRequest, ModelFile
from accel.techniques import adapter
from tests import models

NO_SANDBOX = SandboxSummary(active=(), missing={})


def run(request: EngineRequest) -> Done:
    told: list[str] = []
    done = engine.run(request, NO_SANDBOX, lambda phase, *_: told.append(phase))
    assert told, "it works in silence"
    return done


@pytest.fixture
def model(tmp_path: Path) -> ModelFile:
    return ModelFile(model_id="original", path=models.save(models.convnet(), tmp_path / "model.onnx"))


@pytest.fixture
def data(tmp_path: Path) -> DatasetFile:
    return DatasetFile(path=models.labelled(tmp_path / "data.npz", models.convnet(), rows=200, wrong=20))


def workspace(tmp_path: Path) -> Path:
    folder = tmp_path / "work"
    folder.mkdir()
    return folder


def steps(*tags: str):
    return tuple(adapter.validate_python({"technique": tag}) for tag in tags)


def test_a_recipe_proves_each_step(tmp_path: Path, model: ModelFile, data: DatasetFile) -> None:
    done = run(
        CompressRequest(
            workspace=workspace(tmp_path),
            model=model,
            dataset=data,
            steps=steps("optimize_graph", "quantize_static"),
            result_ids=("one", "two"),
            contract=Contract(max_drop=0.2),
        )
    )
    report = done.report
    assert isinstance(report, CompressReport)
    assert [(s.model_id, s.parent_id) for s in report.steps] == [("one", "original"), ("two", "one")]
    assert [(f.model_id, f.parent_id, f.summary.quantized) for f in done.files] == [
        ("one", "original", False),
        ("two", "one", True),
    ]
    assert report.steps[0].comparison.max_abs_difference < 1e-4
    final = report.comparison
    assert (final.inputs, final.samples) == ("dataset", 200)
    assert final.size_ratio < 0.6
    assert final.parent_metric is not None
    assert final.parent_metric.value == pytest.approx(0.9)
    assert report.verdict is not None
    assert report.verdict.outcome == "met"
    assert all(file.path.exists() for file in done.files)
    assert sorted(path.name for path in (tmp_path / "work").glob("*.onnx")) == ["one.onnx", "two.onnx"]


def test_without_data_random_inputs_are_compared(tmp_path: Path, model: ModelFile) -> None:
    request = CompressRequest(
        workspace=workspace(tmp_path), model=model, steps=steps("quantize_dynamic"), result_ids=("one",)
    )
    report = run(request).report
    assert isinstance(report, CompressReport)
    assert report.comparison.inputs == "random"
    assert report.comparison.snr_db is not None


def test_what_needs_data_is_refused_without(tmp_path: Path, model: ModelFile) -> None:
    folder = workspace(tmp_path)
    for recipe, contract in ((steps("quantize_static"), None), (steps("optimize_graph"), Contract())):
        request = CompressRequest(workspace=folder, model=model, steps=recipe, result_ids=("one",), contract=contract)
        with pytest.raises(DataRequired):
            run(request)


def test_evaluation_is_paired_and_survives_a_broken_candidate(
    tmp_path: Path, model: ModelFile, data: DatasetFile
) -> None:
    other = ModelFile(model_id="other", path=models.save(models.convnet(seed=9), tmp_path / "other.onnx"))
    broken = ModelFile(model_id="broken", path=models.save(models.regression(), tmp_path / "broken.onnx"))
    report = run(
        EvaluateRequest(
            workspace=workspace(tmp_path),
            models=(other, model, broken),
            baseline_id="original",
            dataset=data,
            contract=Contract(max_drop=0.05),
        )
    ).report
    assert isinstance(report, EvaluateReport)
    worse, baseline, failed = report.models
    assert baseline.metrics["accuracy"].value == pytest.approx(0.9)
    assert baseline.against_baseline is None
    assert worse.against_baseline is not None
    assert worse.against_baseline.verdict is not None
    assert worse.against_baseline.verdict.outcome == "not_met"
    assert (worse.against_baseline.p_value or 0) < 1e-6
    assert failed.error
    assert failed.samples == 0


def test_without_labels_models_are_compared_with_the_baseline(tmp_path: Path, model: ModelFile) -> None:
    ((_, x),) = models.inputs_of(models.convnet(), 50).items()
    np.savez(tmp_path / "x.npz", x_test=x)
    report = run(
        EvaluateRequest(
            workspace=workspace(tmp_path),
            models=(model,),
            baseline_id="original",
            dataset=DatasetFile(path=tmp_path / "x.npz"),
        )
    ).report
    assert isinstance(report, EvaluateReport)
    assert report.models[0].metrics["agreement"].value == 1
    assert any("no labels" in note for note in report.notes)


def test_regression_has_its_own_metrics(tmp_path: Path) -> None:
    proto = models.regression()
    model = ModelFile(model_id="m", path=models.save(proto, tmp_path / "m.onnx"))
    feed = models.inputs_of(proto, 40)
    ((_, x),) = feed.items()
    (y,) = models.run(proto, feed).values()
    np.savez(tmp_path / "d.npz", x_test=x, y_test=y.reshape(40, -1) + 1)
    report = run(
        EvaluateRequest(
            workspace=workspace(tmp_path),
            models=(model,),
            baseline_id="m",
            dataset=DatasetFile(path=tmp_path / "d.npz"),
        )
    ).report
    assert isinstance(report, EvaluateReport)
    assert report.models[0].metrics["mae"].value == pytest.approx(1, abs=1e-4)
    assert set(report.models[0].metrics) == {"mae", "rmse", "r2", "spearman"}


def test_labels_of_another_model_are_refused(tmp_path: Path, model: ModelFile) -> None:
    ((_, x),) = models.inputs_of(models.convnet(), 10).items()
    np.savez(tmp_path / "d.npz", x_test=x, y_test=np.arange(10))
    with pytest.raises(LabelsOutOfRange, match="outside the model's 4 classes"):
        run(
            EvaluateRequest(
                workspace=workspace(tmp_path),
                models=(model,),
                baseline_id="original",
                dataset=DatasetFile(path=tmp_path / "d.npz"),
            )
        )


def test_every_error_has_a_code_of_its_own_and_a_meaning() -> None:
    kinds = [kind for kind in AccelError.__subclasses__() if "code" in vars(kind)]
    assert len({kind.code for kind in kinds}) == len(kinds) >= 15
    assert all(kind.__doc__ for kind in kinds)
