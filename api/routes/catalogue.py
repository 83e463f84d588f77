"""What the service can do, and who does it: techniques, runtimes, workers."""

from __future__ import annotations

import inspect
from datetime import datetime
from typing import Any
from uuid import UUID

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field

from accel.report import HostSummary, RuntimeSummary
from accel.techniques import TECHNIQUES
from api.answers import problems
from api.examples import step_of
from api.room import TheRoom
from store import workers
from store.forecasts import Forecasts, forecasts

router = APIRouter(prefix="/v1", tags=["catalogue"])


class _Document(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class TechniqueDocument(_Document):
    """One way to make a model smaller or faster."""

    technique: str = Field(description="Its name in a recipe.")
    help: str
    needs_data: bool = Field(description="Whether a job with it needs a dataset.")
    follows_quantization: bool = Field(description="Whether a quantizing step must come before it in the recipe.")
    parameters: dict[str, Any] = Field(description="JSON schema of a step.")
    example: dict[str, Any] = Field(description="A step with the defaults.")


class TechniqueList(_Document):
    """Every technique."""

    items: tuple[TechniqueDocument, ...]


class RuntimeDocument(RuntimeSummary):
    """A runtime, and how the speed-ups that a preflight predicts for it fared."""

    forecasts: Forecasts | None = Field(description="Null while nothing was measured that had been predicted.")


class RuntimeList(_Document):
    """The runtimes of all live workers."""

    items: tuple[RuntimeDocument, ...]


class WorkerDocument(_Document):
    """A worker that was seen of late, and what its host has."""

    id: UUID
    host: str
    pid: int
    queues: tuple[str, ...]
    summary: HostSummary
    started_at: datetime
    seen_at: datetime


class WorkerList(_Document):
    """Workers that were seen of late."""

    items: tuple[WorkerDocument, ...]


_TECHNIQUES = TechniqueList(
    items=tuple(
        TechniqueDocument(
            technique=technique.tag(),
            help=inspect.cleandoc(technique.__doc__ or ""),
            needs_data=technique.needs_data,
            follows_quantization=technique.follows_quantization,
            parameters=technique.model_json_schema(),
            example=step_of(technique),
        )
        for technique in TECHNIQUES
    )
)


@router.get("/techniques", operation_id="list_techniques", summary="List techniques")
async def list_techniques() -> TechniqueList:
    """What a recipe's steps can be: help text, JSON schema of the parameters, and an example for each."""
    return _TECHNIQUES


@router.get("/runtimes", operation_id="list_runtimes", summary="List runtimes", responses=problems())
def list_runtimes(room: TheRoom) -> RuntimeList:
    """Where models can run, as the live workers have found; with the reason where one is installed but of no use.

    `forecasts` holds what was measured of speed-ups against what a preflight predicts of the same models.
    """
    with room.database.read() as session:
        found, fared = workers.runtimes(session), forecasts(session)
    return RuntimeList(items=tuple(RuntimeDocument(**one.model_dump(), forecasts=fared.get(one.name)) for one in found))


@router.get("/workers", operation_id="list_workers", summary="List workers", responses=problems())
def list_workers(room: TheRoom) -> WorkerList:
    """Workers that were seen in the last half minute: queues, runtimes, confinement, environment."""
    with room.database.read() as session:
        live = workers.live(session)
    return WorkerList(
        items=tuple(
            WorkerDocument(
                id=worker.id,
                host=worker.host,
                pid=worker.pid,
                queues=worker.queues,
                summary=worker.summary,
                started_at=worker.started_at,
                seen_at=worker.seen_at,
            )
            for worker in live
        )
    )
