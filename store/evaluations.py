"""What evaluations asked of models, and where their predictions are kept."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection
from typing import Any
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.orm import Session, aliased

from store.errors import NotFound, UnfitReference
from store.specs import EvaluateSpec
from store.tables import DatasetRow, EvaluationRow, ModelRow


def question(session: Session, spec: EvaluateSpec) -> str:
    """A hash that is equal where models are asked the same: rows of the same content, fed, run, read and judged alike.

    Raises:
        NotFound: The dataset is gone.
    """
    dataset = session.get(DatasetRow, spec.dataset_id)
    if dataset is None:
        raise NotFound("dataset", spec.dataset_id)
    # Groups only widen intervals. Batches may change what is said of a row: the engine looks at them itself.
    binding = (
        {} if spec.binding is None else spec.binding.model_dump(mode="json", exclude={"group"}, exclude_defaults=True)
    )
    asked = {
        "dataset": dataset.sha256,
        "dataset_spec": dataset.spec,
        "split": spec.split,
        "binding": binding,
        "runtime": spec.runtime,
    }
    return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()


def kept_predictions(session: Session, asked: str, model_ids: Collection[UUID]) -> dict[UUID, str]:
    """For each model that was asked this before, the hash of the newest file with what it predicted.

    A model with the same content counts as the same model.
    """
    wanted, evaluated = aliased(ModelRow), aliased(ModelRow)
    query = (
        select(wanted.id, EvaluationRow.predictions_sha256)
        .join(evaluated, evaluated.sha256 == wanted.sha256)
        .join(EvaluationRow, EvaluationRow.model_id == evaluated.id)
        .where(
            wanted.id.in_(model_ids),
            EvaluationRow.question == asked,
            EvaluationRow.predictions_sha256.is_not(None),
        )
        .order_by(EvaluationRow.id)  # later ones take the place of earlier ones
    )
    return {model_id: sha256 for model_id, sha256 in session.execute(query) if sha256 is not None}


def check_baseline(session: Session, spec: EvaluateSpec) -> None:
    """Refuse a baseline outside of ``model_ids`` that was never asked what these models are to be asked.

    Raises:
        UnfitReference: Says where it was evaluated.
    """
    baseline_id = spec.baseline_id
    if baseline_id is None or baseline_id in spec.model_ids:
        return
    if kept_predictions(session, question(session, spec), [baseline_id]):
        return
    raise UnfitReference(
        _where(session, spec, baseline_id),
        hint="Add it to model_ids, so that it is evaluated here too.",
        pointer="/baseline_id",
    )


def _where(session: Session, spec: EvaluateSpec, baseline_id: UUID) -> str:
    evaluated, wanted = aliased(ModelRow), aliased(ModelRow)
    row = EvaluationRow
    query = (
        select(row.job_id, row.dataset_id, row.split, row.runtime)
        .join(evaluated, row.model_id == evaluated.id)
        .join(wanted, wanted.sha256 == evaluated.sha256)
        .where(wanted.id == baseline_id, row.predictions_sha256.is_not(None))
        .order_by(row.id.desc())
    )
    found = session.execute(query).all()
    if not found:
        return f"The baseline {baseline_id} is none of model_ids, and no evaluation of it is kept."

    def likeness(one: Any) -> tuple[bool, bool, bool]:
        same = one.dataset_id == spec.dataset_id, one.split == spec.split, one.runtime == spec.runtime
        return same[0], same[0] and same[1], same[0] and same[1] and same[2]

    near = max(found, key=likeness)  # of equals the first, which is the newest
    there = f"The baseline {baseline_id} was evaluated on the split {near.split!r} of the dataset {near.dataset_id}"
    if (near.dataset_id, near.split) != (spec.dataset_id, spec.split):
        of = "it" if near.dataset_id == spec.dataset_id else f"the dataset {spec.dataset_id}"
        return f"{there} (job {near.job_id}), not on {spec.split!r} of {of}."
    if near.runtime != spec.runtime:
        return f"{there} by {near.runtime} (job {near.job_id}), not by {spec.runtime}."
    return f"{there} with another binding (job {near.job_id})."
