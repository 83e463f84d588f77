"""Jobs as callers see them. The store writes these documents itself; here is their shape for the API's description."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from accel.report import BenchmarkReport, CompressReport, EvaluateReport
from store.specs import BenchmarkSpec, CompressSpec, EvaluateSpec
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
    cancel: str
    retry: str


class JobDocument(_Document):
    """Work that was asked for, and what came of it."""

    id: UUID
    kind: Literal["compress", "evaluate", "benchmark"]
    state: JobState
    phase: str
    progress: JobProgressDocument
    spec: Annotated[CompressSpec | EvaluateSpec | BenchmarkSpec, Field(discriminator="kind")]
    report: Annotated[CompressReport | EvaluateReport | BenchmarkReport, Field(discriminator="kind")] | None
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


class SamplesDocument(_Document):
    """Every sample of one measurement, in milliseconds: the warm-up, then one list a round."""

    model_id: UUID
    runtime: str
    batch_size: int
    threads: int
    warmup_ms: tuple[float, ...]
    samples_ms: tuple[tuple[float, ...], ...]


class JobSamples(_Document):
    """Every sample of a benchmark; empty for other jobs, and until it has succeeded."""

    items: tuple[SamplesDocument, ...]


class JobEventDocument(_Document):
    """What an event's `data` holds; the event's `id` is the job's version after it, its name `state` or `progress`."""

    state: JobState
    phase: str
    progress: JobProgressDocument
    attempt: int
    error: JobErrorDocument | None = None
