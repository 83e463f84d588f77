"""Jobs, seen from the caller: submit, look, cancel, retry."""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import datetime
from uuid import UUID

from sqlalchemy import Double, bindparam, func, select, type_coerce, update
from sqlalchemy.orm import Session

from store import idempotency, paging
from store.checks import check
from store.clock import db_now, iso
from store.errors import IllegalTransition, NotFound
from store.idempotency import IdempotencyKey
from store.ids import new_id
from store.specs import JobSpec
from store.specs import adapter as specs
from store.states import JobState, record, try_advance
from store.tables import JobEventRow, JobRow
from store.values import Job, JobEvent


def submit(
    session: Session,
    spec: JobSpec,
    *,
    max_attempts: int,
    idempotency_key: IdempotencyKey | None = None,
    retry_of: UUID | None = None,
) -> tuple[Job, bool]:
    """Write down a job, its first event and its idempotency key, in the caller's transaction.

    Returns:
        The job, and whether it is new (an idempotency key that was seen gives the job it made).

    Raises:
        StoreError: What :func:`store.checks.check` refuses; ``pointer`` names the field.
        IdempotencyKeyReused: The key stands for another request.
    """
    job_id = new_id()
    before = idempotency.claim(session, idempotency_key, job_id)
    if before != job_id:
        return get(session, before), False
    check(session, spec)
    row = JobRow(
        id=job_id,
        kind=spec.kind,
        state=JobState.QUEUED,
        queue=spec.queue,
        spec=spec.model_dump_json(),
        max_attempts=max_attempts,
        retry_of=retry_of,
        version=1,
        attempt=0,
        progress_done=0,
        phase="",
        progress_message="",
        model_ids="[]",
    )
    session.add(row)
    session.flush()
    record(session, row, "state")
    session.refresh(row)
    return Job.of(row), True


def get(session: Session, job_id: UUID) -> Job:
    """A job.

    Raises:
        NotFound: There is none of this id.
    """
    return Job.of(_row(session, job_id))


def _row(session: Session, job_id: UUID) -> JobRow:
    row = session.get(JobRow, job_id)
    if row is None:
        raise NotFound("job", job_id)
    return row


_DOCUMENT = (
    JobRow.id, JobRow.kind, JobRow.state, JobRow.phase, JobRow.progress_done, JobRow.progress_total,
    JobRow.progress_message, JobRow.spec, JobRow.report, JobRow.error, JobRow.model_ids, JobRow.attempt,
    JobRow.max_attempts, JobRow.retry_of, JobRow.version, JobRow.cancel_requested_at, JobRow.queue,
    JobRow.created_at, JobRow.started_at, JobRow.finished_at, JobRow.worker_id,
)  # fmt: skip


# Built once: callers poll, and building a statement costs as much as running it.
_ONE_DOCUMENT = select(*_DOCUMENT).where(JobRow.id == bindparam("job_id"))


def document(session: Session, job_id: UUID) -> tuple[int, JobState, str] | None:
    """A job as the JSON text that callers see, without reading its spec and report: they are JSON already.

    Returns:
        Version, state and text; None when there is no such job.
    """
    row = session.execute(_ONE_DOCUMENT, {"job_id": job_id}).one_or_none()
    return None if row is None else (row.version, JobState(row.state), _text(row))


def documents(
    session: Session,
    *,
    page_size: int,
    page_token: str | None = None,
    kind: str | None = None,
    state: JobState | None = None,
) -> paging.Page[str]:
    """Jobs as JSON texts, newest first."""
    query = select(*_DOCUMENT).order_by(JobRow.id.desc()).limit(page_size + 1)
    if kind is not None:
        query = query.where(JobRow.kind == kind)
    if state is not None:
        query = query.where(JobRow.state == state)
    if page_token:
        query = query.where(JobRow.id < paging.decode(page_token))
    rows = session.execute(query).all()
    shown = rows[:page_size]
    token = paging.encode(shown[-1].id) if len(rows) > page_size else None
    return paging.Page(tuple(map(_text, shown)), token)


