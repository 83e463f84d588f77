"""Announce queued jobs to the workers: soon after they are committed, and again while nobody has claimed them."""

from __future__ import annotations

import threading
from uuid import UUID

import structlog
from sqlalchemy import Row, func, or_, select, update

from store.broker import Publisher
from store.clock import db_now
from store.database import Database
from store.states import JobState
from store.tables import JobRow

log = structlog.get_logger(__name__)

_BATCH = 64
_FIRST_WAIT_S, _LONGEST_WAIT_S = 0.2, 5.0


class Dispatcher:
    """Publishes what waits. Several may run at once: who marks a row first announces it, and a double is harmless."""

    def __init__(self, database: Database, publisher: Publisher, *, window: int, retry_after_s: float) -> None:
        """Make a dispatcher.

        Args:
            database: Where the jobs are.
            publisher: How they are announced.
            window: Jobs of one queue that are announced at a time; a long queue must not fill the broker with copies.
            retry_after_s: A job that nobody has claimed for so long is announced again.
        """
        self._database, self._publisher = database, publisher
        self._window, self._retry_after_s = window, retry_after_s
        self._poked = threading.Event()

    def poke(self) -> None:
        """Say that there is something new; call it after the commit."""
        self._poked.set()

    def run(self, stop: threading.Event, *, every_s: float = 1.0) -> None:
        """Announce jobs until ``stop`` is set, at each poke and every so often; backs off while the broker is away."""
        wait_s = every_s
        while not stop.is_set():
            self._poked.wait(wait_s)
            if stop.is_set():
                return
            self._poked.clear()
            try:
                while self.step() == _BATCH:
                    pass
                wait_s = every_s
            except Exception as error:  # noqa: BLE001  (broker or database away, whatever their libraries raise: try again)
                wait_s = min(_LONGEST_WAIT_S, max(_FIRST_WAIT_S, wait_s * 2))
                log.warning("dispatch_failed", error=str(error)[:300], again_in_s=wait_s)
                self._poked.clear()
                stop.wait(wait_s)

    def step(self) -> int:
        """Announce one batch of jobs.

        Returns:
            How many.

        Raises:
            Exception: What the broker's or the database's library raises; unannounced jobs are marked as such again.
        """
        with self._database.write() as session:
            fresh = JobRow.dispatched_at > db_now() - self._retry_after_s
            announced = select(JobRow.queue, func.count()).where(JobRow.state == JobState.QUEUED, fresh)
            out = dict(session.execute(announced.group_by(JobRow.queue)).all())
            waiting = session.execute(
                select(JobRow.id, JobRow.queue)
                .where(JobRow.state == JobState.QUEUED, or_(JobRow.dispatched_at.is_(None), ~fresh))
                .order_by(JobRow.id)
                .limit(_BATCH * 4)
            ).all()
            chosen: list[Row[UUID, str]] = []
            for row in waiting:
                if out.get(row.queue, 0) < self._window and len(chosen) < _BATCH:
                    out[row.queue] = out.get(row.queue, 0) + 1
                    chosen.append(row)
            if not chosen:
                return 0
            session.execute(
                update(JobRow)
                .where(JobRow.id.in_([row.id for row in chosen]), JobRow.state == JobState.QUEUED)
                .values(dispatched_at=db_now())
                .execution_options(synchronize_session=False)
            )
        sent = 0
        try:
            for row in chosen:
                self._publisher.publish(row.queue, row.id)
                sent += 1
        finally:
            if sent < len(chosen):
                self._forget([row.id for row in chosen[sent:]])
        return sent

    def _forget(self, job_ids: list[UUID]) -> None:
        with self._database.write() as session:
            session.execute(
                update(JobRow)
                .where(JobRow.id.in_(job_ids), JobRow.state == JobState.QUEUED)
                .values(dispatched_at=None)
                .execution_options(synchronize_session=False)
            )
