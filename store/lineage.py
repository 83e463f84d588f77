"""Where models come from: their ancestors, and what made each of its parent."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any
from uuid import UUID

from pydantic import BaseModel, ConfigDict, ValidationError
from sqlalchemy import select
from sqlalchemy.orm import Session

from store.tables import JobRow, ModelRow


class Ancestor(BaseModel):
    """A model on the way to another, and the technique that made it of its parent."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model_id: UUID
    name: str
    technique: str | None = None
    """None where it was uploaded; the kind of the job where its report names no technique."""
    parameters: dict[str, Any] = {}


class _Step(BaseModel):
    """What is needed of a step's report, whatever else is in it."""

    model_id: str
    technique: str
    parameters: dict[str, Any] = {}


class _Recipe(BaseModel):
    steps: tuple[_Step, ...] = ()


def lineages(session: Session, model_ids: Collection[UUID]) -> dict[UUID, tuple[Ancestor, ...]]:
    """For each model its line from the oldest ancestor that is still kept to itself."""
    rows: dict[UUID, Any] = {}
    wanted = set(model_ids)
    while wanted:
        columns = (ModelRow.id, ModelRow.name, ModelRow.parent_id, ModelRow.job_id)
        found = session.execute(select(*columns).where(ModelRow.id.in_(wanted))).all()
        rows |= {row.id: row for row in found}
        wanted = {row.parent_id for row in found if row.parent_id is not None} - rows.keys()
    made = _made(session, {row.job_id for row in rows.values() if row.job_id is not None})
    return {identity: _line(identity, rows, made) for identity in model_ids if identity in rows}


def _line(
    identity: UUID, rows: Mapping[UUID, Any], made: Mapping[UUID, tuple[str, dict[str, _Step]]]
) -> tuple[Ancestor, ...]:
    line: list[Ancestor] = []
    at: UUID | None = identity
    while at is not None and at in rows:
        row = rows[at]
        kind, steps = made.get(row.job_id, (None, {}))
        step = steps.get(str(row.id))
        line.append(
            Ancestor(
                model_id=row.id,
                name=row.name,
                technique=step.technique if step else kind,
                parameters=step.parameters if step else {},
            )
        )
        at = row.parent_id
    return tuple(reversed(line))


def _made(session: Session, job_ids: Collection[UUID]) -> dict[UUID, tuple[str, dict[str, _Step]]]:
    """Kind of each job, and what its report says of each model that it made."""
    found = {}
    for row in session.execute(select(JobRow.id, JobRow.kind, JobRow.report).where(JobRow.id.in_(job_ids))):
        try:
            recipe = _Recipe.model_validate_json(row.report or "{}")
        except ValidationError:  # of another version: that the job made it is known all the same
            recipe = _Recipe()
        found[row.id] = (row.kind, {step.model_id: step for step in recipe.steps})
    return found
