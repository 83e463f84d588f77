"""Two workers of one host, and what they do when one of them fails, on either database."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID

import pytest
from sqlalchemy import select

from store import jobs, workers
from store.states import JobState
from store.tables import ModelRow
from tests.databases import KINDS, fresh_url
from tests.models import convnet
from tests.stack import Stack, stack, until

_SLOW = {"starts": 20, "rounds": 200, "seconds_per_round": 0.1}
_STEPS = [{"technique": "optimize_graph"}]
_either = pytest.mark.parametrize("pair", ["sqlite"], indirect=True)
"""For what does not depend on the database."""
_PIECES = ("valkey", "worker1", "worker2", "dispatcher", "reaper")


@pytest.fixture(
    scope="module", params=[kind if kind == "sqlite" else pytest.param(kind, marks=pytest.mark.slow) for kind in KINDS]
)
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    folder = tmp_path_factory.mktemp("pair")
    settings = {"lease_seconds": 2, "dispatch_retry_seconds": 2, "max_attempts": 3, "shutdown_grace_seconds": 0.5}
    with stack(folder, *_PIECES, database_url=fresh_url(request.param, folder), **settings) as made:
        yield made


@pytest.fixture(scope="module")
def model_id(pair: Stack) -> UUID:
    return pair.model(convnet())


def cancel(pair: Stack, job_id: UUID) -> None:
    with pair.database.write() as session:
        jobs.request_cancel(session, job_id)


def runs(pair: Stack) -> list[str]:
    return [path.name for path in pair.scratch.glob("run-*")]


def test_a_zombie_is_fenced_when_another_has_done_its_job(pair: Stack, model_id: UUID) -> None:
    job_id = pair.submit("compress", model_id=model_id, steps=_STEPS)
    first = pair.running(job_id).worker_id
    zombies = pair.freeze(job_id)
    job = pair.finished(job_id)
    assert (job.state, job.attempt) == (JobState.SUCCEEDED, 2)
    assert job.worker_id != first
    for pid in zombies:
        os.kill(pid, signal.SIGCONT)
    until(lambda: "fenced" in pair.log("worker1") + pair.log("worker2"), "the zombie learns that its lease is lost")
    until(lambda: not pair.engines(), "its engine is ended")
    assert pair.job(job_id) == job
    with pair.database.read() as session:
        history = jobs.events(session, job_id, after=0)
        made = session.scalars(select(ModelRow.id).where(ModelRow.job_id == job_id)).all()
    assert [event.seq for event in history] == list(range(1, job.version + 1))
    assert sum('"state": "succeeded"' in event.data for event in history) == 1
    assert tuple(made) == job.model_ids


@_either
def test_a_benchmark_keeps_other_jobs_off_its_host(pair: Stack, model_id: UUID) -> None:
    benchmark = pair.submit("benchmark", model_ids=[model_id], **_SLOW)
    pair.running(benchmark)
    engines = pair.engines()
    other = pair.submit("compress", model_id=model_id, steps=_STEPS)
    until(lambda: pair.job(other).phase == "waiting_for_host", "the other job waits")
    assert pair.job(other).progress.message == "waiting for a benchmark to end"
    assert pair.engines() == engines
    cancel(pair, benchmark)
    assert pair.finished(other).state == JobState.SUCCEEDED
    assert pair.finished(benchmark).state == JobState.CANCELLED


def test_a_killed_pool_process_costs_an_attempt_and_nothing_else(pair: Stack, model_id: UUID) -> None:
    job_id = pair.submit("benchmark", model_ids=[model_id], starts=1, rounds=20, seconds_per_round=0.05)
    pair.running(job_id)
    engines = set(pair.engines())
    for pid in pair.pool():
        os.kill(pid, signal.SIGKILL)
    until(lambda: not engines & set(pair.processes()), "the engine dies with its supervisor", within_s=5)
    job = pair.finished(job_id)
    assert (job.state, job.attempt) == (JobState.SUCCEEDED, 2)
    until(lambda: not runs(pair), "the dead run's folder is swept", within_s=15)


@_either
def test_a_lapsed_job_waits_for_a_reaper(pair: Stack, model_id: UUID) -> None:
    job_id = pair.submit("benchmark", model_ids=[model_id], starts=1, rounds=20, seconds_per_round=0.05)
    pair.running(job_id)
    pair.kill("reaper")
    for pid in pair.pool():
        os.kill(pid, signal.SIGKILL)
    with pair.database.read() as session:
        worker = next(w for w in workers.live(session) if w.id == pair.job(job_id).worker_id)
    assert worker.host == socket.gethostname()
    pair.start("reaper")
    job = pair.finished(job_id)
    assert (job.state, job.attempt) == (JobState.SUCCEEDED, 2)


@_either
def test_a_worker_says_that_it_is_there_and_that_it_goes(pair: Stack) -> None:
    def pids() -> dict[int, tuple[str, ...]]:
        with pair.database.read() as session:
            return {worker.pid: worker.queues for worker in workers.live(session)}

    mains = {name: pair.pieces[name].pid for name in ("worker1", "worker2")}
    assert pids() == dict.fromkeys(mains.values(), ("cpu",))
    assert pair.stop("worker2") == 0, pair.log("worker2")[-2000:]
    assert pids() == {mains["worker1"]: ("cpu",)}
    pair.start("worker2")
    until(lambda: pair.pieces["worker2"].pid in pids(), "the next one announces itself")


@_either
def test_a_queued_job_is_cancelled_at_once_and_never_begun(pair: Stack, model_id: UUID) -> None:
    blocking = pair.submit("benchmark", model_ids=[model_id], **_SLOW)
    pair.running(blocking)
    waiting = pair.submit("compress", model_id=model_id, steps=_STEPS)
    until(lambda: pair.job(waiting).phase == "waiting_for_host", "both workers are busy")
    queued = pair.submit("compress", model_id=model_id, steps=_STEPS)
    cancel(pair, queued)
    assert pair.job(queued).state == JobState.CANCELLED
    for job_id in (waiting, blocking):
        cancel(pair, job_id)
    last = pair.finished(pair.submit("compress", model_id=model_id, steps=_STEPS))
    assert last.state == JobState.SUCCEEDED
    job = pair.job(queued)
    assert (job.state, job.attempt, job.started_at) == (JobState.CANCELLED, 0, None)
    with pair.database.read() as session:
        assert session.scalars(select(ModelRow.id).where(ModelRow.job_id == queued)).all() == []


def test_a_stopped_worker_leaves_its_job_to_the_other(pair: Stack, model_id: UUID) -> None:
    job_id = pair.submit("benchmark", model_ids=[model_id], starts=1, rounds=20, seconds_per_round=0.05)
    pair.running(job_id)
    with pair.database.read() as session:
        pid = next(w.pid for w in workers.live(session) if w.id == pair.job(job_id).worker_id)
    name = next(name for name, piece in pair.pieces.items() if piece.pid == pid)
    for engine in pair.engines():
        os.kill(engine, signal.SIGSTOP)  # it would end within the grace on a fast machine
    assert pair.stop(name) == 0, pair.log(name)[-2000:]
    job = pair.finished(job_id)
    assert (job.state, job.attempt) == (JobState.SUCCEEDED, 1)
    pair.start(name)
    until(lambda: pair.live_workers() == 2, "it is back")


def test_nothing_is_left(pair: Stack) -> None:
    until(lambda: not runs(pair), "every run has cleaned up", within_s=15)
    assert pair.engines() == []
    assert sorted(path.name for path in pair.scratch.iterdir()) == ["host.lock", "host.turn"]
    assert list(Path(pair.files.spool_dir).iterdir()) == []
