"""What was measured of models: the newest evaluations and measurements that may be shown together."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Hashable, Iterable, Sequence
from typing import Any, Final, Protocol, TypeVar
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from sqlalchemy import select
from sqlalchemy.orm import InstrumentedAttribute, Session

from accel.report import EvaluatedModel, Measurement
from store.errors import NotFound
from store.evaluations import question
from store.specs import EvaluateSpec
from store.specs import adapter as specs
from store.tables import DatasetRow, EvaluationRow, JobRow, MeasurementRow

_LOOKED_AT: Final = 8
"""So many of the newest measurements of a model in one setting are looked at, to find one of each environment."""


class _Value(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class EvaluationEntry(_Value):
    """A model's quality, and the job that measured it."""

    job_id: UUID
    baseline_id: UUID
    dataset_id: UUID
    dataset_name: str | None = Field(description="None where the dataset was deleted.")
    split: str
    question: str = Field(
        description="Equal where the same samples were fed, read and judged alike, in whatever runtime."
    )
    result: EvaluatedModel


class MeasurementEntry(_Value):
    """A model's speed, and the job that measured it."""

    job_id: UUID
    baseline_id: UUID
    environment: str = Field(description="Equal where figures may be put side by side.")
    result: Measurement


class Found(_Value):
    """Figures of models, each with its model, and the jobs whose figures nobody can read any more."""

    evaluations: tuple[tuple[UUID, EvaluationEntry], ...]
    measurements: tuple[tuple[UUID, MeasurementEntry], ...]
    unreadable_jobs: tuple[UUID, ...]


def find(session: Session, model_ids: Sequence[UUID], baseline_id: UUID) -> Found:
    """For each model the newest figure of each dataset, split, runtime, setting and environment.

    Figures of a job that had the baseline go before newer ones without it. An older environment (or another way to judge the
    same split) is left out where newer ones have all of its models.

    Args:
        session: A reading transaction.
        model_ids: The models.
        baseline_id: What they are compared with.
    """
    unreadable: dict[UUID, None] = {}
    evaluations = _evaluations(session, model_ids, baseline_id, unreadable)
    measurements = _measurements(session, model_ids, baseline_id, unreadable)
    return Found(evaluations=tuple(evaluations), measurements=tuple(measurements), unreadable_jobs=tuple(unreadable))


class _Kept(Protocol):
    @property
    def model_id(self) -> UUID: ...


_K = TypeVar("_K", bound=_Kept)


def _current(newest_first: Iterable[tuple[Hashable, Hashable, _K]]) -> list[_K]:
    """Of each setting and variant, what variants hold that have a model which newer variants lack.

    Args:
        newest_first: Setting, variant (environment, or way to judge) and what is kept, one for each model.
    """
    settings: dict[Hashable, dict[Hashable, list[_K]]] = {}
    for setting, variant, kept in newest_first:
        settings.setdefault(setting, {}).setdefault(variant, []).append(kept)
    shown: list[_K] = []
    for variants in settings.values():
        covered: set[UUID] = set()
        for group in variants.values():
            there = {one.model_id for one in group}
            if there - covered:
                shown += group
            covered |= there
    return shown


def _evaluations(
    session: Session, order: Sequence[UUID], baseline_id: UUID, unreadable: dict[UUID, None]
) -> list[tuple[UUID, EvaluationEntry]]:
    row = EvaluationRow
    columns = (row.id, row.job_id, row.model_id, row.baseline_id, row.dataset_id, row.split, row.runtime, row.question)
    query = select(*columns).where(row.model_id.in_(order)).order_by(row.id.desc())
    chosen: dict[Hashable, Any] = {}
    for one in _with_baseline_first(session.execute(query).all(), baseline_id):
        chosen.setdefault((one.model_id, one.dataset_id, one.split, one.runtime, one.question), one)
    newest = sorted(chosen.values(), key=lambda one: one.id, reverse=True)
    shown = _current(((one.dataset_id, one.split, one.runtime), one.question, one) for one in newest)
    results = _texts(session, row.id, row.result, {one.id for one in shown})
    names = _texts(session, DatasetRow.id, DatasetRow.name, {one.dataset_id for one in shown})
    asked = _questions(session, {one.job_id for one in shown})
    entries = []
    for one in shown:
        result = _read(EvaluatedModel, results[one.id], one.job_id, unreadable)
        if result is not None:
            entry = EvaluationEntry(
                job_id=one.job_id,
                baseline_id=one.baseline_id,
                dataset_id=one.dataset_id,
                dataset_name=names.get(one.dataset_id),
                split=one.split,
                question=asked.get(one.job_id, one.question),
                result=result,
            )
            entries.append((one.model_id, entry))
    return entries


