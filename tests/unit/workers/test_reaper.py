"""What dead processes leave behind is put right."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID

import pytest
from kombu.exceptions import OperationalError
from sqlalchemy import select, update

from store import idempotency, leases, workers
from store.broker import CeleryPublisher
from store.dispatch import Dispatcher
from store.idempotency import IdempotencyKey
from store.ids import new_id
from store.states import JobState
from store.tables import IdempotencyRow, JobRow, WorkerRow
from tests.models import convnet
from tests.stack import Stack, until
from workers.app import describe_host
from workers.reaper import Reaper

_DAYS_S = 3 * 24 * 3600.0
_NOBODY = "redis+socket:///nowhere/valkey.sock"


class Bell:
    """Takes down what is announced."""

    def __init__(self) -> None:
        self.rung: list[UUID] = []

    def publish(self, queue: str, job_id: UUID) -> None:
        self.rung.append(job_id)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Stack]:
    made = Stack(tmp_path)
    yield made
    made.close()


def reaper(store: Stack, bell: Bell | CeleryPublisher) -> Reaper:
    dispatcher = Dispatcher(store.database, bell, window=64, retry_after_s=30)
    return Reaper(store.database, store.files, dispatcher)


def lapse(store: Stack, job_id: UUID) -> leases.Lease:
    with store.database.write() as session:
        lease = leases.claim(session, job_id, worker_id=new_id(), lease_s=60)
        session.execute(update(JobRow).where(JobRow.id == job_id).values(lease_until=0))
    assert lease is not None
    return lease


def test_a_lapsed_job_is_announced_again_until_the_cap(store: Stack) -> None:
    job_id = store.submit("compress", model_id=store.model(convnet()), steps=[{"technique": "optimize_graph"}])
    bell = Bell()
    made = reaper(store, bell)
    made.reap()
    for attempt in (1, 2, 3):
        assert bell.rung == [job_id] * attempt
        lapse(store, job_id)
        made.reap()
    job = store.job(job_id)
    assert job.error is not None
    assert (job.state, job.error.code, job.attempt) == (JobState.FAILED, "worker_lost", 3)
    made.reap()
    assert len(bell.rung) == 3


def test_a_lapsed_job_that_was_to_be_cancelled_is(store: Stack) -> None:
    job_id = store.submit("compress", model_id=store.model(convnet()), steps=[{"technique": "optimize_graph"}])
    lapse(store, job_id)
    with store.database.write() as session:
        session.execute(update(JobRow).where(JobRow.id == job_id).values(cancel_requested_at=1))
    reaper(store, Bell()).reap()
    assert store.job(job_id).state == JobState.CANCELLED


def test_old_files_that_nothing_needs_are_removed(store: Stack, tmp_path: Path) -> None:
    store.model(convnet())
    kept = {path for path in (tmp_path / "files" / "sha256").rglob("*") if path.is_file()}
    made = {}
    for name, age_s in (("old", _DAYS_S), ("young", 0.0)):
        (tmp_path / name).write_text(name)
        sha256, _ = store.files.keep(tmp_path / name)
        made[name] = store.files.local_path(sha256)
        assert made[name] is not None
        os.utime(made[name], (time.time() - age_s,) * 2)
    for path in kept:
        os.utime(path, (time.time() - _DAYS_S,) * 2)
    spooled = store.files.spool_dir / "upload-broken.part"
    spooled.touch()
    os.utime(spooled, (time.time() - _DAYS_S,) * 2)
    reaper(store, Bell()).keep_house()
    left = {path for path in (tmp_path / "files" / "sha256").rglob("*") if path.is_file()}
    assert left == {*kept, made["young"]}
    assert not spooled.exists()


def test_old_keys_and_lost_workers_are_forgotten(store: Stack, tmp_path: Path) -> None:
    summary = describe_host(tmp_path / "scratch")
    seen = {name: new_id() for name in ("lost", "here")}
    with store.database.write() as session:
        for identity in seen.values():
            workers.announce(session, identity, host="h", pid=1, queues=["cpu"], summary=summary)
        session.execute(update(WorkerRow).where(WorkerRow.id == seen["lost"]).values(seen_at=0))
        for key in ("old", "young"):
            idempotency.claim(session, IdempotencyKey.of(key, "request"), new_id())
        session.execute(update(IdempotencyRow).where(IdempotencyRow.key == "old").values(created_at=0))
    reaper(store, Bell()).keep_house()
    with store.database.read() as session:
        assert session.scalars(select(WorkerRow.id)).all() == [seen["here"]]
        assert session.scalars(select(IdempotencyRow.key)).all() == ["young"]


@pytest.mark.parametrize("url", [_NOBODY, "redis://127.0.0.1:1/0"])
def test_a_broker_that_is_away_is_told_at_once(url: str) -> None:
    publisher = CeleryPublisher(url)
    begun = time.monotonic()
    with pytest.raises(OperationalError):
        publisher.publish("cpu", new_id())
    assert time.monotonic() - begun < 1.5
    publisher.close()


def test_it_reaps_while_the_broker_is_away(store: Stack) -> None:
    job_id = store.submit("compress", model_id=store.model(convnet()), steps=[{"technique": "optimize_graph"}])
    lapse(store, job_id)
    stop = threading.Event()
    publisher = CeleryPublisher(_NOBODY)
    thread = threading.Thread(target=reaper(store, publisher).run, args=(stop,))
    thread.start()
    try:
        until(lambda: store.job(job_id).state == JobState.QUEUED, "it is given back")
        lapse(store, job_id)
        until(lambda: store.job(job_id).state == JobState.QUEUED, "the next turn does it too")
    finally:
        stop.set()
        thread.join(timeout=20)
        publisher.close()
    assert not thread.is_alive()
