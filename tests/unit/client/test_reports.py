"""Reports as the command prints them."""

from __future__ import annotations

import io
from typing import Any

from rich.console import Console

from accel.data.binding import Binding
from accel.evaluation.contract import Contract, Verdict
from accel.report import (
    AgainstBaseline,
    BenchmarkReport,
    EpochPoint,
    Estimate,
    EvaluatedModel,
    EvaluateReport,
    FloatOperator,
    LatencySummary,
    Measurement,
    Percentile,
    Preflight,
    Robustness,
    ServerResult,
    SpeedFinding,
    TrainReport,
)
from client.reports import readable
from client.values import Job, Progress
from tests.rows import ENVIRONMENT, REPORT

CPU = "onnxruntime:cpu"


def shown(report: Any) -> str:
    """What is printed, with the frames of tables and breaks of lines taken out."""
    job = Job(
        id="j", kind=report.kind, state="succeeded", phase="done", progress=Progress(done=1, total=1, message=""),
        report=report.model_dump(mode="json"),
    )  # fmt: skip
    found = readable(job)
    assert found is not None
    text = io.StringIO()
    Console(file=text, width=240).print(found)
    return text.getvalue()


def test_an_evaluation_says_what_was_lost() -> None:
    verdict = Verdict(
        outcome="inconclusive", contract=Contract(), explanation="Too few [samples].", samples_needed=9000
    )
    against = AgainstBaseline(
        metric="accuracy", drop=Estimate(value=0.005, low=-0.001, high=0.011), flips=30, lost=12, won=8, p_value=0.5,
        drops={"accuracy": Estimate(value=0.005, low=-0.001, high=0.011), "log_loss": Estimate(value=0.02)},
        verdict=verdict,
    )  # fmt: skip
    quality = {"accuracy": Estimate(value=0.9, low=0.89, high=0.91), "log_loss": Estimate(value=0.31)}
    robust = Robustness(
        corruption="blur", severity=3, metric="accuracy", value=Estimate(value=0.7), lost_to_corruption=0.2,
        drop=Estimate(value=0.1, low=0.05, high=0.15), excess=Estimate(value=0.095),
    )  # fmt: skip
    models = (
        EvaluatedModel(model_id="base", runtime=CPU, samples=6000, metrics=quality),
        EvaluatedModel(
            model_id="small", runtime=CPU, samples=6000, metrics=quality, against_baseline=against,
            robustness=(robust,), warnings=("It was tuned.",),
        ),
        EvaluatedModel(model_id="broken", runtime=CPU, samples=0, metrics={}, error="It does not run."),
    )  # fmt: skip
    text = shown(
        EvaluateReport(split="test", baseline_id="base", models=models, notes=("Note.",), environment=ENVIRONMENT)
    )
    for part in (
        "90.00% [89.00%, 91.00%]", "0.31", "+0.50 points [-0.10, +1.10]", "12 samples lost, 8 won", "+0.02",
        "small: inconclusive: Too few [samples].", "small: It was tuned.",
        "broken: It does not run.", "note: Note.", "blur 3", "+20.00 points", "+9.50 points", "+10.00 points [+5.00, +15.00]",
    ):  # fmt: skip
        assert part in text, part


def measured(model_id: str, **more: Any) -> Measurement:
    point = Percentile(value=2.0, low=1.9, high=2.1)
    latency = LatencySummary(
        count=200, mean=2.0, median=1.5, mad=0.1, minimum=1.0, p50=point, p90=point, p95=point,
        p99=Percentile(value=None, samples_needed=1000),
    )  # fmt: skip
    known = {
        "runtime": CPU,
        "batch_size": 8,
        "threads": 2,
        "latency_ms": latency,
        "throughput": 5333.3,
        "speedup": None,
    }
    return Measurement.model_validate({"model_id": model_id, **known, **more})


def test_a_benchmark_says_how_sure_it_is() -> None:
    reason = SpeedFinding(kind="memory_bound", share=0.4, text="It waits for [memory].")
    server = ServerResult(bound_ms=20, rate_hz=None, probes=())
    measurements = (
        measured("base", instances=2, scenario="offline"),
        measured("small", speedup=Estimate(value=2.0, low=1.9, high=2.1), warnings=("Busy.",), why=(reason,)),
        measured("served", scenario="server", server=server),
        measured("broken", latency_ms=None, throughput=None, error="It died."),
    )
    report = BenchmarkReport(
        baseline_id="base",
        reference_runtime=CPU,
        measurements=measurements,
        warnings=("Steal.",),
        environment=ENVIRONMENT,
    )
    text = shown(report)
    for part in (
        "offline, batch 8, 2 threads, 2 processes", "1.500 ms", "needs 1,000 samples", "5,333.3", "baseline",
        "2.00x [1.90, 2.10]", "no rate (p99 under 20 ms)", "Busy.", "It waits for [memory].", "It died.",
        "all figures: Steal.", "Measured on c, 2 cores.",
    ):  # fmt: skip
        assert part in text, part


def test_a_preflight_says_what_to_expect() -> None:
    one = Preflight(
        model_id="m", runtime=CPU, already_quantized=False, int8_share=0.9, expected_size_bytes=1_000_000,
        expected_speedup=Estimate(value=2.5, low=1.8, high=3.2), size_bytes=4_000_000, known_failures=("It fails.",),
        stays_float=(FloatOperator(operator="LSTM", count=2, macs_share=0.1, reason="no kernel"),), advice="Do it.",
    )  # fmt: skip
    report = BenchmarkReport(
        baseline_id="m", reference_runtime=CPU, measurements=(), preflight=(one,), environment=ENVIRONMENT
    )
    text = shown(report)
    for part in ("90%", "2.50x [1.80, 3.20]", "4.00 to 1.00 MB", "2 LSTM", "Do it.", "It fails.", "no kernel"):
        assert part in text, part


def test_a_training_is_shown_epoch_by_epoch() -> None:
    start = EpochPoint(
        epochs=0,
        seconds=0.1,
        train_loss=None,
        validation_loss=2.3,
        metric=0.1,
        learning_rate=0.01,
        samples_per_second=None,
    )
    end = start.model_copy(
        update={"epochs": 1.0, "train_loss": 0.5, "metric": 0.8125, "samples_per_second": 1234.0, "best": True}
    )
    report = TrainReport(
        model_id="new", task="classification", binding=Binding(), trained_on="train", validated_on="validation", train_rows=900,
        validation_rows=100, parameters_trained=5432, curve=(start, end), best_epochs=1.0, stopped_because="epochs", epochs=1.0,
        steps=9, seconds=2.0, samples_per_second=1234.0, metric="accuracy", value=Estimate(value=0.8125, low=0.75, high=0.875),
        size_bytes=10, peak_memory_bytes=10, processes=1, attempts=1, settings={}, environment=ENVIRONMENT, notes=("Slow.",),
    )  # fmt: skip
    text = shown(report)
    for part in ("5,432 parameters", "81.25% [75.00%, 87.50%]", "ended by epochs", "1 *", "0.5000", "1,234", "Slow."):
        assert part in text, part


def test_other_reports_are_shown_as_they_are() -> None:
    job = Job(id="j", kind="compress", state="succeeded", phase="", progress=Progress(done=1, total=1, message=""))
    assert readable(job) is None
    assert readable(job.model_copy(update={"report": REPORT.model_dump(mode="json")})) is None