def _questions(session: Session, job_ids: Collection[UUID]) -> dict[UUID, str]:
    """What each job asked, whatever the runtime: models may be asked the same in two of them."""
    found = {}
    for row in session.execute(select(JobRow.id, JobRow.spec).where(JobRow.id.in_(job_ids))):
        with contextlib.suppress(ValidationError, NotFound):  # of another version, or its dataset was deleted
            spec = specs.validate_json(row.spec)
            if isinstance(spec, EvaluateSpec):
                found[row.id] = question(session, spec.model_copy(update={"runtime": ""}))
    return found


def _measurements(
    session: Session, order: Sequence[UUID], baseline_id: UUID, unreadable: dict[UUID, None]
) -> list[tuple[UUID, MeasurementEntry]]:
    row = MeasurementRow
    query = select(
        row.id, row.job_id, row.model_id, row.baseline_id, row.runtime, row.scenario, row.batch_size, row.threads,
        row.instances,
    )  # fmt: skip
    settings: dict[tuple[Any, ...], list[Any]] = {}
    found = session.execute(query.where(row.model_id.in_(order)).order_by(row.id.desc())).all()
    for one in _with_baseline_first(found, baseline_id):
        setting = (one.model_id, one.runtime, one.scenario, one.batch_size, one.threads, one.instances)
        settings.setdefault(setting, []).append(one)
    looked_at = {one.id for group in settings.values() for one in group[:_LOOKED_AT]}
    results = _texts(session, row.id, row.result, looked_at)
    chosen: list[_Measured] = []
    for setting, group in settings.items():
        chosen += _of_each_environment(setting, [(one, results[one.id]) for one in group[:_LOOKED_AT]], unreadable)
    chosen.sort(key=lambda one: one.id, reverse=True)
    return [(one.model_id, one.entry) for one in _current((m.setting, m.entry.environment, m) for m in chosen)]


def _of_each_environment(
    setting: tuple[Any, ...], group: Sequence[tuple[Any, str]], unreadable: dict[UUID, None]
) -> list[_Measured]:
    chosen: dict[Hashable, _Measured] = {}
    failed: dict[UUID, None] = {}
    for one, text in group:
        result = _read(Measurement, text, one.job_id, failed)
        if result is None:
            continue
        # Where the environment is not known, figures of different jobs are not known to be comparable.
        environment = result.environment or f"job {one.job_id}"
        bound_ms = result.server.bound_ms if result.server is not None else None
        measured = _Measured(
            id=one.id,
            model_id=one.model_id,
            setting=(*setting[1:], bound_ms),
            entry=MeasurementEntry(
                job_id=one.job_id, baseline_id=one.baseline_id, environment=environment, result=result
            ),
        )
        chosen.setdefault((environment, bound_ms), measured)
    if not chosen:
        unreadable |= failed
    return list(chosen.values())


class _Measured(_Value):
    id: UUID
    model_id: UUID
    setting: tuple[Any, ...]
    entry: MeasurementEntry


def _with_baseline_first(newest_first: Sequence[Any], baseline_id: UUID) -> list[Any]:
    # The sort is stable: of those with the baseline the newest comes first, and after them the newest of the rest.
    return sorted(newest_first, key=lambda one: one.baseline_id != baseline_id)


def _texts(
    session: Session, key: InstrumentedAttribute[UUID], text: InstrumentedAttribute[str], keys: Collection[UUID]
) -> dict[UUID, str]:
    return {row[0]: row[1] for row in session.execute(select(key, text).where(key.in_(keys)))}


_V = TypeVar("_V", EvaluatedModel, Measurement)


def _read(kind: type[_V], text: str, job_id: UUID, unreadable: dict[UUID, None]) -> _V | None:
    try:
        return kind.model_validate_json(text)
    except ValidationError:  # written by another version; one old row must not hide all others
        unreadable[job_id] = None
        return None
