"""How far a job got, in a file that its next attempt goes on from."""

from __future__ import annotations

from uuid import UUID

from sqlalchemy import select
from sqlalchemy.orm import Session

from store.errors import Fenced
from store.tables import CheckpointRow, JobRow


def keep(session: Session, job_id: UUID, token: UUID, sha256: str) -> None:
    """Write down a job's latest checkpoint, whose file is kept already, in place of the one before.

    Args:
        session: A writing transaction.
        job_id: The job.
        token: Of the lease under which it was made.
        sha256: Of the file.

    Raises:
        Fenced: The lease was lost.
    """
    held = select(JobRow.id).where(JobRow.id == job_id, JobRow.lease_token == token).with_for_update()
    if session.scalar(held) is None:
        raise Fenced(f"The lease on the job {job_id} was lost.")
    session.merge(CheckpointRow(job_id=job_id, sha256=sha256))


def latest(session: Session, job_id: UUID) -> str | None:
    """SHA-256 of a job's latest checkpoint; None where it made none yet."""
    return session.scalar(select(CheckpointRow.sha256).where(CheckpointRow.job_id == job_id))
