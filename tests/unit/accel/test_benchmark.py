"""Benchmarks whole: what is reported, what is attached, and what happens to a candidate that breaks."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest
from pydantic import ValidationError

from accel.benchmark.figures import compressed_bytes
from accel.benchmark.glance import glance
from accel.benchmark.reference import reference_model, reference_ms
from accel.benchmark.run import benchmark, settings_of
from accel.errors import RuntimeUnavailable
from accel.events import Done
from accel.report import BenchmarkReport, Measurement
from accel.request import BenchmarkRequest, ModelFile
from tests import models

CPU = "onnxruntime:cpu"
Told = list[tuple[str, int, int | None, str]]


@pytest.fixture
def model(tmp_path: Path) -> ModelFile:
    return ModelFile(model_id="original", path=models.save(models.convnet(), tmp_path / "m.onnx"))


def run(folder: Path, *listed: ModelFile, told: Told | None = None, **more: object) -> tuple[BenchmarkReport, Done]:
    workspace = folder / "work"
    workspace.mkdir()
    request = BenchmarkRequest(
        workspace=workspace,
        models=listed,
        baseline_id=listed[0].model_id,
        **{"runtimes": (CPU,), "rounds": 3, "seconds_per_round": 0.01, "starts": 3, **more},
    )
    done = benchmark(request, lambda *said: told.append(said) if told is not None else None)
    assert isinstance(done.report, BenchmarkReport)
    return done.report, done


def test_what_is_reported(tmp_path: Path, model: ModelFile) -> None:
    same = ModelFile(model_id="same", path=model.path)
    (tmp_path / "bad.onnx").write_bytes(b"not a model")
    bad = ModelFile(model_id="bad", path=tmp_path / "bad.onnx")
    told: Told = []
    report, done = run(tmp_path, model, same, bad, told=told, batch_sizes=(1, 4))
    by = {(m.model_id, m.batch_size): m for m in report.measurements}
    assert len(by) == len(report.measurements) == 6
    twin = by["same", 4]
    assert twin.speedup is not None
    assert twin.speedup.low is not None
    assert twin.latency_ms is not None
    assert (twin.starts, twin.stopped) == (3, "fixed")
    assert twin.throughput == pytest.approx(4e3 / twin.latency_ms.median)
    for figure in (twin.load_ms, twin.first_inference_ms, twin.peak_memory_bytes, twin.cpu_seconds):
        assert figure is not None
        assert figure > 0
    assert twin.size_bytes == model.path.stat().st_size
    assert twin.compressed_bytes == compressed_bytes(model.path)
    assert twin.compressed_bytes < twin.size_bytes
    assert twin.environment == report.environment.fingerprint != ""
    assert twin.profile is not None
    assert by["original", 1].speedup is None
    assert "could not load" in (by["bad", 1].error or "")
    assert by["bad", 1].latency_ms is None
    assert by["bad", 1].size_bytes == len(b"not a model")
    assert report.environment.steal_share is not None
    shares = [done / total for _, done, total, _ in told if total]
    assert any("start 2 of about 3" in message for *_, message in told)
    measuring = [done for phase, done, total, _ in told if phase == "measuring"]
    assert measuring == sorted(measuring)
    assert max(shares) == 1
    check_samples(report, done, twin)
    assert any(one.media_type == "application/json" for one in done.attachments)
    assert all(one.path.exists() for one in done.attachments)


def check_samples(report: BenchmarkReport, done: Done, twin: Measurement) -> None:
    (file,) = [one for one in done.attachments if one.name == report.samples]
    table = pl.read_parquet(file.path)
    mine = table.filter(pl.col("model_id") == "same", pl.col("batch_size") == 4)
    measured = mine.filter(pl.col("phase") == "measured")
    assert twin.latency_ms is not None
    assert len(measured) == twin.latency_ms.count
    assert measured["milliseconds"].median() == pytest.approx(twin.latency_ms.median, rel=1e-4)
    assert set(measured["start"]) == set(measured["round"]) == {0, 1, 2}
    assert mine.filter(pl.col("phase") == "warmup")["start"].n_unique() == 3
    assert set(table["batch_size"]) == {1, 4}
    assert [path.name for path in file.path.parent.glob("*.parquet")] == [file.name]


def test_the_baseline_breaks(tmp_path: Path, model: ModelFile) -> None:
    (tmp_path / "bad.onnx").write_bytes(b"not a model")
    bad = ModelFile(model_id="bad", path=tmp_path / "bad.onnx")
    report, _ = run(tmp_path, bad, model, profile=False)
    first, second = report.measurements
    assert first.error
    assert second.error is None
    assert second.latency_ms is not None
    assert second.speedup is None
    assert any("The baseline is broken" in warning for warning in second.warnings)


@pytest.mark.slow
def test_nothing_runs(tmp_path: Path) -> None:
    (tmp_path / "bad.onnx").write_bytes(b"not a model")
    report, _ = run(tmp_path, ModelFile(model_id="bad", path=tmp_path / "bad.onnx"), starts=None)
    assert report.measurements[0].error


@pytest.mark.slow
def test_queries_of_several_samples(tmp_path: Path, model: ModelFile) -> None:
    report, _ = run(tmp_path, model, scenario="multi_stream", streams=4, profile=False)
    (found,) = report.measurements
    assert (found.scenario, found.batch_size) == ("multi_stream", 4)
    assert found.latency_ms is not None
    assert found.throughput == pytest.approx(4e3 / found.latency_ms.median)


@pytest.mark.slow
def test_offline(tmp_path: Path, model: ModelFile) -> None:
    other = ModelFile(model_id="other", path=model.path)
    report, _ = run(tmp_path, model, other, scenario="offline", instances=(1, 2), profile=False)
    assert [m.instances for m in report.measurements] == [1, 1, 2, 2]
    for found in report.measurements:
        assert found.throughput is not None
        assert found.throughput > 0
    assert report.measurements[3].speedup is not None


@pytest.mark.slow
def test_a_budget_is_kept(tmp_path: Path, model: ModelFile) -> None:
    report, _ = run(
        tmp_path, model, ModelFile(model_id="b", path=model.path), starts=None, budget_seconds=0.5, profile=False
    )
    found = report.measurements[1]
    assert found.starts == 3
    assert found.stopped in {"budget", "precise"}


def test_a_preflight_times_nothing(tmp_path: Path, model: ModelFile) -> None:
    report, done = run(tmp_path, model, ModelFile(model_id="b", path=model.path), preflight=True)
    assert report.measurements == done.attachments == ()
    assert [one.model_id for one in report.preflight] == ["original", "b"]


def test_a_runtime_that_is_not_there_is_refused(tmp_path: Path, model: ModelFile) -> None:
    with pytest.raises(RuntimeUnavailable, match="onnxruntime:npu"):
        run(tmp_path, model, runtimes=("onnxruntime:npu",))


@pytest.mark.parametrize(
    "wrong",
    [
        {"scenario": "server"},
        {"bound_ms": 5},
        {"instances": (2,)},
        {"scenario": "multi_stream", "batch_sizes": (2,)},
    ],
)
def test_parts_of_another_scenario_are_refused(wrong: dict[str, object], model: ModelFile) -> None:
    with pytest.raises(ValidationError, match="belong"):
        BenchmarkRequest(models=(model,), baseline_id="original", **wrong)


def test_settings_are_every_combination(model: ModelFile) -> None:
    request = BenchmarkRequest(
        models=(model,),
        baseline_id="original",
        scenario="offline",
        batch_sizes=(1, 8),
        threads=(1, 2),
        instances=(1, 2),
    )
    assert len(set(settings_of(request))) == 8
    streams = request.model_copy(
        update={"scenario": "multi_stream", "batch_sizes": (1,), "instances": (1,), "streams": 5}
    )
    assert {setting.batch_size for setting in settings_of(streams)} == {5}


def test_the_reference_model_is_always_the_same(tmp_path: Path) -> None:
    assert reference_model().SerializeToString() == reference_model().SerializeToString()
    found = reference_ms(tmp_path)
    assert found is not None
    assert 0.05 < found < 50
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_glance_is_short(model: ModelFile, tmp_path: Path) -> None:
    before = set(tmp_path.iterdir())
    gain, _ = glance(model.path, model.path, CPU, {}, threads=2, seed=0)
    assert gain is not None
    assert gain.low is not None
    assert gain.low <= gain.value
    assert set(tmp_path.iterdir()) == before
