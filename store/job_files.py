"""Files that belong to the reports of jobs: predictions, samples, traces."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.orm import Session

from store.errors import NotFound
from store.tables import JobFileRow, JobRow


@dataclass(frozen=True, slots=True)
class JobFile:
    """A file of a job; its bytes are kept by their hash."""

    name: str
    media_type: str
    sha256: str
    size_bytes: int


def of_job(session: Session, job_id: UUID) -> tuple[JobFile, ...]:
    """The files of a job, by name.

    Raises:
        NotFound: There is no such job.
    """
    if session.scalar(select(JobRow.id).where(JobRow.id == job_id)) is None:
        raise NotFound("job", job_id)
    rows = session.scalars(select(JobFileRow).where(JobFileRow.job_id == job_id).order_by(JobFileRow.name))
    return tuple(map(_file, rows))


def get(session: Session, job_id: UUID, name: str) -> JobFile:
    """A file of a job.

    Raises:
        NotFound: There is no such job, or it has no such file.
    """
    row = session.get(JobFileRow, (job_id, name))
    if row is None:
        if session.scalar(select(JobRow.id).where(JobRow.id == job_id)) is None:
            raise NotFound("job", job_id)
        raise NotFound("file", name, hint=f"GET /v1/jobs/{job_id}/files lists the files of the job.")
    return _file(row)


def keep(session: Session, job_id: UUID, files: tuple[JobFile, ...]) -> None:
    """Write down the files of a job, in the transaction that writes its report."""
    for file in files:
        session.add(
            JobFileRow(
                job_id=job_id,
                name=file.name,
                media_type=file.media_type,
                sha256=file.sha256,
                size_bytes=file.size_bytes,
            )
        )


def _file(row: JobFileRow) -> JobFile:
    return JobFile(row.name, row.media_type, row.sha256, row.size_bytes)
