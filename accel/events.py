"""What the engine says while it works: one JSON document a line on standard output."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from accel.report import ModelSummary, Report


class _Event(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Progress(_Event):
    """Where the work stands: ``done`` of ``total`` units of the present phase (``total`` is None when unknown)."""

    event: Literal["progress"] = "progress"
    phase: str
    done: int = 0
    total: int | None = None
    message: str = ""


class ResultFile(_Event):
    """A model that the engine has written into its workspace."""

    model_id: str
    path: Path
    parent_id: str | None
    summary: ModelSummary


class Checkpoint(_Event):
    """How far the work got: a file in the workspace that the same request, asked again, goes on from.

    It is whole when this is said, and written anew under the same name only by renaming another over it.
    """

    event: Literal["checkpoint"] = "checkpoint"
    path: Path


class Attachment(_Event):
    """A file of the report that callers may download: predictions, samples, a trace."""

    name: str = Field(pattern=r"^[A-Za-z0-9_-][A-Za-z0-9._-]{0,199}$", description="Unique within the job.")
    path: Path
    media_type: str


class Done(_Event):
    """The work is finished: its report, and the files it wrote."""

    event: Literal["done"] = "done"
    report: Report
    files: tuple[ResultFile, ...] = ()
    attachments: tuple[Attachment, ...] = ()


class Failed(_Event):
    """The work cannot be done."""

    event: Literal["failed"] = "failed"
    code: str
    message: str
    hint: str = ""
    files: tuple[ResultFile, ...] = ()
    """What was made of use before."""


Event = Annotated[Progress | Checkpoint | Done | Failed, Field(discriminator="event")]
adapter: TypeAdapter[Progress | Checkpoint | Done | Failed] = TypeAdapter(Event)
