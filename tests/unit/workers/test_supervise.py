"""One job from its claim to its end, with a real engine and no broker."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import UUID

import pytest
from sqlalchemy import select, update

from store import jobs, leases
from store.errors import NoSpace
from store.files import Files
from store.states import JobState
from store.tables import JobRow, ModelRow
from tests.models import regression
from tests.stack import Stack, until
from tests.unit.workers.conftest import Make
from workers.host import host
from workers.supervise import Supervisor

STEPS = [{"technique": "optimize_graph"}]
QUICK = {
    "runtimes": ["onnxruntime:cpu"],
    "starts": 1,
    "rounds": 2,
    "seconds_per_round": 0.02,
    "budget_seconds": 5,
    "profile": False,
}
"""A benchmark that is soon over."""


def engines(scratch: Path) -> list[int]:
    """Engines that work in this scratch folder; a process that is about to become one is still its parent's."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            inside = str((entry / "cwd").readlink()).startswith(str(scratch))
            if inside and b"\0-m\0accel" in (entry / "cmdline").read_bytes():
                found.append(int(entry.name))
        except OSError:  # it has ended meanwhile
            continue
    return found


def left(scratch: Path) -> list[str]:
    """What remains of the runs."""
    return [path.name for path in scratch.glob("run-*")]


def cancel(store: Stack, job_id: UUID) -> None:
    with store.database.write() as session:
        jobs.request_cancel(session, job_id)


@contextmanager
def running(supervisor: Supervisor, job_id: UUID) -> Iterator[threading.Thread]:
    """The supervisor at work in a thread, which ends with the block."""
    thread = threading.Thread(target=supervisor.run, args=(job_id,))
    thread.start()
    try:
        yield thread
    finally:
        thread.join(timeout=30)
        assert not thread.is_alive()


@contextmanager
def frozen_engine(scratch: Path) -> Iterator[int]:
    """The engine of the run, stopped in the middle of its work: it is still there whatever the test's speed."""
    (pid,) = until(lambda: engines(scratch), "the engine starts")
    os.kill(pid, signal.SIGSTOP)
    try:
        yield pid
    except BaseException:
        os.kill(pid, signal.SIGKILL)  # nobody else would end it now
        raise


def test_a_job_is_done_once_and_leaves_nothing_behind(
    store: Stack, model_id: UUID, supervisor: Make, scratch: Path
) -> None:
    job_id = store.submit("compress", model_id=model_id, steps=STEPS)
    supervisor().run(job_id)
    job = store.job(job_id)
    assert job.state == JobState.SUCCEEDED, job.error
    supervisor().run(job_id)
    assert store.job(job_id) == job
    assert sorted(path.name for path in scratch.iterdir()) == ["host.lock", "host.turn"]
    assert list(store.files.spool_dir.iterdir()) == []


def test_a_job_that_was_cancelled_in_the_queue_is_not_begun(
    store: Stack, model_id: UUID, supervisor: Make, scratch: Path
) -> None:
    job_id = store.submit("compress", model_id=model_id, steps=STEPS)
    cancel(store, job_id)
    supervisor().run(job_id)
    job = store.job(job_id)
    assert (job.state, job.attempt, job.started_at) == (JobState.CANCELLED, 0, None)
    assert not scratch.exists()


def test_a_hanging_engine_is_ended_by_a_cancel(store: Stack, model_id: UUID, supervisor: Make, scratch: Path) -> None:
    job_id = store.submit("benchmark", model_ids=[model_id])
    with running(supervisor(), job_id), frozen_engine(scratch):
        cancel(store, job_id)
    assert store.job(job_id).state == JobState.CANCELLED
    assert engines(scratch) == []
    assert left(scratch) == []


def test_a_hanging_engine_is_ended_by_the_deadline(
    store: Stack, model_id: UUID, supervisor: Make, scratch: Path
) -> None:
    job_id = store.submit("benchmark", model_ids=[model_id], deadline_seconds=5, budget_seconds=5)
    with running(supervisor(), job_id), frozen_engine(scratch), store.database.write() as session:
        session.execute(update(JobRow).where(JobRow.id == job_id).values(deadline_at=JobRow.deadline_at - 5))
    job = store.job(job_id)
    assert job.error is not None
    assert (job.state, job.error.code) == (JobState.FAILED, "deadline_exceeded")
    assert "5 s" in job.error.message
    assert engines(scratch) == []


def test_a_worker_that_is_stopped_gives_the_job_back_without_counting(
    store: Stack, model_id: UUID, supervisor: Make, scratch: Path
) -> None:
    told = threading.Event()
    job_id = store.submit("benchmark", model_ids=[model_id], **QUICK)
    with running(supervisor(stopping=told.is_set, shutdown_grace_seconds=0.1), job_id), frozen_engine(scratch):
        told.set()
    job = store.job(job_id)
    assert (job.state, job.attempt, job.worker_id) == (JobState.QUEUED, 0, None)
    assert job.progress.message == "The worker was stopped"
    assert engines(scratch) == []
    supervisor().run(job_id)
    assert (store.job(job_id).state, store.job(job_id).attempt) == (JobState.SUCCEEDED, 1)


