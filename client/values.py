"""What the service answers, as far as the client acts on it; the rest is kept as it came (``model_extra``)."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict


class _Answer(BaseModel):
    model_config = ConfigDict(extra="allow", frozen=True, protected_namespaces=())


class Model(_Answer):
    """A network that is kept."""

    id: str
    name: str
    sha256: str
    size_bytes: int
    parent_id: str | None = None
    job_id: str | None = None


class Dataset(_Answer):
    """A dataset that is kept."""

    id: str
    name: str
    sha256: str
    size_bytes: int


class Progress(_Answer):
    """How far a job is."""

    done: int
    total: int | None
    message: str


class JobError(_Answer):
    """Why a job failed."""

    code: str
    message: str
    hint: str = ""


class Job(_Answer):
    """Work that was asked for."""

    id: str
    kind: str
    state: str
    phase: str
    progress: Progress
    report: dict[str, Any] | None = None
    error: JobError | None = None
    model_ids: tuple[str, ...] = ()
    attempt: int = 0

    @property
    def finished(self) -> bool:
        """Whether it will not change any more."""
        return self.state in {"succeeded", "failed", "cancelled"}


class JobFile(_Answer):
    """A file of a job."""

    name: str
    media_type: str
    size_bytes: int
    sha256: str
    link: str


class Event(_Answer):
    """A change of a job, as it was sent."""

    id: int
    type: str
    data: dict[str, Any]
