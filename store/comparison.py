"""Models side by side, from what evaluations and benchmarks have measured."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from sqlalchemy import select
from sqlalchemy.orm import Session

from accel.report import Environment
from store import models
from store.lineage import Ancestor, lineages
from store.measured import EvaluationEntry, MeasurementEntry, find
from store.tables import JobRow


class _Value(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ComparisonEntry(_Value):
    """One model. Losses and speed-ups against another baseline are in it as they were measured; `baseline_id` tells."""

    model_id: UUID
    name: str
    role: Literal["baseline", "candidate"]
    parent_id: UUID | None
    lineage: tuple[Ancestor, ...] = Field(description="From the oldest ancestor that is kept to the model itself.")
    size_bytes: int
    size_ratio: float = Field(description="Bytes over those of the baseline.")
    parameters: int
    macs: int | None
    evaluations: tuple[EvaluationEntry, ...]
    measurements: tuple[MeasurementEntry, ...]


class MeasuringJob(_Value):
    """A job that figures come from, and where it ran."""

    job_id: UUID
    kind: str
    finished_at: datetime | None
    environment: Environment | None
    warnings: tuple[str, ...] = Field(description="What casts doubt on all its figures.")
    notes: tuple[str, ...]


class ComparisonTable(_Value):
    """Models side by side."""

    baseline_id: UUID
    baseline_choice: Literal["named", "common_ancestor", "first"] = Field(
        description="Why this is the baseline: the request names it, all others were made of it, or it is the first listed."
    )
    models: tuple[ComparisonEntry, ...]
    jobs: tuple[MeasuringJob, ...]
    unreadable_jobs: tuple[UUID, ...] = Field(
        (), description="Jobs whose figures are left out, since another version of the service wrote them."
    )


def compare(session: Session, model_ids: Sequence[UUID], baseline_id: UUID | None = None) -> ComparisonTable:
    """Put models side by side: for each the newest figure of each dataset, split, runtime, setting and environment.

    Figures of a job that had the baseline go before newer ones without it. An older environment (or another way to judge the
    same split) is left out where newer ones have all of its models.

    Args:
        session: A reading transaction.
        model_ids: The models, in the order in which they are shown, after the baseline.
        baseline_id: What the others are compared with. Left out, it is the listed model that all others descend from; if there
            is none, the first.

    Raises:
        NotFound: There is no such model.
    """
    listed = list(dict.fromkeys([*([baseline_id] if baseline_id else []), *model_ids]))
    found = {identity: models.get(session, identity) for identity in listed}
    lines = lineages(session, listed)
    first, choice = (baseline_id, "named") if baseline_id else _baseline(listed, lines)
    order = [first, *(identity for identity in listed if identity != first)]
    measured = find(session, order, first)
    return ComparisonTable(
        baseline_id=first,
        baseline_choice=choice,
        models=tuple(
            ComparisonEntry(
                model_id=identity,
                name=found[identity].name,
                role="baseline" if identity == first else "candidate",
                parent_id=found[identity].parent_id,
                lineage=lines[identity],
                size_bytes=found[identity].size_bytes,
                size_ratio=found[identity].size_bytes / found[first].size_bytes,
                parameters=found[identity].summary.parameters,
                macs=found[identity].summary.macs,
                evaluations=tuple(e for owner, e in measured.evaluations if owner == identity),
                measurements=tuple(e for owner, e in measured.measurements if owner == identity),
            )
            for identity in order
        ),
        jobs=_jobs(
            session, {*(e.job_id for _, e in measured.evaluations), *(m.job_id for _, m in measured.measurements)}
        ),
        unreadable_jobs=measured.unreadable_jobs,
    )


def _baseline(
    listed: Sequence[UUID], lines: Mapping[UUID, tuple[Ancestor, ...]]
) -> tuple[UUID, Literal["common_ancestor", "first"]]:
    ancestors = [{one.model_id for one in lines[identity]} for identity in listed]
    for identity in listed if len(listed) > 1 else ():
        if all(identity in line for line in ancestors):
            return identity, "common_ancestor"
    return listed[0], "first"


class _Conditions(BaseModel):
    """What is needed of a report, whatever else is in it."""

    environment: Environment | None = None
    warnings: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def _jobs(session: Session, job_ids: Iterable[UUID]) -> tuple[MeasuringJob, ...]:
    columns = (JobRow.id, JobRow.kind, JobRow.finished_at, JobRow.report)
    found = []
    for row in session.execute(select(*columns).where(JobRow.id.in_(list(job_ids))).order_by(JobRow.id)):
        try:
            said = _Conditions.model_validate_json(row.report or "{}")
        except ValidationError:
            said = _Conditions()
        found.append(
            MeasuringJob(
                job_id=row.id,
                kind=row.kind,
                finished_at=row.finished_at,
                environment=said.environment,
                warnings=said.warnings,
                notes=said.notes,
            )
        )
    return tuple(found)
