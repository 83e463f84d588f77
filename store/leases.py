"""A worker's right to a job: claimed once, renewed while it works, given back or ended. Judged by database time."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from accel.report import BenchmarkReport, CompressReport, EvaluateReport, ModelSummary, TrainReport
from store import job_files
from store.clock import db_now
from store.errors import Fenced
from store.evaluations import question
from store.ids import new_id
from store.job_files import JobFile
from store.specs import EvaluateSpec, JobSpec
from store.specs import adapter as specs
from store.states import JobState, advance, record, try_advance
from store.tables import EvaluationRow, JobRow, MeasurementRow, ModelRow
from store.values import JobProgress


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to one attempt at a job."""

    job_id: UUID
    token: UUID
    attempt: int
    spec: JobSpec


@dataclass(frozen=True, slots=True)
class Renewal:
    """What a worker learns when it renews: whether the caller wants the job to stop, and whether it is late."""

    cancel_requested: bool
    late: bool


@dataclass(frozen=True, slots=True)
class NewModel:
    """A model that a job made; its file is kept already."""

    id: UUID
    parent_id: UUID | None
    name: str
    sha256: str
    size_bytes: int
    summary: ModelSummary


@dataclass(frozen=True, slots=True)
class Results:
    """What a job gave."""

    report: CompressReport | EvaluateReport | BenchmarkReport | TrainReport
    models: tuple[NewModel, ...] = ()
    files: tuple[JobFile, ...] = ()


def claim(session: Session, job_id: UUID, *, worker_id: UUID, lease_s: float) -> Lease | None:
    """Take a queued job, or None when it is not queued (any more): then the message was a duplicate."""
    token = new_id()
    # The deadline counts from the start of the attempt: waiting in the queue is not the job's fault.
    spec_row = session.execute(select(JobRow.spec).where(JobRow.id == job_id)).one_or_none()
    if spec_row is None:
        return None
    spec = specs.validate_json(spec_row.spec)
    row = try_advance(
        session,
        job_id,
        JobState.RUNNING,
        lease_token=token,
        attempt=JobRow.attempt + 1,
        worker_id=worker_id,
        lease_until=db_now() + lease_s,
        deadline_at=db_now() + spec.deadline_seconds,
        started_at=db_now(),
        phase="starting",
        progress_done=0,
        progress_total=None,
        progress_message="",
    )
    return None if row is None else Lease(job_id, token, row.attempt, spec)


def renew(
    session: Session, lease: Lease, *, lease_s: float, phase: str | None = None, progress: JobProgress | None = None
) -> Renewal:
    """Hold on to a job, and say how far it is.

    Raises:
        Fenced: The lease was lost.
    """
    row = session.execute(
        update(JobRow)
        .where(JobRow.id == lease.job_id, JobRow.lease_token == lease.token, JobRow.state == JobState.RUNNING)
        .values(lease_until=db_now() + lease_s)
        .returning(JobRow.cancel_requested_at, (JobRow.deadline_at < db_now()).label("late"))
        .execution_options(synchronize_session=False)
    ).one_or_none()
    if row is None:
        raise Fenced(f"The lease on the job {lease.job_id} was lost.")
    if phase is not None and progress is not None:
        _report_progress(session, lease, phase, progress)
    return Renewal(row.cancel_requested_at is not None, bool(row.late))


def _report_progress(session: Session, lease: Lease, phase: str, progress: JobProgress) -> None:
    changed = session.scalar(
        update(JobRow)
        .where(JobRow.id == lease.job_id, JobRow.lease_token == lease.token)
        .values(
            phase=phase,
            progress_done=progress.done,
            progress_total=progress.total,
            progress_message=progress.message,
            version=JobRow.version + 1,
        )
        .returning(JobRow)
        .execution_options(populate_existing=True, synchronize_session=False)
    )
    if changed is not None:
        record(session, changed, "progress")


_ENDED = {"lease_token": None, "lease_until": None, "progress_message": ""}


def finish(session: Session, lease: Lease, results: Results) -> None:
    """Keep what a job gave and mark it succeeded, all or nothing.

    Raises:
        Fenced: The lease was lost; nothing is kept.
    """
    _end(
        session,
        lease,
        JobState.SUCCEEDED,
        results.models,
        results.files,
        report=results.report.model_dump_json(),
        phase="done",
        progress_done=1,
        progress_total=1,
    )
    match results.report:
        case EvaluateReport() as report:
            _keep_evaluations(session, lease, report, {file.name: file.sha256 for file in results.files})
        case BenchmarkReport() as report:
            _keep_measurements(session, lease, report)
        case CompressReport() | TrainReport():
            pass


def _keep_evaluations(session: Session, lease: Lease, report: EvaluateReport, files: Mapping[str, str]) -> None:
    if not isinstance(lease.spec, EvaluateSpec):
        raise TypeError(f"an evaluation came from a job of kind {lease.spec.kind}")
    asked = question(session, lease.spec)
    for model in report.models:
        session.add(
            EvaluationRow(
                id=new_id(),
                job_id=lease.job_id,
                model_id=UUID(model.model_id),
                baseline_id=UUID(report.baseline_id),
                dataset_id=lease.spec.dataset_id,
                split=report.split,
                runtime=model.runtime,
                question=asked,
                predictions_sha256=files.get(model.predictions or ""),
                result=model.model_dump_json(),
            )
        )


