"""One look for all who wait, and none for nobody."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping
from uuid import UUID

import pytest

from api.watch import Watch
from tests.api_service import until

ONE, TWO = UUID(int=1), UUID(int=2)


class Versions:
    """Present versions, and how often they were asked for."""

    def __init__(self) -> None:
        self.now: dict[UUID, int] = {ONE: 1, TWO: 1}
        self.asked: list[set[UUID]] = []
        self.broken = False

    def __call__(self, job_ids: Collection[UUID]) -> Mapping[UUID, int]:
        self.asked.append(set(job_ids))
        if self.broken:
            raise ConnectionError("away")
        return {job_id: self.now[job_id] for job_id in job_ids if job_id in self.now}


async def looked(versions: Versions, count: int) -> None:
    await asyncio.to_thread(until, lambda: len(versions.asked) >= count)


def test_all_are_woken_by_one_look() -> None:
    async def run() -> None:
        versions = Versions()
        watch = Watch(versions, tick_s=0.005)
        waiting = [asyncio.create_task(watch.changed(ONE, 1, timeout_s=10)) for _ in range(50)]
        other = asyncio.create_task(watch.changed(TWO, 1, timeout_s=0.2))
        await looked(versions, 3)
        assert watch.waiting() == 51
        versions.now[ONE] = 2
        assert await asyncio.gather(*waiting) == [True] * 50
        assert await other is False
        assert {ONE, TWO} in versions.asked
        await asyncio.sleep(0.02)
        quiet = len(versions.asked)
        await asyncio.sleep(0.05)
        assert len(versions.asked) == quiet
        assert watch.waiting() == 0
        assert await watch.changed(ONE, 1, timeout_s=10) is True
        await watch.stopped()

    asyncio.run(run())


def test_a_job_that_is_gone() -> None:
    async def run() -> None:
        watch = Watch(Versions(), tick_s=0.005)
        assert await watch.changed(UUID(int=3), 1, timeout_s=10) is False
        await watch.stopped()

    asyncio.run(run())


def test_closing_sends_everybody_away() -> None:
    async def run() -> None:
        versions = Versions()
        watch = Watch(versions, tick_s=0.005)
        waiting = asyncio.create_task(watch.changed(ONE, 1, timeout_s=10))
        await looked(versions, 1)
        await watch.stopped()
        assert await waiting is False
        assert await watch.changed(ONE, 9, timeout_s=10) is False

    asyncio.run(run())


def test_a_database_that_fails_is_no_secret() -> None:
    async def run() -> None:
        versions = Versions()
        versions.broken = True
        watch = Watch(versions, tick_s=0.005)
        with pytest.raises(ConnectionError):
            await watch.changed(ONE, 1, timeout_s=10)
        versions.broken = False
        assert await watch.changed(ONE, 0, timeout_s=10) is True
        await watch.stopped()

    asyncio.run(run())
