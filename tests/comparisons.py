"""Comparisons to work with, as the store gives them."""

from __future__ import annotations

from uuid import UUID

from accel.evaluation.contract import Contract, Metric, Verdict
from accel.report import (
    AgainstBaseline,
    ClassChange,
    Environment,
    Estimate,
    EvaluatedModel,
    LatencySummary,
    Measurement,
    Percentile,
)
from store.comparison import ComparisonEntry, ComparisonTable, MeasuringJob
from store.lineage import Ancestor
from store.measured import EvaluationEntry, MeasurementEntry

BASE, SMALL, JOB, DATA = (UUID(int=n) for n in (1, 2, 3, 4))
CPU, OPENVINO = "onnxruntime:cpu", "onnxruntime:openvino"
MET = Verdict(outcome="met", contract=Contract(max_drop=0.02), explanation="It lost <at most> 1 point.")


def environment(**more: object) -> Environment:
    known: dict[str, object] = {
        "cpu": "Xeon", "cpu_features": ("avx2", "avx512_vnni"), "cores": 2, "memory_bytes": 8_000_000_000, "platform": "Linux",
        "python": "3.11", "libraries": {"onnxruntime": "1.32.0"}, "fingerprint": "here",
    }  # fmt: skip
    return Environment.model_validate(known | more)


def job(job_id: UUID = JOB, *, warnings: tuple[str, ...] = (), **more: object) -> MeasuringJob:
    found = environment(**more)
    return MeasuringJob(
        job_id=job_id, kind="benchmark", finished_at=None, environment=found, warnings=warnings, notes=()
    )


def latency(median: float) -> LatencySummary:
    few = Percentile(value=None, samples_needed=9000)
    return LatencySummary(
        count=200, mean=median, median=median, mad=0.01, minimum=median,
        p50=Percentile(value=median, low=median * 0.98, high=median * 1.02),
        p90=Percentile(value=median * 1.2, low=median * 1.1, high=median * 1.3), p95=few, p99=few,
    )  # fmt: skip


def evaluation(
    value: float,
    *,
    metric: Metric = "accuracy",
    drop: float | None = None,
    verdict: Verdict | None = None,
    runtime: str = CPU,
    dataset_id: UUID = DATA,
    split: str = "test",
    question: str = "q",
    job_id: UUID = JOB,
    baseline_id: UUID = BASE,
) -> EvaluationEntry:
    against = None
    if drop is not None:
        change = ClassChange(label=1, name="<i>cat", samples=50, baseline_recall=0.9, model_recall=0.8, lost=7, won=2)
        against = AgainstBaseline(
            metric=metric, drop=Estimate(value=drop, low=drop - 0.006, high=drop + 0.006), flips=12, lost=8, won=4, p_value=0.2,
            classes=(change,), verdict=verdict,
        )  # fmt: skip
    result = EvaluatedModel(
        model_id="m", runtime=runtime, samples=6000, against_baseline=against,
        metrics={metric: Estimate(value=value, low=value - 0.01, high=value + 0.01)},
    )  # fmt: skip
    return EvaluationEntry(
        job_id=job_id, baseline_id=baseline_id, dataset_id=dataset_id, dataset_name="digits", split=split, question=question,
        result=result,
    )  # fmt: skip


def measurement(
    median: float | None,
    *,
    speedup: float | None = None,
    runtime: str = CPU,
    environment: str = "here",
    job_id: UUID = JOB,
    baseline_id: UUID = BASE,
    **more: object,
) -> MeasurementEntry:
    gain = None if speedup is None else Estimate(value=speedup, low=speedup * 0.95, high=speedup * 1.05)
    result = Measurement.model_validate(
        {
            "model_id": "m", "runtime": runtime, "batch_size": 1, "threads": 1, "speedup": gain, "environment": environment,
            "latency_ms": None if median is None else latency(median), "throughput": None if median is None else 1000 / median,
            "error": "It crashed." if median is None else None, **more,
        }
    )  # fmt: skip
    return MeasurementEntry(job_id=job_id, baseline_id=baseline_id, environment=environment, result=result)


def entry(
    identity: UUID,
    name: str,
    *,
    size_bytes: int = 1_000_000,
    evaluations: tuple[EvaluationEntry, ...] = (),
    measurements: tuple[MeasurementEntry, ...] = (),
    steps: tuple[tuple[str, dict[str, object]], ...] = (("quantize_static", {}),),
) -> ComparisonEntry:
    made = identity != BASE
    line = [Ancestor(model_id=identity, name=name)]
    if made:
        line = [
            Ancestor(model_id=BASE, name="resnet"),
            *(Ancestor(model_id=identity, name=name, technique=tag, parameters=given) for tag, given in steps),
        ]
    return ComparisonEntry(
        model_id=identity,
        name=name,
        role="candidate" if made else "baseline",
        parent_id=BASE if made else None,
        lineage=tuple(line),
        size_bytes=size_bytes,
        size_ratio=size_bytes / 4_000_000,
        parameters=1_000_000,
        macs=None,
        evaluations=evaluations,
        measurements=measurements,
    )


def table(*entries: ComparisonEntry, jobs: tuple[MeasuringJob, ...] | None = None) -> ComparisonTable:
    return ComparisonTable(
        baseline_id=BASE, baseline_choice="first", models=entries, jobs=(job(),) if jobs is None else jobs
    )


def baseline(name: str = "resnet", **more: object) -> ComparisonEntry:
    given = {"evaluations": (evaluation(0.9),), "measurements": (measurement(2.0),), **more}
    return entry(BASE, name, size_bytes=4_000_000, **given)
