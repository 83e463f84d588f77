"""Models and datasets as callers see them."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from accel.data.spec import DatasetSpec
from accel.report import DatasetSummary, ModelSummary
from store.values import Dataset, Model


class _Document(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ObjectLinks(_Document):
    """Where to go from here."""

    self: str
    file: str


class ModelDocument(_Document):
    """A network that is kept: its file, what is in it, and where it came from."""

    id: UUID
    name: str
    sha256: str
    size_bytes: int
    summary: ModelSummary
    parent_id: UUID | None = Field(description="The model that it was made from.")
    job_id: UUID | None = Field(description="The job that made it.")
    created_at: datetime
    links: ObjectLinks

    @classmethod
    def of(cls, model: Model) -> ModelDocument:
        """From the store's value."""
        base = f"/v1/models/{model.id}"
        return cls(
            id=model.id,
            name=model.name,
            sha256=model.sha256,
            size_bytes=model.size_bytes,
            summary=model.summary,
            parent_id=model.parent_id,
            job_id=model.job_id,
            created_at=model.created_at,
            links=ObjectLinks(self=base, file=f"{base}/file"),
        )


class DatasetDocument(_Document):
    """A dataset that is kept: its file, how it is read, and what is in it."""

    id: UUID
    name: str
    sha256: str
    size_bytes: int
    spec: DatasetSpec
    summary: DatasetSummary
    created_at: datetime
    links: ObjectLinks

    @classmethod
    def of(cls, dataset: Dataset) -> DatasetDocument:
        """From the store's value."""
        base = f"/v1/datasets/{dataset.id}"
        return cls(
            id=dataset.id,
            name=dataset.name,
            sha256=dataset.sha256,
            size_bytes=dataset.size_bytes,
            spec=dataset.spec,
            summary=dataset.summary,
            created_at=dataset.created_at,
            links=ObjectLinks(self=base, file=f"{base}/file"),
        )


class ModelPage(_Document):
    """Models, newest first."""

    items: tuple[ModelDocument, ...]
    next_page_token: str | None


class DatasetPage(_Document):
    """Datasets, newest first."""

    items: tuple[DatasetDocument, ...]
    next_page_token: str | None
