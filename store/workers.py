"""Workers that have announced themselves."""

from __future__ import annotations

import json
from collections.abc import Sequence
from uuid import UUID

from sqlalchemy import delete, select, update
from sqlalchemy.orm import Session

from accel.report import HostSummary, RuntimeSummary
from store.clock import db_now
from store.tables import WorkerRow
from store.values import Worker

LIVE_S = 30.0
"""A worker that was not seen for so long is taken for gone."""


def announce(
    session: Session, worker_id: UUID, *, host: str, pid: int, queues: Sequence[str], summary: HostSummary
) -> None:
    """Say that a worker is there, and what its host has."""
    session.add(
        WorkerRow(id=worker_id, host=host, pid=pid, queues=json.dumps(list(queues)), summary=summary.model_dump_json())
    )


def beat(session: Session, worker_id: UUID) -> None:
    """Say that a worker is still there."""
    session.execute(update(WorkerRow).where(WorkerRow.id == worker_id).values(seen_at=db_now()))


def retire(session: Session, worker_id: UUID) -> None:
    """Say that a worker has stopped."""
    session.execute(delete(WorkerRow).where(WorkerRow.id == worker_id))


def forget(session: Session, *, unseen_for_s: float) -> None:
    """Drop workers that ended without a word."""
    session.execute(delete(WorkerRow).where(WorkerRow.seen_at < db_now() - unseen_for_s))


def live(session: Session, *, within_s: float = LIVE_S) -> list[Worker]:
    """Workers that were seen lately."""
    query = select(WorkerRow).where(WorkerRow.seen_at > db_now() - within_s).order_by(WorkerRow.id)
    return [Worker.of(row) for row in session.scalars(query)]


def runtimes(session: Session) -> list[RuntimeSummary]:
    """The runtimes of all live workers; one that works somewhere is shown as available."""
    found: dict[str, RuntimeSummary] = {}
    for worker in live(session):
        for runtime in worker.summary.runtimes:
            if runtime.name not in found or (runtime.available and not found[runtime.name].available):
                found[runtime.name] = runtime
    return sorted(found.values(), key=lambda runtime: runtime.name)
