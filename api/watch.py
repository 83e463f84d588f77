"""Clients that wait for jobs: one look at the database for all of them, and none while nobody waits."""

from __future__ import annotations

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping
from uuid import UUID

import structlog

Versions = Callable[[Collection[UUID]], Mapping[UUID, int]]
_log = structlog.get_logger("api.watch")


class Watch:
    """Wakes those who wait for a job to change. It belongs to one event loop.

    Args:
        versions: Looks up the present versions of jobs; called in a thread.
        tick_s: Time between two looks.
    """

    def __init__(self, versions: Versions, *, tick_s: float) -> None:
        self._versions = versions
        self._tick_s = tick_s
        self._waiting: dict[UUID, set[tuple[int, asyncio.Future[bool]]]] = defaultdict(set)
        self._poller: asyncio.Task[None] | None = None
        self._closed = False

    @property
    def closed(self) -> bool:
        """Whether the service is about to stop, so that nobody may wait any longer."""
        return self._closed

    def waiting(self) -> int:
        """How many wait."""
        return sum(map(len, self._waiting.values()))

    async def changed(self, job_id: UUID, seen: int, *, timeout_s: float) -> bool:
        """Wait until the job's version is not ``seen``; False when the time is up, the job gone or the service stopping.

        Raises:
            Exception: What kept the database from answering.
        """
        if self._closed or timeout_s <= 0:
            return False
        future: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        entry = (seen, future)
        self._waiting[job_id].add(entry)
        if self._poller is None:
            self._poller = asyncio.create_task(self._poll(), name="watch")
        try:
            async with asyncio.timeout(timeout_s):
                return await future
        except TimeoutError:
            return False
        finally:
            self._waiting[job_id].discard(entry)
            if not self._waiting[job_id]:
                del self._waiting[job_id]

    def close(self) -> None:
        """Send everybody who waits away; new ones need not begin."""
        self._closed = True
        self._tell_all(lambda future: future.set_result(False))

    async def stopped(self) -> None:
        """Close, and wait for the poller's end."""
        self.close()
        if self._poller is not None:
            self._poller.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._poller

    async def _poll(self) -> None:
        try:
            while self._waiting:
                present = await asyncio.to_thread(self._versions, list(self._waiting))
                for job_id, entries in self._waiting.items():
                    for seen, future in entries:
                        if not future.done() and present.get(job_id) != seen and job_id in present:
                            future.set_result(True)
                        elif not future.done() and job_id not in present:
                            future.set_result(False)
                await asyncio.sleep(self._tick_s)
        except Exception as error:  # noqa: BLE001  (whatever it is, those who wait must hear of it)
            _log.warning("watch_failed", error=str(error)[:500])
            failure = error
            self._tell_all(lambda future: future.set_exception(failure))
        finally:
            self._poller = None

    def _tell_all(self, tell: Callable[[asyncio.Future[bool]], None]) -> None:
        for entries in self._waiting.values():
            for _, future in entries:
                if not future.done():
                    tell(future)
