"""Whether the service lives, whether it can work, and its figures."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Literal

from fastapi import APIRouter, Response
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import text

from api.room import Room, TheRoom
from store import jobs, workers
from store.values import Worker

router = APIRouter(tags=["health"])


class _Document(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Live(_Document):
    """The process answers."""

    status: Literal["ok"] = "ok"


class Check(_Document):
    """One thing that the service stands on."""

    ok: bool
    detail: str = ""
    ms: float | None = None


class HostConfinement(_Document):
    """How well one worker's host can confine the engine."""

    host: str
    active: tuple[str, ...]
    missing: dict[str, str] = Field(description="What is lacking, with the reason.")


class Ready(_Document):
    """Whether the service can work. It is `degraded` where it takes requests but cannot do all of its work."""

    status: Literal["ok", "degraded", "unavailable"]
    checks: dict[str, Check]
    live_workers: int | None
    free_bytes: int | None
    confinement: tuple[HostConfinement, ...]


@router.get("/livez", operation_id="livez", summary="Does the process answer?")
async def livez() -> Live:
    """Looks at nothing but itself."""
    return Live()


@router.get(
    "/readyz",
    operation_id="readyz",
    summary="Can the service work?",
    response_model=Ready,
    responses={503: {"model": Ready, "description": "The database or the files do not answer."}},
)
def readyz(room: TheRoom) -> Response:
    """Database, broker, files, free space, live workers, and what the sandbox lacks on each host.

    503 when the database or the files fail. Without broker or workers requests are still taken, and done later.
    """
    free: list[int] = []
    live: list[Worker] = []

    def database() -> str:
        with room.database.read() as session:
            session.execute(text("SELECT 1 FROM jobs WHERE 1 = 0"))
            live.extend(workers.live(session))
        return ""

    def space() -> str:
        free.append(room.files.free_bytes())
        if free[0] < room.settings.min_free_bytes:
            raise OSError(f"only {free[0]} bytes are free, {room.settings.min_free_bytes} are wanted")
        return f"{free[0]} bytes are free"

    def files() -> str:
        room.files.check()
        return ""

    checks = _all({"database": database, "broker": lambda: _ping(room), "files": files, "space": space})
    checks["workers"] = Check(ok=bool(live), detail=f"{len(live)} live" if live else "no worker was seen of late")
    must = checks["database"].ok and checks["files"].ok
    status: Literal["ok", "degraded", "unavailable"] = (
        "unavailable" if not must else "ok" if all(check.ok for check in checks.values()) else "degraded"
    )
    hosts = {worker.host: worker.summary.sandbox for worker in live}
    answer = Ready(
        status=status,
        checks=checks,
        live_workers=len(live) if checks["database"].ok else None,
        free_bytes=free[0] if free else None,
        confinement=tuple(
            HostConfinement(host=host, active=sandbox.active, missing=sandbox.missing)
            for host, sandbox in sorted(hosts.items())
        ),
    )
    return Response(answer.model_dump_json(), 200 if must else 503, {"Cache-Control": "no-store"}, "application/json")


def _ping(room: Room) -> str:
    room.publisher.ping()
    return ""


def _all(checks: dict[str, Callable[[], str]]) -> dict[str, Check]:
    # Side by side: a broker that is away must not make the others late.
    with ThreadPoolExecutor(len(checks), thread_name_prefix="readyz") as pool:
        return dict(zip(checks, pool.map(_checked, checks.values()), strict=True))


def _checked(check: Callable[[], str]) -> Check:
    began = time.perf_counter()
    try:
        detail = check()
    except Exception as error:  # noqa: BLE001  (whatever it is, it is the answer)
        return Check(ok=False, detail=f"{type(error).__name__}: {error}"[:300])
    return Check(ok=True, detail=detail, ms=round((time.perf_counter() - began) * 1000, 2))


@router.get(
    "/metrics",
    operation_id="metrics",
    summary="Figures for Prometheus",
    response_class=Response,
    responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}, "description": "Text format 0.0.4."}},
)
def metrics(room: TheRoom) -> Response:
    """Requests, latencies, bytes taken in, jobs by state, live workers, waiting clients."""
    with room.database.read() as session:
        counted: Counter[str] = Counter()
        for (_, state), number in jobs.counts(session).items():
            counted[state] += number
        live = len(workers.live(session))
        oldest = jobs.oldest_queued_s(session) or 0.0
    room.metrics.observe(jobs=counted, oldest_queued_s=oldest, workers=live, waiting=room.watch.waiting())
    return Response(room.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")