def _keep_measurements(session: Session, lease: Lease, report: BenchmarkReport) -> None:
    for measurement in report.measurements:
        session.add(
            MeasurementRow(
                id=new_id(),
                job_id=lease.job_id,
                model_id=UUID(measurement.model_id),
                baseline_id=UUID(report.baseline_id),
                runtime=measurement.runtime,
                scenario=measurement.scenario,
                batch_size=measurement.batch_size,
                threads=measurement.threads,
                instances=measurement.instances,
                result=measurement.model_dump_json(),
            )
        )


def fail(
    session: Session, lease: Lease, *, code: str, message: str, hint: str = "", models: tuple[NewModel, ...] = ()
) -> None:
    """Mark a job failed.

    Args:
        session: A writing transaction.
        lease: The lease that ends.
        code: Stable code of the error.
        message: What happened.
        hint: What would help.
        models: What was made of use before it failed.

    Raises:
        Fenced: The lease was lost.
    """
    _end(session, lease, JobState.FAILED, models, error=_error(code, message, hint))


def cancelled(session: Session, lease: Lease, results: Results | None = None) -> None:
    """Mark a job cancelled, as its caller asked, and keep what it gave until then where it was to be kept.

    Raises:
        Fenced: The lease was lost.
    """
    if results is None:
        _end(session, lease, JobState.CANCELLED)
    else:
        report = results.report.model_dump_json()
        _end(session, lease, JobState.CANCELLED, results.models, results.files, report=report)


def _end(
    session: Session,
    lease: Lease,
    to: JobState,
    models: tuple[NewModel, ...] = (),
    files: tuple[JobFile, ...] = (),
    **fields: object,
) -> None:
    fields |= {"model_ids": json.dumps([str(model.id) for model in models]), "finished_at": db_now()}
    advance(session, lease.job_id, to, guard=lease.token, **{**_ENDED, **fields})
    for model in models:
        session.add(
            ModelRow(
                id=model.id,
                name=model.name,
                sha256=model.sha256,
                size_bytes=model.size_bytes,
                summary=model.summary.model_dump_json(),
                parent_id=model.parent_id,
                job_id=lease.job_id,
            )
        )
        session.flush()  # a step's result is the parent of the next, so each must be there first
    job_files.keep(session, lease.job_id, files)


def give_back(session: Session, lease: Lease, *, count_attempt: bool, code: str, reason: str) -> JobState:
    """Put a job back into the queue because its engine or worker ended; at the cap it fails instead.

    Args:
        session: A writing transaction.
        lease: The lease that ends.
        count_attempt: Whether the attempt counts: not when the worker was told to stop.
        code: Error code of the failure at the cap.
        reason: What happened.

    Returns:
        The job's new state.

    Raises:
        Fenced: The lease was lost.
    """
    row = session.execute(
        select(JobRow.attempt, JobRow.max_attempts, JobRow.cancel_requested_at).where(
            JobRow.id == lease.job_id, JobRow.lease_token == lease.token
        )
    ).one_or_none()
    if row is None:
        raise Fenced(f"The lease on the job {lease.job_id} was lost.")
    if row.cancel_requested_at is not None:
        cancelled(session, lease)
        return JobState.CANCELLED
    if count_attempt and row.attempt >= row.max_attempts:
        hint = "It happened at every attempt, so the model or its size is the likely cause; see the worker's log."
        fail(session, lease, code=code, message=f"{reason} ({row.attempt} attempts).", hint=hint)
        return JobState.FAILED
    attempt = row.attempt if count_attempt else row.attempt - 1
    _requeue(session, lease.job_id, lease.token, attempt=attempt, reason=reason)
    return JobState.QUEUED


def _requeue(session: Session, job_id: UUID, token: UUID, *, attempt: int, reason: str) -> None:
    advance(
        session,
        job_id,
        JobState.QUEUED,
        guard=token,
        **{**_ENDED, "progress_message": reason},
        attempt=attempt,
        worker_id=None,
        dispatched_at=None,
        deadline_at=None,
        phase="requeued",
    )


def reap(session: Session, *, limit: int = 100) -> list[UUID]:
    """End the leases that have lapsed: their jobs go back to the queue, or fail at the cap.

    Returns:
        The jobs concerned.
    """
    lapsed = session.execute(
        select(JobRow.id, JobRow.lease_token, JobRow.attempt, JobRow.spec)
        .where(JobRow.state == JobState.RUNNING, JobRow.lease_until < db_now())
        .order_by(JobRow.lease_until)
        .limit(limit)
        .with_for_update(skip_locked=True)
    ).all()
    for row in lapsed:
        lease = Lease(row.id, row.lease_token, row.attempt, specs.validate_json(row.spec))
        give_back(
            session,
            lease,
            count_attempt=True,
            code="worker_lost",
            reason="The worker was lost: it did not renew its lease",
        )
    return [row.id for row in lapsed]


def _error(code: str, message: str, hint: str) -> str:
    return json.dumps({"code": code, "message": message, "hint": hint})