def _text(row: object) -> str:
    quote = json.dumps
    r: JobRow = row  # type: ignore[assignment]  # a result row has the columns of the table as attributes
    total = "null" if r.progress_total is None else str(r.progress_total)
    base = f"/v1/jobs/{r.id}"
    return (
        f'{{"id":"{r.id}","kind":"{r.kind}","state":"{r.state}","phase":{quote(r.phase)},'
        f'"progress":{{"done":{r.progress_done},"total":{total},"message":{quote(r.progress_message)}}},'
        f'"spec":{r.spec},"report":{r.report or "null"},"error":{r.error or "null"},"model_ids":{r.model_ids},'
        f'"attempt":{r.attempt},"max_attempts":{r.max_attempts},"retry_of":{_id(r.retry_of)},'
        f'"cancel_requested":{"false" if r.cancel_requested_at is None else "true"},"queue":"{r.queue}",'
        f'"worker_id":{_id(r.worker_id)},"version":{r.version},"created_at":{_moment(r.created_at)},'
        f'"started_at":{_moment(r.started_at)},"finished_at":{_moment(r.finished_at)},'
        f'"links":{{"self":"{base}","events":"{base}/events","files":"{base}/files","cancel":"{base}/cancel",'
        f'"retry":"{base}/retry"}}}}'
    )


def _id(identity: UUID | None) -> str:
    return "null" if identity is None else f'"{identity}"'


def _moment(moment: datetime | None) -> str:
    return f'"{iso(moment.timestamp())}"' if moment is not None else "null"


def events(session: Session, job_id: UUID, *, after: int) -> list[JobEvent]:
    """The job's events whose number is above ``after``, in order."""
    query = select(JobEventRow).where(JobEventRow.job_id == job_id, JobEventRow.seq > after).order_by(JobEventRow.seq)
    return [JobEvent.of(row) for row in session.scalars(query)]


def versions(session: Session, job_ids: Iterable[UUID]) -> dict[UUID, int]:
    """The present version of each job that exists."""
    rows = session.execute(select(JobRow.id, JobRow.version).where(JobRow.id.in_(list(job_ids))))
    return {row.id: row.version for row in rows}


def counts(session: Session) -> dict[tuple[str, str], int]:
    """How many jobs there are, by queue and state."""
    query = select(JobRow.queue, JobRow.state, func.count()).group_by(JobRow.queue, JobRow.state)
    return {(queue, state): number for queue, state, number in session.execute(query)}


def oldest_queued_s(session: Session) -> float | None:
    """How long the oldest queued job has waited, in seconds; None when the queue is empty."""
    oldest = type_coerce(func.min(JobRow.created_at), Double)
    return session.scalar(select(db_now() - oldest).where(JobRow.state == JobState.QUEUED))


def request_cancel(session: Session, job_id: UUID) -> None:
    """Ask a job to stop: a queued one is cancelled at once, a running one by its worker, a finished one stays as it is.

    Raises:
        NotFound: There is none of this id.
    """
    row = _row(session, job_id)
    if row.state == JobState.QUEUED and try_advance(
        session, job_id, JobState.CANCELLED, cancel_requested_at=db_now(), finished_at=db_now()
    ):
        return
    changed = session.scalar(
        update(JobRow)
        .where(JobRow.id == job_id, JobRow.state == JobState.RUNNING, JobRow.cancel_requested_at.is_(None))
        .values(cancel_requested_at=db_now(), version=JobRow.version + 1, progress_message="cancelling")
        .returning(JobRow)
        .execution_options(populate_existing=True, synchronize_session=False)
    )
    if changed is not None:
        record(session, changed, "progress")


def retry(
    session: Session, job_id: UUID, *, max_attempts: int, idempotency_key: IdempotencyKey | None = None
) -> tuple[Job, bool]:
    """Ask for the same work again, as a new job.

    Raises:
        NotFound: There is none of this id.
        IllegalTransition: The job is not finished.
    """
    row = _row(session, job_id)
    if not JobState(row.state).terminal:
        raise IllegalTransition(f"The job {job_id} is {row.state}; only a finished job can be retried.")
    spec = specs.validate_json(row.spec)
    return submit(session, spec, max_attempts=max_attempts, idempotency_key=idempotency_key, retry_of=job_id)
