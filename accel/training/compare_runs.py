"""Several trainings beside each other: which was as good as wanted first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from accel.errors import BindingMismatch
from accel.evaluation.contract import ERRORS, Metric
from accel.report.training import ComparedRun, CompareRunsReport, EpochPoint, Target, TimeToTarget, TrainReport

_TOLD = 6
"""Settings that a label has at most."""


def compare_runs(reports: Sequence[TrainReport], target: float | None = None) -> CompareRunsReport:
    """Compare trainings by the time and the epochs to a value of their metric.

    Args:
        reports: The trainings; the first is what others are compared with. All have the same metric.
        target: The value; if left out, the worst of the runs' best values, which all of them reached.

    Raises:
        BindingMismatch: They have different metrics, or one has none.
    """
    metrics = {report.metric for report in reports}
    metric = reports[0].metric
    if len(metrics) != 1 or metric is None:
        named = ", ".join(f"{report.model_id} by {report.metric or 'nothing'}" for report in reports)
        raise BindingMismatch(
            f"Trainings are compared by one metric, and these were judged by different ones: {named}.",
            hint="Name the same `metric` in each, and hold rows out to judge by.",
        )
    best = [best_of(report.curve, metric) for report in reports]
    known = [value for value in best if value is not None]
    aim = target if target is not None else _worst(known, metric)
    wanted = None if aim is None else Target(metric=metric, value=aim)
    times = [None if wanted is None else time_to(report.curve, wanted) for report in reports]
    labels = labels_of([report.settings for report in reports])
    runs = tuple(
        ComparedRun(
            model_id=report.model_id,
            label=label,
            parameters_trained=report.parameters_trained,
            best=value,
            best_epochs=report.best_epochs,
            epochs=report.epochs,
            seconds=report.seconds,
            samples_per_second=report.samples_per_second,
            target=time,
            speedup=_speedup(times[0], time),
            curve=report.curve,
        )
        for report, label, value, time in zip(reports, labels, best, times, strict=True)
    )
    reached = [
        (time.seconds, run.model_id) for run, time in zip(runs, times, strict=True) if time and time.seconds is not None
    ]
    return CompareRunsReport(
        metric=metric,
        target=wanted,
        runs=runs,
        fastest=min(reached)[1] if reached else None,
        notes=tuple(_notes(reports)),
    )


def time_to(curve: Sequence[EpochPoint], target: Target) -> TimeToTarget:
    """When a training was first as good as wanted."""
    for point in curve:
        if reaches(point.metric, target):
            return TimeToTarget(target=target, reached=True, epochs=point.epochs, seconds=point.seconds)
    return TimeToTarget(target=target, reached=False)


def reaches(value: float | None, target: Target) -> bool:
    """Whether a value of a metric is as good as wanted."""
    return value is not None and (value <= target.value if target.metric in ERRORS else value >= target.value)


def best_of(curve: Sequence[EpochPoint], metric: Metric) -> float | None:
    """The best value of a metric along a curve; None where there is none."""
    known = [point.metric for point in curve if point.metric is not None]
    if not known:
        return None
    return min(known) if metric in ERRORS else max(known)


def labels_of(settings: Sequence[Mapping[str, object]]) -> list[str]:
    """What tells each run from the others: the settings that are not the same in all."""
    flat = [dict(_flat(one)) for one in settings]
    names = dict.fromkeys(name for one in flat for name in one)
    differing = [name for name in names if len({repr(one.get(name)) for one in flat}) > 1]
    return [
        ", ".join(
            f"{name.rpartition('.')[2]} {one[name]}" for name in differing if name in one and one[name] is not None
        )
        if len(differing) <= _TOLD
        else ", ".join(f"{name.rpartition('.')[2]} {one[name]}" for name in differing[:_TOLD] if name in one) + ", ..."
        for one in flat
    ]


def _flat(held: Mapping[str, object], before: str = "") -> list[tuple[str, object]]:
    found: list[tuple[str, object]] = []
    for name, value in held.items():
        if isinstance(value, Mapping):
            found += _flat(value, f"{before}{name}.")
        else:
            found.append((f"{before}{name}", value))
    return found


def _worst(values: Sequence[float], metric: Metric) -> float | None:
    if not values:
        return None
    return max(values) if metric in ERRORS else min(values)


def _speedup(first: TimeToTarget | None, time: TimeToTarget | None) -> float | None:
    if first is None or time is None or not first.seconds or not time.seconds:
        return None
    return first.seconds / time.seconds


def _notes(reports: Sequence[TrainReport]) -> list[str]:
    notes = []
    if len({report.environment.fingerprint for report in reports}) > 1:
        notes.append("The runs were made on different hosts or with different libraries: compare epochs, not seconds.")
    if len({(report.validated_on, report.validation_rows) for report in reports}) > 1:
        notes.append(
            "The runs were judged by different rows, so that values of the metric differ for that reason, too."
        )
    if len({report.processes for report in reports}) > 1:
        notes.append("The runs had different numbers of processes.")
    return notes
