"""Vectors and pairs, groups and scores through the whole engine: evaluations, and recipes with contracts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from scipy.stats import spearmanr

from accel import run as engine
from accel.data.binding import Binding
from accel.errors import BindingMismatch
from accel.evaluation.contract import Contract
from accel.report import CompressReport, EvaluatedModel, EvaluateReport, SandboxSummary
from accel.request import CompressRequest, DatasetFile, EvaluateRequest, ModelFile
from accel.techniques import adapter
from tests import models

ROWS = 120
CHANCE = np.random.default_rng(0)
WEIGHT = CHANCE.standard_normal((6, 8)).astype(np.float32)
ONE, OTHER = CHANCE.standard_normal((2, ROWS, 6)).astype(np.float32)
TWO = ONE + CHANCE.random((ROWS, 1)).astype(np.float32) * OTHER
PAIRS = {"inputs": {"x": {"column": "a"}}, "decoder": {"decoder": "embedding", "second": {"x": {"column": "b"}}}}
VECTORS = {"decoder": {"decoder": "embedding"}}


class Bench:
    """A folder for models, data and results."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._runs = folder, 0

    def evaluate(
        self, protos: list[onnx.ModelProto], arrays: dict[str, np.ndarray], binding: dict, **more: Any
    ) -> tuple[EvaluatedModel, ...]:
        listed = tuple(self._model(proto, f"m{number}") for number, proto in enumerate(protos))
        request = EvaluateRequest(
            workspace=self._workspace(), models=listed, baseline_id="m0", dataset=self._data(arrays),
            binding=Binding.model_validate(binding), batch_size=16, **more,
        )  # fmt: skip
        report = engine.run(request, SandboxSummary(active=(), missing={}), lambda *_: None).report
        assert isinstance(report, EvaluateReport)
        return report.models

    def compress(
        self, proto: onnx.ModelProto, arrays: dict[str, np.ndarray], binding: dict, step: dict, **more: Any
    ) -> CompressReport:
        request = CompressRequest(
            workspace=self._workspace(), model=self._model(proto, "m"), dataset=self._data(arrays),
            steps=(adapter.validate_python(step),), result_ids=("r",), measure_speed=False,
            binding=Binding.model_validate(binding), **more,
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

    def _data(self, arrays: dict[str, np.ndarray]) -> DatasetFile:
        np.savez(self._folder / "data.npz", **arrays)
        return DatasetFile(path=self._folder / "data.npz")


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def cosines(one: np.ndarray, two: np.ndarray) -> np.ndarray:
    return (one * two).sum(1) / np.linalg.norm(one, axis=1) / np.linalg.norm(two, axis=1)


def pairs() -> dict[str, np.ndarray]:
    return {"a_test": ONE, "b_test": TWO, "y_test": cosines(ONE, TWO) + 0.1 * CHANCE.standard_normal(ROWS)}


def test_pairs_are_ranked_by_their_cosine(bench: Bench) -> None:
    arrays = pairs()
    first, other = models.linear(WEIGHT), models.linear(WEIGHT[:, :2].copy())
    baseline, narrow = bench.evaluate([first, other], arrays, PAIRS, contract=Contract(metric="spearman"))
    for found, weight in ((baseline, WEIGHT), (narrow, WEIGHT[:, :2])):
        expected = spearmanr(cosines(ONE @ weight, TWO @ weight), arrays["y_test"]).statistic
        assert found.error is None
        assert found.metrics["spearman"].value == pytest.approx(expected, abs=1e-3)
    assert narrow.against_baseline is not None
    assert narrow.against_baseline.verdict is not None
    assert narrow.against_baseline.verdict.outcome == "not_met"


def test_vectors_are_held_against_the_target_or_the_baseline(bench: Bench) -> None:
    other = WEIGHT + 0.1 * CHANCE.standard_normal(WEIGHT.shape).astype(np.float32)
    protos = [models.linear(WEIGHT), models.linear(other)]
    near = cosines(ONE @ WEIGHT, ONE @ other).mean()
    for arrays in ({"x_test": ONE, "y_test": ONE @ WEIGHT}, {"x_test": ONE}):
        baseline, twin = bench.evaluate(protos, arrays, VECTORS)
        assert baseline.metrics["cosine"].value == pytest.approx(1)
        assert twin.metrics["cosine"].value == pytest.approx(near, abs=1e-5)
        assert twin.against_baseline is not None
        assert twin.against_baseline.metric == "cosine"
    with pytest.raises(BindingMismatch, match=r"vectors of 8 numbers.*vectors of 6"):
        bench.evaluate(protos, {"x_test": ONE, "y_test": ONE}, VECTORS)
    with pytest.raises(BindingMismatch, match="embedding compares with one vector"):
        bench.evaluate(protos, {"x_test": ONE, "y_test": ONE[:, 0]}, VECTORS)
    with pytest.raises(BindingMismatch, match=r"^accuracy does not apply"):
        bench.evaluate(protos, {"x_test": ONE}, VECTORS, contract=Contract())


@pytest.mark.parametrize("metric", ["spearman", "cosine"])
def test_recipes_are_judged_on_vectors(bench: Bench, metric: Any) -> None:
    arrays = pairs() if metric == "spearman" else {"x_test": ONE}
    binding = PAIRS if metric == "spearman" else VECTORS
    contract = Contract(metric=metric, max_drop=0.1)
    step = {"technique": "quantize_dynamic"}
    report = bench.compress(models.linear(WEIGHT), arrays, binding, step, contract=contract)
    assert report.verdict is not None
    assert report.verdict.outcome == "met", report.verdict.explanation
    assert report.comparison.metric == metric
    assert report.comparison.agreement is None
    assert report.comparison.drop is not None


@pytest.mark.parametrize("metric", ["auc", "log_loss", "ece"])
def test_recipes_are_judged_on_scores(bench: Bench, metric: Any) -> None:
    labels = (ONE @ WEIGHT[:, :3] + CHANCE.standard_normal((ROWS, 3))).argmax(1)
    arrays = {"x_test": ONE, "y_test": labels}
    step = {"technique": "quantize_static", "samples": 20}
    contract = Contract(metric=metric, max_drop=0.5)
    report = bench.compress(models.linear(WEIGHT[:, :3].copy()), arrays, {}, step, contract=contract)
    assert report.verdict is not None
    assert report.verdict.outcome == "met", report.verdict.explanation
    assert report.comparison.parent_metric is not None


def test_groups_widen_what_is_judged(bench: Bench) -> None:
    """Twelve speakers with ten clips each; every clip of a speaker is the same."""
    labels, x = np.repeat((ONE @ WEIGHT[:, :3]).argmax(1)[:12], 10), np.repeat(ONE[:12], 10, 0)
    labels[:10] = (labels[:10] + 1) % 3
    arrays = {"x_test": x, "who_test": np.repeat([f"speaker {n}" for n in range(12)], 10), "y_test": labels}
    protos = [models.linear(weight) for weight in (WEIGHT[:, :3].copy(), WEIGHT[:, 3:6].copy())]
    contract = Contract(max_drop=0.2)
    baseline, other = bench.evaluate(protos, arrays, {"group": "who"}, contract=contract)
    alone, _ = bench.evaluate(protos, arrays, {"inputs": {"x": {"column": "x"}}}, contract=contract)
    assert baseline.metrics["accuracy"].value == pytest.approx(alone.metrics["accuracy"].value)
    assert (baseline.metrics["accuracy"].low or 1) < (alone.metrics["accuracy"].low or 0) - 0.05
    assert other.against_baseline is not None
    assert other.against_baseline.groups == 12
    assert other.against_baseline.p_value is None
    step = {"technique": "quantize_dynamic"}
    verdict = bench.compress(protos[0], arrays, {"group": "who"}, step, contract=Contract(max_drop=0.1)).verdict
    assert verdict is not None
    assert verdict.outcome == "inconclusive", "of twelve speakers one in ten may be lost"
    assert "12 groups" in verdict.explanation
