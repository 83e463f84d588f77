"""The tables. Documents (specs, reports, summaries) are JSON text that the classes of ``accel`` and ``store`` give meaning."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from sqlalchemy import BigInteger, CheckConstraint, ForeignKey, Index, Integer, MetaData, String, Text, Uuid
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from store.clock import Instant, db_now

_STATES = ("queued", "running", "succeeded", "failed", "cancelled")


class Table(DeclarativeBase):
    """Base of all tables; constraints have names that migrations can rely on."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map = {datetime: Instant(), UUID: Uuid()}  # noqa: RUF012  (SQLAlchemy's way to say it)


class ModelRow(Table):
    """A network: its file by hash, what is in it, and where it came from."""

    __tablename__ = "models"

    id: Mapped[UUID] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(200))
    sha256: Mapped[str] = mapped_column(String(64), index=True)
    size_bytes: Mapped[int] = mapped_column(BigInteger)
    summary: Mapped[str] = mapped_column(Text)
    parent_id: Mapped[UUID | None] = mapped_column(ForeignKey("models.id", ondelete="SET NULL"), index=True)
    job_id: Mapped[UUID | None] = mapped_column(index=True)
    created_at: Mapped[datetime] = mapped_column(default=db_now())


class DatasetRow(Table):
    """A dataset: its file by hash, how to read it, and what is in it."""

    __tablename__ = "datasets"

    id: Mapped[UUID] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(200))
    sha256: Mapped[str] = mapped_column(String(64), index=True)
    size_bytes: Mapped[int] = mapped_column(BigInteger)
    spec: Mapped[str] = mapped_column(Text)
    summary: Mapped[str] = mapped_column(Text)
    created_at: Mapped[datetime] = mapped_column(default=db_now())


class JobRow(Table):
    """Work that was asked for. ``version`` grows with each visible change; ``state`` is written by ``states.advance`` alone."""

    __tablename__ = "jobs"
    __table_args__ = (
        CheckConstraint(f"state IN {_STATES}", name="state"),
        Index("ix_jobs_queue", "state", "queue", "id"),
        Index("ix_jobs_lease", "state", "lease_until"),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True)
    kind: Mapped[str] = mapped_column(String(32))
    state: Mapped[str] = mapped_column(String(16))
    queue: Mapped[str] = mapped_column(String(32))
    spec: Mapped[str] = mapped_column(Text)
    report: Mapped[str | None] = mapped_column(Text)
    error: Mapped[str | None] = mapped_column(Text)
    model_ids: Mapped[str] = mapped_column(Text, default="[]")
    phase: Mapped[str] = mapped_column(String(64), default="")
    progress_done: Mapped[int] = mapped_column(Integer, default=0)
    progress_total: Mapped[int | None]
    progress_message: Mapped[str] = mapped_column(Text, default="")
    version: Mapped[int] = mapped_column(default=1)
    attempt: Mapped[int] = mapped_column(default=0)
    max_attempts: Mapped[int]
    lease_token: Mapped[UUID | None]
    lease_until: Mapped[datetime | None]
    worker_id: Mapped[UUID | None]
    cancel_requested_at: Mapped[datetime | None]
    deadline_at: Mapped[datetime | None]
    dispatched_at: Mapped[datetime | None]
    retry_of: Mapped[UUID | None]
    created_at: Mapped[datetime] = mapped_column(default=db_now())
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]


class JobEventRow(Table):
    """A visible change of a job; ``seq`` is the job's version after it."""

    __tablename__ = "job_events"

    job_id: Mapped[UUID] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    seq: Mapped[int] = mapped_column(primary_key=True)
    type: Mapped[str] = mapped_column(String(16))
    data: Mapped[str] = mapped_column(Text)
    created_at: Mapped[datetime] = mapped_column(default=db_now())


class JobFileRow(Table):
    """A file that belongs to a job's report; it goes with the job."""

    __tablename__ = "job_files"

    job_id: Mapped[UUID] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    name: Mapped[str] = mapped_column(String(200), primary_key=True)
    media_type: Mapped[str] = mapped_column(String(100))
    sha256: Mapped[str] = mapped_column(String(64), index=True)
    size_bytes: Mapped[int] = mapped_column(BigInteger)


class CheckpointRow(Table):
    """The latest checkpoint of a job; its file is kept until the job has ended."""

    __tablename__ = "checkpoints"

    job_id: Mapped[UUID] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    sha256: Mapped[str] = mapped_column(String(64), index=True)


class EvaluationRow(Table):
    """The quality of one model on one split, measured by one job.

    ``question`` is equal where samples were fed, read and judged in the same way; the predictions are one of the job's files.
    """

    __tablename__ = "evaluations"

    id: Mapped[UUID] = mapped_column(primary_key=True)
    job_id: Mapped[UUID] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), index=True)
    model_id: Mapped[UUID] = mapped_column(ForeignKey("models.id", ondelete="CASCADE"), index=True)
    baseline_id: Mapped[UUID]
    dataset_id: Mapped[UUID]
    split: Mapped[str] = mapped_column(String(64))
    runtime: Mapped[str] = mapped_column(String(64))
    question: Mapped[str] = mapped_column(String(64), index=True)
    predictions_sha256: Mapped[str | None] = mapped_column(String(64))
    result: Mapped[str] = mapped_column(Text)
    created_at: Mapped[datetime] = mapped_column(default=db_now())


class MeasurementRow(Table):
    """The speed of one model in one setting, measured by one job."""

    __tablename__ = "measurements"

    id: Mapped[UUID] = mapped_column(primary_key=True)
    job_id: Mapped[UUID] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), index=True)
    model_id: Mapped[UUID] = mapped_column(ForeignKey("models.id", ondelete="CASCADE"), index=True)
    baseline_id: Mapped[UUID]
    runtime: Mapped[str] = mapped_column(String(64))
    scenario: Mapped[str] = mapped_column(String(32))
    batch_size: Mapped[int]
    threads: Mapped[int]
    instances: Mapped[int]
    result: Mapped[str] = mapped_column(Text)
    created_at: Mapped[datetime] = mapped_column(default=db_now())


class IdempotencyRow(Table):
    """A request that was made once: which, and what it made."""

    __tablename__ = "idempotency_keys"

    key: Mapped[str] = mapped_column(String(255), primary_key=True)
    fingerprint: Mapped[str] = mapped_column(String(64))
    made: Mapped[UUID]
    created_at: Mapped[datetime] = mapped_column(default=db_now(), index=True)


class WorkerRow(Table):
    """A worker that has announced itself, and when it was last seen."""

    __tablename__ = "workers"

    id: Mapped[UUID] = mapped_column(primary_key=True)
    host: Mapped[str] = mapped_column(String(255))
    pid: Mapped[int]
    queues: Mapped[str] = mapped_column(Text)
    summary: Mapped[str] = mapped_column(Text)
    started_at: Mapped[datetime] = mapped_column(default=db_now())
    seen_at: Mapped[datetime] = mapped_column(default=db_now(), index=True)
