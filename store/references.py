"""Which files are still needed."""

from __future__ import annotations

from sqlalchemy import or_, select
from sqlalchemy.orm import Session

from store.tables import CheckpointRow, DatasetRow, JobFileRow, JobRow, ModelRow


def is_referenced(session: Session, sha256: str) -> bool:
    """Whether a model, a dataset, a file of a job, or the checkpoint of one that has not ended, has this content."""
    query = select(
        or_(
            select(ModelRow.id).where(ModelRow.sha256 == sha256).exists(),
            select(DatasetRow.id).where(DatasetRow.sha256 == sha256).exists(),
            select(JobFileRow.name).where(JobFileRow.sha256 == sha256).exists(),
            select(CheckpointRow.job_id)
            .join(JobRow, JobRow.id == CheckpointRow.job_id)
            .where(CheckpointRow.sha256 == sha256, JobRow.finished_at.is_(None))
            .exists(),
        )
    )
    return bool(session.scalar(query))