def test_a_short_job_may_end_within_the_grace(store: Stack, model_id: UUID, supervisor: Make) -> None:
    job_id = store.submit("compress", model_id=model_id, steps=STEPS)
    supervisor(stopping=lambda: True, shutdown_grace_seconds=60).run(job_id)
    assert store.job(job_id).state == JobState.SUCCEEDED


def test_a_killed_engine_counts_and_fails_the_job_at_the_cap(
    store: Stack, model_id: UUID, supervisor: Make, scratch: Path
) -> None:
    job_id = store.submit("benchmark", model_ids=[model_id])
    for attempt in (1, 2, 3):
        with running(supervisor(), job_id):
            (pid,) = until(lambda: engines(scratch), "the engine starts")
            os.kill(pid, signal.SIGKILL)
        job = store.job(job_id)
        assert (job.state, job.attempt) == (JobState.QUEUED if attempt < 3 else JobState.FAILED, attempt)
    assert job.error is not None
    assert job.error.code == "engine_crashed"
    assert "SIGKILL" in job.error.message
    assert "3 attempts" in job.error.message
    assert left(scratch) == []


def test_a_lease_that_was_lost_writes_nothing(store: Stack, model_id: UUID, supervisor: Make, scratch: Path) -> None:
    job_id = store.submit("compress", model_id=model_id, steps=STEPS)
    with running(supervisor(), job_id), frozen_engine(scratch):
        with store.database.write() as session:
            session.execute(update(JobRow).where(JobRow.id == job_id).values(lease_until=0))
            assert leases.reap(session) == [job_id]
        given_back = store.job(job_id)
    assert store.job(job_id) == given_back
    assert (given_back.state, given_back.attempt) == (JobState.QUEUED, 1)
    assert engines(scratch) == []
    with store.database.read() as session:
        assert session.scalars(select(ModelRow.id).where(ModelRow.job_id == job_id)).all() == []


def test_a_lease_is_renewed_while_the_engine_says_nothing(
    store: Stack, model_id: UUID, supervisor: Make, scratch: Path
) -> None:
    job_id = store.submit("benchmark", model_ids=[model_id])

    def lease_until() -> float:
        with store.database.read() as session:
            return session.scalar(select(JobRow.lease_until).where(JobRow.id == job_id)).timestamp()

    with running(supervisor(lease_seconds=1), job_id), frozen_engine(scratch):
        first = lease_until()
        until(lambda: lease_until() > first + 1, "the lease outlives its first length")
        version = store.job(job_id).version
        until(lambda: lease_until() > first + 1.5, "it goes on")
        assert store.job(job_id).version == version  # a renewal is no news
        cancel(store, job_id)


@pytest.mark.parametrize("kind", ["compress", "benchmark"])
def test_a_job_waits_for_its_host_and_can_be_cancelled_meanwhile(
    store: Stack, model_id: UUID, supervisor: Make, scratch: Path, kind: str
) -> None:
    asked = {"model_id": model_id, "steps": STEPS} if kind == "compress" else {"model_ids": [model_id]}
    job_id = store.submit(kind, **asked)
    with (
        host(scratch / "host.lock", alone=kind != "benchmark", waiting=pytest.fail),
        running(supervisor(), job_id) as thread,
    ):
        until(lambda: store.job(job_id).phase == "waiting_for_host", "it waits")
        assert engines(scratch) == []
        cancel(store, job_id)
        thread.join(timeout=10)
        assert store.job(job_id).state == JobState.CANCELLED
    assert left(scratch) == []


def test_a_waiting_job_begins_when_the_host_is_free(
    store: Stack, model_id: UUID, supervisor: Make, scratch: Path
) -> None:
    job_id = store.submit("benchmark", model_ids=[model_id], **QUICK)
    lock = scratch / "host.lock"
    with contextlib.ExitStack() as others:
        others.enter_context(host(lock, alone=False, waiting=pytest.fail))
        with running(supervisor(), job_id):
            until(lambda: store.job(job_id).phase == "waiting_for_host", "it waits")
            others.close()
    assert store.job(job_id).state == JobState.SUCCEEDED


