"""What processors without VNNI make of a result, in the report of its step."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from accel import run as engine
from accel.evaluation.emulation import elsewhere
from accel.report import CompressReport, Emulation, Estimate, SandboxSummary, StepReport
from accel.request import CompressRequest, DatasetFile, ModelFile
from accel.techniques import adapter
from tests import models

PRODUCTS, CLASSES = 32, 10
NO_SANDBOX = SandboxSummary(active=(), missing={})


def made(tmp_path: Path, *, portable: bool) -> StepReport:
    """Quantize a product whose sums of two saturate, since all inputs are near the highest."""
    chance = np.random.default_rng(3)
    weight = chance.uniform(0.3, 0.5, (PRODUCTS, CLASSES)).astype(np.float32)
    proto = models.linear(weight)
    path = models.save(proto, tmp_path / "model.onnx")
    (name,) = (entry.name for entry in proto.graph.input)
    columns = {}
    for split, rows in (("train", 60), ("test", 600)):
        x = chance.uniform(0.6, 1, (rows, PRODUCTS)).astype(np.float32)
        (scores,) = models.run(proto, {name: x}).values()
        columns |= {f"{name}_{split}": x, f"y_{split}": scores.argmax(1)}
    np.savez(tmp_path / "data.npz", **columns)
    workspace = tmp_path / "workspace"
    workspace.mkdir()
    request = CompressRequest(
        workspace=workspace,
        model=ModelFile(model_id="parent", path=path),
        dataset=DatasetFile(path=tmp_path / "data.npz"),
        steps=(adapter.validate_python({"technique": "quantize_static", "portable": portable}),),
        result_ids=("result",),
        measure_speed=False,
    )
    report = engine.run(request, NO_SANDBOX, lambda *_: None).report
    assert isinstance(report, CompressReport)
    assert [file.name for file in workspace.iterdir()] == ["result.onnx"]
    return report.steps[0]


def test_saturation_is_emulated_on_rows_that_results_are_judged_on(tmp_path: Path) -> None:
    step = made(tmp_path, portable=False)
    found = step.emulation
    assert found is not None
    assert found.samples == 512
    assert found.metric == "accuracy"
    assert found.result_metric is not None
    assert found.result_metric.value > 0.8
    assert found.emulated_metric is not None
    assert found.drop is not None
    assert found.drop.value == pytest.approx(found.result_metric.value - found.emulated_metric.value)
    assert found.drop.value > 0.2
    assert found.agreement is not None
    assert found.agreement < 0.8
    (said,) = (note for note in step.notes if "VNNI" in note)
    assert f"accuracy is {found.emulated_metric.value:.4g} there" in said


def test_what_is_safe_for_every_input_is_not_emulated(tmp_path: Path) -> None:
    step = made(tmp_path, portable=True)
    assert step.quantization is not None
    assert step.quantization.portability is not None
    assert step.quantization.portability.changed
    assert step.emulation is None
    assert not [note for note in step.notes if "VNNI" in note]


def test_nothing_is_remarked_where_it_is_the_same() -> None:
    same = Estimate(value=0.9, low=0.8, high=1.0)
    alike = Emulation(samples=100, agreement=0.995, metric="accuracy", result_metric=same, emulated_metric=same)
    assert elsewhere(alike) == []
    (said,) = elsewhere(alike.model_copy(update={"drop": Estimate(value=0.02, low=0.01, high=0.03)}))
    assert "99.5% of the answers on 100 samples" in said
    assert elsewhere(Emulation(samples=4)) == []
