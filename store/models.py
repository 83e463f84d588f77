"""Networks that are kept."""

from __future__ import annotations

from uuid import UUID

from sqlalchemy import delete as delete_rows
from sqlalchemy import select
from sqlalchemy.orm import Session

from accel.report import ModelSummary
from store import idempotency, paging
from store.errors import InUse, NotFound
from store.idempotency import IdempotencyKey
from store.ids import new_id
from store.states import JobState
from store.tables import JobRow, ModelRow
from store.values import Model


def register(
    session: Session,
    *,
    name: str,
    sha256: str,
    size_bytes: int,
    summary: ModelSummary,
    idempotency_key: IdempotencyKey | None = None,
) -> tuple[Model, bool]:
    """Keep an uploaded model; content that is known already is not kept twice.

    Returns:
        The model, and whether it is new.

    Raises:
        IdempotencyKeyReused: The key stands for another request.
    """
    known = find(session, sha256)
    if known is None:
        row = ModelRow(id=new_id(), name=name, sha256=sha256, size_bytes=size_bytes, summary=summary.model_dump_json())
        session.add(row)
        session.flush()
        session.refresh(row)
    model = known or Model.of(row)
    idempotency.claim(session, idempotency_key, model.id)
    return model, known is None


def find(session: Session, sha256: str) -> Model | None:
    """The oldest model with this content, or None."""
    row = session.scalar(select(ModelRow).where(ModelRow.sha256 == sha256).order_by(ModelRow.id).limit(1))
    return None if row is None else Model.of(row)


def get(session: Session, model_id: UUID) -> Model:
    """A model.

    Raises:
        NotFound: There is none of this id.
    """
    row = session.get(ModelRow, model_id)
    if row is None:
        raise NotFound("model", model_id)
    return Model.of(row)


def page(session: Session, *, page_size: int, page_token: str | None = None) -> paging.Page[Model]:
    """Models, newest first."""
    return paging.page_of(session, ModelRow, Model.of, page_size=page_size, page_token=page_token)


def delete(session: Session, model_id: UUID) -> None:
    """Forget a model; its file is removed when nothing else needs it.

    Raises:
        NotFound: There is none of this id.
        InUse: A job that is not finished names it.
    """
    get(session, model_id)
    refuse_if_used(session, "model", model_id)
    session.execute(delete_rows(ModelRow).where(ModelRow.id == model_id))


def refuse_if_used(session: Session, kind: str, identity: UUID) -> None:
    """Raise InUse when a job that is not finished names the object."""
    unfinished = (JobState.QUEUED, JobState.RUNNING)
    query = select(JobRow.id).where(JobRow.state.in_(unfinished), JobRow.spec.contains(str(identity))).limit(1)
    job_id = session.scalar(query)
    if job_id is not None:
        raise InUse(
            f"The {kind} {identity} is needed by the job {job_id}.", hint="Wait for its end, or cancel it first."
        )
