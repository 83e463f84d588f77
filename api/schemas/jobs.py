"""Jobs as callers see them. The store writes these documents itself; here is their shape for the API's description."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from accel.report import BenchmarkReport, CompressReport, EvaluateReport, TrainReport
from store.job_files import JobFile
from store.specs import BenchmarkSpec, CompressSpec, EvaluateSpec, TrainSpec
from store.states import JobState


class _Document(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class JobProgressDocument(_Document):
    """`done` of `total` units of the present phase; `total` is null when unknown."""

    done: int
    total: int | None
    message: str


class JobErrorDocument(_Document):
    """Why the job failed. `code` is stable."""

    code: str
    message: str
    hint: str = ""


class JobLinks(_Document):
    """Where to go from here."""

    self: str
    events: str
    files: str
    cancel: str
    retry: str


class JobDocument(_Document):
    """Work that was asked for, and what came of it."""

    id: UUID
    kind: Literal["compress", "evaluate", "benchmark", "train"]
    state: JobState
    phase: str
    progress: JobProgressDocument
    spec: Annotated[CompressSpec | EvaluateSpec | BenchmarkSpec | TrainSpec, Field(discriminator="kind")]
    report: (
        Annotated[CompressReport | EvaluateReport | BenchmarkReport | TrainReport, Field(discriminator="kind")] | None
    )
    error: JobErrorDocument | None
    model_ids: tuple[UUID, ...] = Field(description="Models that the job made.")
    attempt: int = Field(description="Attempts so far.")
    max_attempts: int
    retry_of: UUID | None
    cancel_requested: bool
    queue: str
    worker_id: UUID | None
    version: int = Field(description="Grows with each visible change; it is the ETag too.")
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    links: JobLinks


class JobPage(_Document):
    """Jobs, newest first."""

    items: tuple[JobDocument, ...]
    next_page_token: str | None


class JobFileDocument(_Document):
    """A file of a job: predictions, samples, a trace."""

    name: str
    media_type: str
    size_bytes: int
    sha256: str
    link: str = Field(description="Where it can be downloaded.")

    @classmethod
    def of(cls, job_id: UUID, file: JobFile) -> JobFileDocument:
        """From the store's value."""
        return cls(
            name=file.name,
            media_type=file.media_type,
            size_bytes=file.size_bytes,
            sha256=file.sha256,
            link=f"/v1/jobs/{job_id}/files/{file.name}",
        )


class JobFileList(_Document):
    """The files of a job, by name; none until it has succeeded."""

    items: tuple[JobFileDocument, ...]


class JobEventDocument(_Document):
    """What an event's `data` holds; the event's `id` is the job's version after it, its name `state` or `progress`."""

    state: JobState
    phase: str
    progress: JobProgressDocument
    attempt: int
    error: JobErrorDocument | None = None
