"""The rows of a comparison: one for each model, dataset split, runtime and setting."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, Final, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from accel.evaluation.contract import Metric, Verdict
from accel.report import Estimate, EvaluatedModel, LatencySummary, Measurement, Scenario, ServerResult
from store.comparison import ComparisonEntry, ComparisonTable
from store.measured import EvaluationEntry, MeasurementEntry

_METRICS: Final[tuple[Metric, ...]] = (
    "f1", "accuracy", "exact_match", "macro_f1", "auc", "r2", "rmse", "mae", "spearman", "cosine", "agreement",
    "top5_accuracy",
)  # fmt: skip
"""Which metric is shown where no comparison names one: the first of these that was measured."""


class Value(BaseModel):
    """Part of a comparison: it does not change, and unknown is null."""

    model_config = ConfigDict(extra="forbid", frozen=True, ser_json_inf_nan="null")


class Quality(Value):
    """A model's quality on one split, in one runtime."""

    job_id: UUID
    dataset_id: UUID
    dataset_name: str | None
    split: str
    question: str
    samples: int
    metric: Metric | None = Field(description="The same for all models of a split, where all have it.")
    value: Estimate | None
    drop: Estimate | None = Field(description="Against the baseline on the same samples; above 0 is worse.")
    flips: int | None
    lost: int | None
    won: int | None
    p_value: float | None
    not_finite: int
    verdict: Verdict | None
    error: str | None


class Speed(Value):
    """A model's speed in one runtime, setting and environment."""

    job_id: UUID
    environment: str
    scenario: Scenario
    batch_size: int
    threads: int
    instances: int
    latency_ms: LatencySummary | None
    throughput: float | None
    speedup: Estimate | None = Field(description="Over the baseline, both measured by this job.")
    server: ServerResult | None
    load_ms: float | None
    first_inference_ms: float | None
    peak_memory_bytes: int | None
    cpu_seconds: float | None
    energy_joules: float | None
    compressed_bytes: int | None
    error: str | None

    @property
    def figure(self) -> float | None:
        """What the scenario measures: latency, throughput, or the rate that holds."""
        match self.scenario:
            case "single_stream" | "multi_stream":
                return self.latency_ms.median if self.latency_ms else None
            case "offline":
                return self.throughput
            case "server":
                return self.server.rate_hz if self.server else None

    @property
    def less_is_better(self) -> bool:
        """Whether the figure is a time."""
        return self.scenario in {"single_stream", "multi_stream"}


class Row(Value):
    """One model on one split, in one runtime and setting."""

    model_id: UUID
    name: str
    role: Literal["baseline", "candidate"]
    parent_id: UUID | None
    parent_name: str | None
    made_by: str = Field(description="The oldest ancestor and the techniques that led from it to this model.")
    size_bytes: int
    size_ratio: float
    parameters: int
    macs: int | None
    runtime: str | None
    quality: Quality | None
    speed: Speed | None
    warnings: tuple[str, ...]

    @property
    def contest(self) -> tuple[Any, ...]:
        """Equal for rows whose figures may be held against each other, whatever their runtime."""
        q, s = self.quality, self.speed
        judged = (q.dataset_id, q.split, q.question) if q else (None,) * 3
        bound = s.server.bound_ms if s and s.server else None
        timed = (s.environment, s.scenario, s.batch_size, s.threads, s.instances, bound) if s else (None,) * 6
        return (*judged, *timed)


def rows_of(table: ComparisonTable) -> tuple[Row, ...]:
    """The rows, in the order of the models."""
    paths = made_by(table.models)
    metrics = _metrics(table)
    return tuple(row for entry in table.models for row in _rows(entry, table, paths[entry.model_id], metrics))


_Judged = tuple[UUID, str, str]


def _judged(entry: EvaluationEntry) -> _Judged:
    return entry.dataset_id, entry.split, entry.question


def _metrics(table: ComparisonTable) -> dict[_Judged, Metric]:
    """The metric of each split: one that the most models have; of those the one that most were compared by."""
    had: dict[_Judged, Counter[Metric]] = {}
    asked: dict[_Judged, Counter[Metric]] = {}
    for entry in table.models:
        for evaluation in entry.evaluations:
            had.setdefault(_judged(evaluation), Counter()).update(evaluation.result.metrics.keys())
            against = evaluation.result.against_baseline
            if against is not None:
                asked.setdefault(_judged(evaluation), Counter()).update([against.metric])
    chosen: dict[_Judged, Metric] = {}
    for split, counts in had.items():
        compared = asked.get(split, Counter())
        order = {metric: place for place, metric in enumerate(_METRICS)}
        for metric in sorted(counts, key=lambda m: (-counts[m], -compared[m], order.get(m, len(order)), m))[:1]:
            chosen[split] = metric
    return chosen


