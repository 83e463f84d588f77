"""What the store gives back: values, never rows."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from pydantic import TypeAdapter

from accel.data.spec import DatasetSpec
from accel.report import DatasetSummary, HostSummary, ModelSummary, Report
from store.specs import JobSpec
from store.specs import adapter as specs
from store.states import JobState
from store.tables import DatasetRow, JobEventRow, JobRow, ModelRow, WorkerRow

_reports: TypeAdapter[Any] = TypeAdapter(Report)


@dataclass(frozen=True, slots=True)
class Model:
    """A network that is kept."""

    id: UUID
    name: str
    sha256: str
    size_bytes: int
    summary: ModelSummary
    parent_id: UUID | None
    job_id: UUID | None
    created_at: datetime

    @classmethod
    def of(cls, row: ModelRow) -> Model:
        """From its row."""
        summary = ModelSummary.model_validate_json(row.summary)
        return cls(row.id, row.name, row.sha256, row.size_bytes, summary, row.parent_id, row.job_id, row.created_at)


@dataclass(frozen=True, slots=True)
class Dataset:
    """A dataset that is kept."""

    id: UUID
    name: str
    sha256: str
    size_bytes: int
    spec: DatasetSpec
    summary: DatasetSummary
    created_at: datetime

    @classmethod
    def of(cls, row: DatasetRow) -> Dataset:
        """From its row."""
        spec, summary = DatasetSpec.model_validate_json(row.spec), DatasetSummary.model_validate_json(row.summary)
        return cls(row.id, row.name, row.sha256, row.size_bytes, spec, summary, row.created_at)


@dataclass(frozen=True, slots=True)
class JobError:
    """Why a job failed."""

    code: str
    message: str
    hint: str = ""


@dataclass(frozen=True, slots=True)
class JobProgress:
    """How far a job is: ``done`` of ``total`` units of its phase."""

    done: int = 0
    total: int | None = None
    message: str = ""


@dataclass(frozen=True, slots=True)
class Job:
    """Work that was asked for, and what came of it."""

    id: UUID
    kind: str
    state: JobState
    queue: str
    phase: str
    progress: JobProgress
    spec: JobSpec
    report: Any | None
    error: JobError | None
    model_ids: tuple[UUID, ...]
    attempt: int
    max_attempts: int
    retry_of: UUID | None
    version: int
    cancel_requested: bool
    worker_id: UUID | None
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None

    @classmethod
    def of(cls, row: JobRow) -> Job:
        """From its row."""
        return cls(
            id=row.id,
            kind=row.kind,
            state=JobState(row.state),
            queue=row.queue,
            phase=row.phase,
            progress=JobProgress(row.progress_done, row.progress_total, row.progress_message),
            spec=specs.validate_json(row.spec),
            report=None if row.report is None else _reports.validate_json(row.report),
            error=None if row.error is None else JobError(**json.loads(row.error)),
            model_ids=tuple(map(UUID, json.loads(row.model_ids))),
            attempt=row.attempt,
            max_attempts=row.max_attempts,
            retry_of=row.retry_of,
            version=row.version,
            cancel_requested=row.cancel_requested_at is not None,
            worker_id=row.worker_id,
            created_at=row.created_at,
            started_at=row.started_at,
            finished_at=row.finished_at,
        )


@dataclass(frozen=True, slots=True)
class JobEvent:
    """A visible change of a job; ``data`` is a JSON document."""

    seq: int
    type: str
    data: str

    @classmethod
    def of(cls, row: JobEventRow) -> JobEvent:
        """From its row."""
        return cls(row.seq, row.type, row.data)


@dataclass(frozen=True, slots=True)
class Worker:
    """A worker that was seen lately."""

    id: UUID
    host: str
    pid: int
    queues: tuple[str, ...]
    summary: HostSummary
    started_at: datetime
    seen_at: datetime

    @classmethod
    def of(cls, row: WorkerRow) -> Worker:
        """From its row."""
        summary = HostSummary.model_validate_json(row.summary)
        return cls(row.id, row.host, row.pid, tuple(json.loads(row.queues)), summary, row.started_at, row.seen_at)
