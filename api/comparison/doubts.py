"""What keeps figures from being held against each other: other hosts, other data, other baselines."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final, Literal
from uuid import UUID

from pydantic import Field

from accel.report import Environment
from api.comparison import figures
from api.comparison.names import tame
from api.comparison.rows import Row, Value
from store.comparison import ComparisonTable, MeasuringJob


class Host(Value):
    """An environment that figures come from, under a short name."""

    name: str = Field(description="A letter, by which warnings and rows call it.")
    fingerprint: str
    job_ids: tuple[UUID, ...]
    environment: Environment | None = Field(description="As the newest of these jobs found it.")


class Difference(Value):
    """What is not the same in two or more environments."""

    what: str
    values: dict[str, str] = Field(description="By the environment's name.")


class Doubt(Value):
    """A reason to be careful with a comparison."""

    kind: Literal[
        "environments_differ",
        "processors_differ",
        "splits_differ",
        "judged_differently",
        "other_baseline",
        "unreadable",
        "doubtful_job",
    ]
    text: str
    rows: tuple[int, ...] = Field((), description="Places of the rows concerned.")
    differences: tuple[Difference, ...] = ()


def hosts_of(table: ComparisonTable) -> tuple[Host, ...]:
    """The environments, those with the newest jobs first."""
    timed = {m.job_id: m.environment for entry in table.models for m in entry.measurements}
    jobs: dict[str, list[MeasuringJob]] = {}
    for job in sorted(table.jobs, key=lambda job: job.job_id, reverse=True):
        jobs.setdefault(timed.get(job.job_id) or fingerprint(job), []).append(job)
    return tuple(
        Host(
            name=_letters(place),
            fingerprint=key,
            job_ids=tuple(job.job_id for job in there),
            environment=next((job.environment for job in there if job.environment is not None), None),
        )
        for place, (key, there) in enumerate(jobs.items())
    )


def fingerprint(job: MeasuringJob) -> str:
    """Equal for jobs of the same environment; a job whose environment is not known has one of its own."""
    return (job.environment.fingerprint if job.environment else "") or f"job {job.job_id}"


def _letters(place: int) -> str:
    first, second = divmod(place, 26)
    return (chr(64 + first) if first else "") + chr(65 + second)


_FACTS: Final[Mapping[str, Callable[[Environment], object]]] = {
    "processor": lambda e: e.cpu,
    "cores": lambda e: e.cores,
    "governor": lambda e: e.governor,
    "processor limit": lambda e: e.cpu_limit,
    "memory limit": lambda e: e.memory_limit_bytes and figures.size(e.memory_limit_bytes),
    "memory": lambda e: figures.size(e.memory_bytes),
    "container": lambda e: e.container,
    "graphics": lambda e: ", ".join(f"{gpu.name} (driver {gpu.driver})" for gpu in e.gpus) or None,
    "platform": lambda e: e.platform,
    "Python": lambda e: e.python,
}


def differences(hosts: Sequence[Host]) -> tuple[Difference, ...]:
    """What differs between environments that are known."""
    known = [(host.name, host.environment) for host in hosts if host.environment is not None]
    told: dict[str, list[tuple[str, object]]] = {
        what: [(name, fact(e)) for name, e in known] for what, fact in _FACTS.items()
    }
    for library in sorted({library for _, e in known for library in e.libraries}):
        told[library] = [(name, e.libraries.get(library)) for name, e in known]
    for variable in sorted({variable for _, e in known for variable in e.thread_settings}):
        told[variable] = [(name, e.thread_settings.get(variable)) for name, e in known]
    shared = set.intersection(*(set(e.cpu_features) for _, e in known)) if known else set()
    told["processor features"] = [
        (name, ", ".join(f for f in e.cpu_features if f not in shared) or "none besides the others'")
        for name, e in known
    ]
    return tuple(
        Difference(what=what, values={name: "unknown" if value is None else str(value) for name, value in values})
        for what, values in told.items()
        if len({value for _, value in values}) > 1
    )


def doubts_of(table: ComparisonTable, rows: Sequence[Row], hosts: Sequence[Host]) -> tuple[Doubt, ...]:
    """Every reason to be careful, the gravest first."""
    return (
        *_environments(rows, hosts),
        *_processors(rows, hosts),
        *_splits(rows),
        *_baselines(table, rows),
        *_jobs(table, rows),
        *_unreadable(table),
    )


def _environments(rows: Sequence[Row], hosts: Sequence[Host]) -> Iterable[Doubt]:
    timed = {row.speed.environment for row in rows if row.speed is not None}
    of = [host for host in hosts if host.fingerprint in timed]
    if len(of) > 1:
        yield Doubt(
            kind="environments_differ",
            text=f"Speed was measured in {len(of)} environments ({_listed(of)}). They are shown apart: do not hold their latencies "
            f"against each other. {_told(of)}",
            rows=tuple(place for place, row in enumerate(rows) if row.speed is not None),
            differences=differences(of),
        )


def _processors(rows: Sequence[Row], hosts: Sequence[Host]) -> Iterable[Doubt]:
    # Integer products differ from processor to processor, and so may what a quantized model says.
    judged = {row.quality.job_id for row in rows if row.quality is not None}
    of = [host for host in hosts if judged & set(host.job_ids)]
    relevant = {"processor", "processor features", "onnxruntime", "openvino", "torch", "graphics"}
    found = tuple(one for one in differences(of) if one.what in relevant)
    if found:
        yield Doubt(
            kind="processors_differ",
            text=f"Quality was measured in {len(of)} environments ({_listed(of)}); what quantized models say can depend on the "
            f"processor and the runtime's version. {_told(of, found)}",
            rows=tuple(place for place, row in enumerate(rows) if row.quality is not None),
            differences=found,
        )


def _listed(hosts: Sequence[Host]) -> str:
    names = [f"{host.name}: {host.environment.cpu if host.environment else 'unknown'}" for host in hosts]
    return "; ".join(names)


def _told(hosts: Sequence[Host], found: Sequence[Difference] | None = None) -> str:
    if any(host.environment is None for host in hosts):
        return "Some of them are not known, so nobody can say whether they are the same."
    said = [
        f"{one.what} ({'; '.join(f'{n}: {v}' for n, v in one.values.items())})" for one in found or differences(hosts)
    ]
    return f"They differ in {', '.join(said)}." if said else "How they differ is not recorded."


def _splits(rows: Sequence[Row]) -> Iterable[Doubt]:
    places = tuple(place for place, row in enumerate(rows) if row.quality is not None)
    judged = [q for row in rows if (q := row.quality) is not None]
    splits = {
        (q.dataset_id, q.split): f"{tame(q.split)} of {tame(q.dataset_name or str(q.dataset_id))}" for q in judged
    }
    if len(splits) > 1:
        yield Doubt(
            kind="splits_differ",
            text=f"Quality was measured on {len(splits)} splits, which are shown apart: {'; '.join(splits.values())}.",
            rows=places,
        )
    if len({(q.dataset_id, q.split, q.question) for q in judged}) > len(splits):
        yield Doubt(
            kind="judged_differently",
            text="The same split was fed or judged in different ways (another binding, decoder or target). These figures are shown apart.",
            rows=places,
        )


def _baselines(table: ComparisonTable, rows: Sequence[Row]) -> Iterable[Doubt]:
    other = {
        entry.model_id
        for entry in table.models
        if entry.role == "candidate"
        and {*(e.baseline_id for e in entry.evaluations), *(m.baseline_id for m in entry.measurements)}
        - {table.baseline_id}
    }
    if other:
        names = ", ".join(tame(entry.name) for entry in table.models if entry.model_id in other)
        yield Doubt(
            kind="other_baseline",
            text=f"Some figures of {names} come from jobs that compared with another model than this baseline, so that losses or "
            "speed-ups are not known. A job with both would tell.",
            rows=tuple(place for place, row in enumerate(rows) if row.model_id in other),
        )


def _jobs(table: ComparisonTable, rows: Sequence[Row]) -> Iterable[Doubt]:
    for job in table.jobs:
        for text in job.warnings:
            yield Doubt(
                kind="doubtful_job",
                text=f"{text} (all figures of the {job.kind} job {job.job_id})",
                rows=tuple(
                    place
                    for place, row in enumerate(rows)
                    if job.job_id in {found.job_id for found in (row.quality, row.speed) if found is not None}
                ),
            )


def _unreadable(table: ComparisonTable) -> Iterable[Doubt]:
    if table.unreadable_jobs:
        yield Doubt(
            kind="unreadable",
            text=f"Figures of {len(table.unreadable_jobs)} jobs were written by another version of the service and are left out: "
            f"{', '.join(map(str, table.unreadable_jobs))}. Run these jobs again.",
        )