def test_a_preflight_needs_no_host_to_itself_but_disturbs_no_benchmark(
    store: Stack, model_id: UUID, supervisor: Make, scratch: Path
) -> None:
    job_id = store.submit("benchmark", model_ids=[model_id], runtimes=["onnxruntime:cpu"], preflight=True)
    with contextlib.ExitStack() as benchmark:
        benchmark.enter_context(host(scratch / "host.lock", alone=True, waiting=pytest.fail))
        with running(supervisor(), job_id):
            until(lambda: store.job(job_id).phase == "waiting_for_host", "it waits")
            assert store.job(job_id).progress.message == "waiting for a benchmark to end"
            benchmark.close()
    again = store.submit("benchmark", model_ids=[model_id], runtimes=["onnxruntime:cpu"], preflight=True)
    with host(scratch / "host.lock", alone=False, waiting=pytest.fail):
        supervisor().run(again)
    for one in (job_id, again):
        job = store.job(one)
        assert job.state == JobState.SUCCEEDED, job.error
        assert [found.model_id for found in job.report.preflight] == [str(model_id)]


def test_little_space_fails_the_job_before_it_begins(
    store: Stack, model_id: UUID, supervisor: Make, scratch: Path
) -> None:
    job_id = store.submit("compress", model_id=model_id, steps=STEPS)
    supervisor(min_free_bytes=1 << 60).run(job_id)
    job = store.job(job_id)
    assert job.error is not None
    assert (job.state, job.error.code) == (JobState.FAILED, "disk_full")
    assert "MiB" in job.error.message
    assert job.error.hint
    assert list(scratch.iterdir()) == []


def test_a_result_beyond_the_limit_of_a_file_fails_the_job(
    store: Stack, model_id: UUID, supervisor: Make, scratch: Path
) -> None:
    job_id = store.submit("compress", model_id=model_id, steps=STEPS)
    supervisor(engine_file_bytes=1000).run(job_id)
    job = store.job(job_id)
    assert job.error is not None
    assert job.error.code == "disk_full"
    assert left(scratch) == []


def test_a_file_that_is_gone_fails_the_job(store: Stack, supervisor: Make, scratch: Path) -> None:
    model_id = store.model(regression(), name="gone")
    job_id = store.submit("benchmark", model_ids=[model_id])
    with store.database.read() as session:
        sha256 = session.scalar(select(ModelRow.sha256).where(ModelRow.id == model_id))
    path = store.files.local_path(sha256)
    assert path is not None
    path.unlink()
    supervisor().run(job_id)
    job = store.job(job_id)
    assert job.error is not None
    assert (job.state, job.error.code) == (JobState.FAILED, "not_found")
    assert sha256 in job.error.message
    assert left(scratch) == []


def test_a_scratch_that_cannot_be_written_fails_the_job(
    store: Stack, model_id: UUID, supervisor: Make, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    job_id = store.submit("compress", model_id=model_id, steps=STEPS)
    supervisor(scratch_dir=tmp_path / "file").run(job_id)
    job = store.job(job_id)
    assert job.error is not None
    assert job.error.code == "worker_failed"
    assert str(tmp_path) not in job.error.message


class FullFiles(Files):
    """A store whose disk has just become full."""

    def put_file(self, path: Path, sha256: str) -> None:
        raise NoSpace("The disk of the files is full.", hint="Free some space, or delete models.")


def _mounts_tmpfs(folder: Path) -> bool:
    return (
        os.geteuid() == 0
        and not subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=16k", "tmpfs", str(folder)], check=False, capture_output=True
        ).returncode
    )


@pytest.mark.parametrize("place", ["scratch", "files"])
def test_a_disk_that_fills_up_fails_the_job(
    store: Stack, model_id: UUID, supervisor: Make, tmp_path: Path, place: str
) -> None:
    """On a real disk of 16 KiB where one may be mounted, else on a store that says so."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = _mounts_tmpfs(disk)
    try:
        made = supervisor(scratch_dir=disk) if place == "scratch" and mounted else supervisor()
        if place == "files" or not mounted:
            spool = disk if mounted else tmp_path / "spool"
            kind = Files if mounted else FullFiles
            files = kind(store.environment["ACCEL_FILES_URL"], spool_dir=spool)
            made = Supervisor(made.database, files, made.settings, made.worker, made.worker_id, made.stopping)
        job_id = store.submit("compress", model_id=model_id, steps=STEPS)
        made.run(job_id)
        job = store.job(job_id)
        assert job.error is not None
        assert (job.state, job.error.code) == (JobState.FAILED, "disk_full"), job.error
        assert job.error.hint
        assert [path for path in disk.iterdir() if path.name not in {"host.lock", "host.turn"}] == []
    finally:
        if mounted:
            subprocess.run(["umount", str(disk)], check=True)


def test_progress_is_told_phase_by_phase(store: Stack, model_id: UUID, supervisor: Make) -> None:
    job_id = store.submit("compress", model_id=model_id, steps=STEPS)
    supervisor().run(job_id)
    with store.database.read() as session:
        told = [event.data for event in jobs.events(session, job_id, after=0)]
    assert [f'"phase": "{phase}"' in data for phase, data in zip(("", "starting"), told, strict=False)] == [True, True]
    assert any('"phase": "storing"' in data for data in told)
    assert '"phase": "done"' in told[-1]