def _rows(entry: ComparisonEntry, table: ComparisonTable, path: str, metrics: dict[_Judged, Metric]) -> Iterable[Row]:
    # Quality depends on the runtime too, so a figure is shown only in the row of the runtime where it was measured.
    for runtime in _runtimes(entry):
        evaluations = tuple(e for e in entry.evaluations if e.result.runtime == runtime)
        measurements = tuple(m for m in entry.measurements if m.result.runtime == runtime)
        for evaluation in evaluations or (None,):
            for measurement in measurements or (None,):
                yield _row(entry, table, path, runtime, evaluation, measurement, metrics)


def _runtimes(entry: ComparisonEntry) -> Sequence[str | None]:
    names = {e.result.runtime for e in entry.evaluations} | {m.result.runtime for m in entry.measurements}
    return sorted(names) or [None]


def _row(
    entry: ComparisonEntry,
    table: ComparisonTable,
    path: str,
    runtime: str | None,
    evaluation: EvaluationEntry | None,
    measurement: MeasurementEntry | None,
    metrics: dict[_Judged, Metric],
) -> Row:
    warnings: list[str] = []
    for found, what in ((evaluation, "quality"), (measurement, "speed")):
        if found is not None and entry.role == "candidate" and found.baseline_id != table.baseline_id:
            warnings.append(f"Its {what} was measured without this baseline, so that nothing is known against it.")
        if found is not None:
            warnings += [f"Its {what} could not be measured: {found.result.error}"] if found.result.error else []
            warnings += found.result.warnings
    return Row(
        model_id=entry.model_id,
        name=entry.name,
        role=entry.role,
        parent_id=entry.parent_id,
        parent_name=entry.lineage[-2].name if len(entry.lineage) > 1 else None,
        made_by=path,
        size_bytes=entry.size_bytes,
        size_ratio=entry.size_ratio,
        parameters=entry.parameters,
        macs=entry.macs,
        runtime=runtime,
        quality=_quality(evaluation, table.baseline_id, metrics) if evaluation else None,
        speed=_speed(measurement, table.baseline_id) if measurement else None,
        warnings=tuple(dict.fromkeys(warnings)),
    )


def _quality(entry: EvaluationEntry, baseline_id: UUID, metrics: dict[_Judged, Metric]) -> Quality:
    result = entry.result
    metric = _shown(result, metrics.get(_judged(entry)))
    against = result.against_baseline if entry.baseline_id == baseline_id else None
    drop = None
    if against is not None and metric is not None:
        drop = against.drop if against.metric == metric else against.drops.get(metric)
    return Quality(
        job_id=entry.job_id,
        dataset_id=entry.dataset_id,
        dataset_name=entry.dataset_name,
        split=entry.split,
        question=entry.question,
        samples=result.samples,
        metric=metric,
        value=result.metrics[metric] if metric else None,
        drop=drop,
        flips=against.flips if against else None,
        lost=against.lost if against else None,
        won=against.won if against else None,
        p_value=against.p_value if against else None,
        not_finite=result.not_finite,
        verdict=against.verdict if against else None,
        error=result.error,
    )


def _shown(result: EvaluatedModel, wanted: Metric | None) -> Metric | None:
    if wanted in result.metrics:
        return wanted
    return next((metric for metric in (*_METRICS, *result.metrics) if metric in result.metrics), None)


def _speed(entry: MeasurementEntry, baseline_id: UUID) -> Speed:
    result: Measurement = entry.result
    return Speed(
        job_id=entry.job_id,
        environment=entry.environment,
        scenario=result.scenario,
        batch_size=result.batch_size,
        threads=result.threads,
        instances=result.instances,
        latency_ms=result.latency_ms,
        throughput=result.throughput,
        speedup=result.speedup if entry.baseline_id == baseline_id else None,
        server=result.server,
        load_ms=result.load_ms,
        first_inference_ms=result.first_inference_ms,
        peak_memory_bytes=result.peak_memory_bytes,
        cpu_seconds=result.cpu_seconds,
        energy_joules=result.energy_joules,
        compressed_bytes=result.compressed_bytes,
        error=result.error,
    )


def made_by(entries: Sequence[ComparisonEntry]) -> dict[UUID, str]:
    """How each model was made, with the parameters by which those made by the same techniques differ."""
    plain = {entry.model_id: _path(entry) for entry in entries}
    told: dict[UUID, str] = {}
    for entry in entries:
        same = [other for other in entries if plain[other.model_id] == plain[entry.model_id]]
        different = [name for name in entry.lineage[-1].parameters if len({_setting(o, name) for o in same}) > 1]
        said = ", ".join(f"{name}: {_setting(entry, name)}" for name in different)
        told[entry.model_id] = f"{plain[entry.model_id]} ({said})" if said else plain[entry.model_id]
    return told


def _path(entry: ComparisonEntry) -> str:
    root = entry.lineage[0]
    # An ancestor that was made of a model which was deleted since: what it was made of is not known.
    start = root.name if root.technique is None else f"(deleted model) + {root.technique}"
    return " + ".join([start, *(step.technique or "?" for step in entry.lineage[1:])])


def _setting(entry: ComparisonEntry, name: str) -> str:
    return str(entry.lineage[-1].parameters.get(name))
