"""Which files are still needed."""

from __future__ import annotations

from sqlalchemy import or_, select
from sqlalchemy.orm import Session

from store.tables import DatasetRow, JobFileRow, ModelRow


def is_referenced(session: Session, sha256: str) -> bool:
    """Whether a model, a dataset or a file of a job has this content."""
    query = select(
        or_(
            select(ModelRow.id).where(ModelRow.sha256 == sha256).exists(),
            select(DatasetRow.id).where(DatasetRow.sha256 == sha256).exists(),
            select(JobFileRow.name).where(JobFileRow.sha256 == sha256).exists(),
        )
    )
    return bool(session.scalar(query))
