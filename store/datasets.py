"""Datasets that are kept."""

from __future__ import annotations

from uuid import UUID

from sqlalchemy import delete as delete_rows
from sqlalchemy import select
from sqlalchemy.orm import Session

from accel.data.spec import DatasetSpec
from accel.report import DatasetSummary
from store import idempotency, paging
from store.errors import NotFound
from store.idempotency import IdempotencyKey
from store.ids import new_id
from store.models import refuse_if_used
from store.tables import DatasetRow
from store.values import Dataset


def register(
    session: Session,
    *,
    name: str,
    sha256: str,
    size_bytes: int,
    spec: DatasetSpec,
    summary: DatasetSummary,
    idempotency_key: IdempotencyKey | None = None,
) -> tuple[Dataset, bool]:
    """Keep an uploaded dataset; the same content with the same spec is not kept twice.

    Returns:
        The dataset, and whether it is new.

    Raises:
        IdempotencyKeyReused: The key stands for another request.
    """
    known = find(session, sha256, spec)
    if known is None:
        row = DatasetRow(
            id=new_id(),
            name=name,
            sha256=sha256,
            size_bytes=size_bytes,
            spec=spec.model_dump_json(),
            summary=summary.model_dump_json(),
        )
        session.add(row)
        session.flush()
        session.refresh(row)
    dataset = known or Dataset.of(row)
    idempotency.claim(session, idempotency_key, dataset.id)
    return dataset, known is None


def find(session: Session, sha256: str, spec: DatasetSpec) -> Dataset | None:
    """The oldest dataset with this content and spec, or None."""
    query = select(DatasetRow).where(DatasetRow.sha256 == sha256, DatasetRow.spec == spec.model_dump_json())
    row = session.scalar(query.order_by(DatasetRow.id).limit(1))
    return None if row is None else Dataset.of(row)


def get(session: Session, dataset_id: UUID) -> Dataset:
    """A dataset.

    Raises:
        NotFound: There is none of this id.
    """
    row = session.get(DatasetRow, dataset_id)
    if row is None:
        raise NotFound("dataset", dataset_id)
    return Dataset.of(row)


def page(session: Session, *, page_size: int, page_token: str | None = None) -> paging.Page[Dataset]:
    """Datasets, newest first."""
    return paging.page_of(session, DatasetRow, Dataset.of, page_size=page_size, page_token=page_token)


def delete(session: Session, dataset_id: UUID) -> None:
    """Forget a dataset; its file is removed when nothing else needs it.

    Raises:
        NotFound: There is none of this id.
        InUse: A job that is not finished names it.
    """
    get(session, dataset_id)
    refuse_if_used(session, "dataset", dataset_id)
    session.execute(delete_rows(DatasetRow).where(DatasetRow.id == dataset_id))
