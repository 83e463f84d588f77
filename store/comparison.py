"""Models side by side, from what evaluations and benchmarks have measured."""

from __future__ import annotations

from typing import Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict
from sqlalchemy import select
from sqlalchemy.orm import Session

from accel.report import EvaluatedModel, Measurement
from store import models
from store.tables import EvaluationRow, MeasurementRow


class _Value(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class EvaluationEntry(_Value):
    """A model's quality, and the job that measured it."""

    job_id: UUID
    dataset_id: UUID
    split: str
    result: EvaluatedModel


class MeasurementEntry(_Value):
    """A model's speed, and the job that measured it."""

    job_id: UUID
    result: Measurement


class ComparisonEntry(_Value):
    """One model beside the baseline. Losses and speed-ups come from jobs that had both."""

    model_id: UUID
    name: str
    role: Literal["baseline", "candidate"]
    size_bytes: int
    size_ratio: float
    parameters: int
    macs: int | None
    evaluations: tuple[EvaluationEntry, ...]
    measurements: tuple[MeasurementEntry, ...]


class ComparisonTable(_Value):
    """Models side by side."""

    baseline_id: UUID
    models: tuple[ComparisonEntry, ...]


def compare(session: Session, model_ids: list[UUID], baseline_id: UUID | None = None) -> ComparisonTable:
    """Put models side by side: for each the latest figure of each dataset, runtime and setting against the baseline.

    Args:
        session: A reading transaction.
        model_ids: The models, in the order in which they are shown.
        baseline_id: What the others are compared with; the first if left out.

    Raises:
        NotFound: There is no such model.
    """
    first = baseline_id or model_ids[0]
    order = list(dict.fromkeys([first, *model_ids]))
    found = {identity: models.get(session, identity) for identity in order}
    return ComparisonTable(
        baseline_id=first,
        models=tuple(
            ComparisonEntry(
                model_id=model.id,
                name=model.name,
                role="baseline" if model.id == first else "candidate",
                size_bytes=model.size_bytes,
                size_ratio=model.size_bytes / found[first].size_bytes,
                parameters=model.summary.parameters,
                macs=model.summary.macs,
                evaluations=_evaluations(session, model.id, first),
                measurements=_measurements(session, model.id, first),
            )
            for model in found.values()
        ),
    )


def _evaluations(session: Session, model_id: UUID, baseline_id: UUID) -> tuple[EvaluationEntry, ...]:
    query = select(EvaluationRow).where(EvaluationRow.model_id == model_id, EvaluationRow.baseline_id == baseline_id)
    latest: dict[tuple[UUID, str, str], EvaluationEntry] = {}
    for row in session.scalars(query.order_by(EvaluationRow.id)):
        latest[row.dataset_id, row.split, row.runtime] = EvaluationEntry(
            job_id=row.job_id,
            dataset_id=row.dataset_id,
            split=row.split,
            result=EvaluatedModel.model_validate_json(row.result),
        )
    return tuple(latest.values())


def _measurements(session: Session, model_id: UUID, baseline_id: UUID) -> tuple[MeasurementEntry, ...]:
    query = select(MeasurementRow).where(MeasurementRow.model_id == model_id, MeasurementRow.baseline_id == baseline_id)
    latest: dict[tuple[str, int, int], MeasurementEntry] = {}
    for row in session.scalars(query.order_by(MeasurementRow.id)):
        latest[row.runtime, row.batch_size, row.threads] = MeasurementEntry(
            job_id=row.job_id, result=Measurement.model_validate_json(row.result)
        )
    return tuple(latest.values())


def samples(session: Session, job_id: UUID) -> list[tuple[UUID, str, int, int, str]]:
    """Every sample of a benchmark: model, runtime, batch size, threads, and a JSON text of its rounds."""
    query = select(MeasurementRow).where(MeasurementRow.job_id == job_id).order_by(MeasurementRow.id)
    return [(row.model_id, row.runtime, row.batch_size, row.threads, row.samples) for row in session.scalars(query)]
