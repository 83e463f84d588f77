"""The states of a job, and the one function that moves it."""

from __future__ import annotations

import json
from enum import StrEnum
from uuid import UUID

from sqlalchemy import insert, update
from sqlalchemy.orm import Session

from store.errors import Fenced, IllegalTransition
from store.tables import JobEventRow, JobRow


class JobState(StrEnum):
    """Where a job stands."""

    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def terminal(self) -> bool:
        """Whether it stays so for ever."""
        return not MOVES[self]


MOVES: dict[JobState, frozenset[JobState]] = {
    JobState.QUEUED: frozenset({JobState.RUNNING, JobState.FAILED, JobState.CANCELLED}),
    # Back to the queue when its worker or engine died, or its worker was stopped.
    JobState.RUNNING: frozenset({JobState.QUEUED, JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED}),
    JobState.SUCCEEDED: frozenset(),
    JobState.FAILED: frozenset(),
    JobState.CANCELLED: frozenset(),
}


def advance(session: Session, job_id: UUID, to: JobState, *, guard: UUID | None = None, **fields: object) -> JobRow:
    """Move a job, if its present state allows it and the lease, where one is given, still holds.

    One guarded UPDATE: of two processes that try, exactly one succeeds.

    Args:
        session: A writing transaction; the move is part of it.
        job_id: The job.
        to: The new state.
        guard: Token of the lease under which the move is made.
        fields: Other columns to set.

    Returns:
        The row after the move.

    Raises:
        IllegalTransition: The state does not allow it.
        Fenced: The lease was lost.
    """
    moved = try_advance(session, job_id, to, guard=guard, **fields)
    if moved is not None:
        return moved
    if guard is not None:
        raise Fenced(f"The lease on the job {job_id} was lost.")
    raise IllegalTransition(f"The job {job_id} cannot become {to}: its state does not allow it.")


def try_advance(
    session: Session, job_id: UUID, to: JobState, *, guard: UUID | None = None, **fields: object
) -> JobRow | None:
    """Like :func:`advance`; None where that would raise."""
    allowed = [state for state, following in MOVES.items() if to in following]
    statement = update(JobRow).where(JobRow.id == job_id, JobRow.state.in_(allowed))
    if guard is not None:
        statement = statement.where(JobRow.lease_token == guard)
    row = session.scalar(
        statement.values(state=to, version=JobRow.version + 1, **fields)
        .returning(JobRow)
        .execution_options(populate_existing=True, synchronize_session=False)
    )
    if row is not None:
        record(session, row, "state")
    return row


def record(session: Session, row: JobRow, kind: str) -> None:
    """Write the event of a change; its number is the job's version."""
    data = {
        "state": row.state,
        "phase": row.phase,
        "progress": {"done": row.progress_done, "total": row.progress_total, "message": row.progress_message},
        "attempt": row.attempt,
    }
    if row.error is not None and row.state == JobState.FAILED:
        data["error"] = json.loads(row.error)
    session.execute(insert(JobEventRow).values(job_id=row.id, seq=row.version, type=kind, data=json.dumps(data)))
