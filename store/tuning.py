"""By which rows choices about models were made, so that no verdict is judged on these without saying so."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any
from uuid import UUID

from pydantic import BaseModel, ValidationError
from sqlalchemy import select
from sqlalchemy.orm import Session

from store.specs import CompressSpec, TrainSpec
from store.specs import adapter as specs
from store.tables import JobRow, ModelRow


class _Step(BaseModel):
    model_id: str


class _Splits(BaseModel):
    chosen_by: str | None = None


class _Recipe(BaseModel):
    """What is needed of a compress job's report, whatever else is in it."""

    steps: tuple[_Step, ...] = ()
    splits: _Splits | None = None


class _Training(BaseModel):
    """What is needed of a training job's report."""

    model_id: str
    trained_on: str
    validated_on: str | None


def tuned_on(session: Session, model_ids: Collection[UUID], dataset_id: UUID) -> dict[UUID, tuple[str, ...]]:
    """For each model the splits of a dataset that it, or an ancestor of it, was trained on or chosen by."""
    rows: dict[UUID, Any] = {}
    wanted = set(model_ids)
    while wanted:
        columns = (ModelRow.id, ModelRow.parent_id, ModelRow.job_id)
        found = session.execute(select(*columns).where(ModelRow.id.in_(wanted))).all()
        rows |= {row.id: row for row in found}
        wanted = {row.parent_id for row in found if row.parent_id is not None} - rows.keys()
    chosen = _chosen(session, {row.job_id for row in rows.values() if row.job_id is not None}, dataset_id)
    tuned: dict[UUID, tuple[str, ...]] = {}
    for model_id in model_ids:
        splits: set[str] = set()
        at: UUID | None = model_id
        while at is not None and at in rows:
            splits |= chosen.get(str(at), set())
            at = rows[at].parent_id
        tuned[model_id] = tuple(sorted(splits))
    return tuned


def _chosen(session: Session, job_ids: Collection[UUID], dataset_id: UUID) -> dict[str, set[str]]:
    """The splits that were trained on or chosen by, for each model that some jobs made."""
    found: dict[str, set[str]] = {}
    query = select(JobRow.spec, JobRow.report).where(JobRow.id.in_(job_ids), JobRow.kind.in_(("compress", "train")))
    for row in session.execute(query):
        try:
            spec = specs.validate_json(row.spec)
            if row.report is None or not isinstance(spec, CompressSpec | TrainSpec) or spec.dataset_id != dataset_id:
                continue
            found |= _of_recipe(spec, row.report) if isinstance(spec, CompressSpec) else _of_training(row.report)
        except ValidationError:  # of another version, which did not write down by what it chose
            continue
    return found


def _of_recipe(spec: CompressSpec, report: str) -> dict[str, set[str]]:
    recipe = _Recipe.model_validate_json(report)
    split = None if recipe.splits is None else recipe.splits.chosen_by
    made = zip(spec.steps, recipe.steps, strict=False)
    return {} if split is None else {result.model_id: {split} for step, result in made if step.chooses}


def _of_training(report: str) -> dict[str, set[str]]:
    training = _Training.model_validate_json(report)
    return {training.model_id: {training.trained_on} | ({training.validated_on} if training.validated_on else set())}
