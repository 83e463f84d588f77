from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, rule

from store import jobs, leases, models
from store.database import Database
from store.errors import Fenced
from store.ids import new_id
from store.leases import Lease
from store.states import JobState
from store.values import JobProgress
from tests.databases import fresh
from tests.rows import a_job, a_model, claimed, compress, lapse, results


def state_of(database: Database, job_id):
    with database.read() as session:
        return jobs.get(session, job_id)


def test_what_a_job_gave_is_kept_at_once(database: Database) -> None:
    model_id = a_model(database)
    lease = claimed(database, a_job(database, compress(model_id)))
    given = results(model_id, count=2)
    with database.write() as session:
        leases.finish(session, lease, given)
    job = state_of(database, lease.job_id)
    assert job.state == JobState.SUCCEEDED
    assert job.model_ids == tuple(model.id for model in given.models)
    assert job.report == given.report
    with database.read() as session:
        first, second = (models.get(session, model.id) for model in given.models)
    assert (first.parent_id, second.parent_id, second.job_id) == (model_id, first.id, job.id)


def test_a_fenced_worker_keeps_nothing(database: Database) -> None:
    model_id = a_model(database)
    lost = claimed(database, a_job(database, compress(model_id)))
    lapse(database, lost.job_id)
    with database.write() as session:
        assert leases.reap(session) == [lost.job_id]
    held = claimed(database, lost.job_id)
    given = results(model_id)
    for write in (
        lambda session: leases.finish(session, lost, given),
        lambda session: leases.fail(session, lost, code="c", message="m"),
        lambda session: leases.renew(session, lost, lease_s=9),
        lambda session: leases.cancelled(session, lost),
        lambda session: leases.give_back(session, lost, count_attempt=True, code="c", reason="r"),
    ):
        with pytest.raises(Fenced), database.write() as session:
            write(session)
    with database.read() as session:
        assert models.find(session, given.models[0].sha256) is None
    with database.write() as session:
        leases.finish(session, held, given)
    assert state_of(database, lost.job_id).attempt == 2


def test_renewing_reports_progress_and_wishes(database: Database) -> None:
    lease = claimed(database, a_job(database))
    with database.write() as session:
        said = leases.renew(session, lease, lease_s=60, phase="measuring", progress=JobProgress(3, 9, "half"))
    assert said == leases.Renewal(cancel_requested=False, late=False)
    job = state_of(database, lease.job_id)
    assert (job.phase, job.progress, job.version) == ("measuring", JobProgress(3, 9, "half"), 3)
    with database.write() as session:
        jobs.request_cancel(session, lease.job_id)
        assert leases.renew(session, lease, lease_s=60).cancel_requested


def test_a_lost_worker_is_tried_again_up_to_the_cap(database: Database) -> None:
    job_id = a_job(database, max_attempts=2)
    for expected in (JobState.QUEUED, JobState.FAILED):
        claimed(database, job_id)
        with database.write() as session:
            assert leases.reap(session) == []
        lapse(database, job_id)
        with database.write() as session:
            leases.reap(session)
        assert state_of(database, job_id).state == expected
    error = state_of(database, job_id).error
    assert error is not None
    assert error.code == "worker_lost"
    assert "2 attempts" in error.message


def test_a_stopped_worker_costs_no_attempt(database: Database) -> None:
    job_id = a_job(database, max_attempts=1)
    for _ in range(3):
        lease = claimed(database, job_id)
        with database.write() as session:
            state = leases.give_back(session, lease, count_attempt=False, code="c", reason="stopped")
        assert state == JobState.QUEUED
    assert state_of(database, job_id).attempt == 0


def test_a_wish_to_cancel_outlives_its_worker(database: Database) -> None:
    lease = claimed(database, a_job(database))
    with database.write() as session:
        jobs.request_cancel(session, lease.job_id)
    lapse(database, lease.job_id)
    with database.write() as session:
        leases.reap(session)
    assert state_of(database, lease.job_id).state == JobState.CANCELLED


class JobLife(RuleBasedStateMachine):
    """Whatever workers, callers and the reaper do in whatever order: a job ends once, and its history has no gaps."""

    held = Bundle("held")
    count = 0

    def __init__(self) -> None:
        super().__init__()
        JobLife.count += 1
        self.folder = FOLDERS[0] / f"run{JobLife.count}"
        self.folder.mkdir()
        self.database = fresh("sqlite", self.folder)
        self.model_id = a_model(self.database)
        self.job_id = a_job(self.database, compress(self.model_id), max_attempts=3)
        self.ended: JobState | None = None
        self.version = 0
        self.stops = 0

    def teardown(self) -> None:
        self.database.dispose()

    @rule(target=held)
    def claim(self) -> Lease | None:
        with self.database.write() as session:
            return leases.claim(session, self.job_id, worker_id=new_id(), lease_s=60)

    @rule(lease=held, act=st.sampled_from(["renew", "finish", "fail", "cancelled", "crash", "stop"]))
    def work(self, lease: Lease | None, act: str) -> None:
        if lease is None:
            return
        try:
            with self.database.write() as session:
                match act:
                    case "renew":
                        leases.renew(session, lease, lease_s=60, phase="p", progress=JobProgress())
                    case "finish":
                        leases.finish(session, lease, results(self.model_id))
                    case "fail":
                        leases.fail(session, lease, code="c", message="m")
                    case "cancelled":
                        leases.cancelled(session, lease)
                    case "crash":
                        leases.give_back(session, lease, count_attempt=True, code="c", reason="r")
                    case "stop":
                        leases.give_back(session, lease, count_attempt=False, code="c", reason="r")
        except Fenced:
            job = state_of(self.database, self.job_id)
            assert job.state != JobState.RUNNING or job.attempt >= 1

    @rule()
    def reap(self) -> None:
        with self.database.write() as session:
            leases.reap(session)

    @rule()
    def lapse(self) -> None:
        lapse(self.database, self.job_id)

    @rule()
    def cancel(self) -> None:
        with self.database.write() as session:
            jobs.request_cancel(session, self.job_id)

    @invariant()
    def it_ends_once_and_its_history_is_whole(self) -> None:
        with self.database.read() as session:
            job = jobs.get(session, self.job_id)
            events = jobs.events(session, self.job_id, after=0)
        assert job.version >= self.version
        self.version = job.version
        assert [event.seq for event in events] == list(range(1, job.version + 1))
        assert 0 <= job.attempt <= job.max_attempts
        if self.ended is not None:
            assert job.state == self.ended
        if job.state.terminal:
            self.ended = job.state
            assert (job.report is not None) == (job.state == JobState.SUCCEEDED)
            assert (job.error is not None) == (job.state == JobState.FAILED)


FOLDERS: list[Path] = []


def test_the_life_of_a_job(tmp_path: Path) -> None:
    from hypothesis.stateful import run_state_machine_as_test

    FOLDERS[:] = [tmp_path]
    run_state_machine_as_test(
        JobLife,
        settings=settings(max_examples=25, stateful_step_count=20, deadline=None, derandomize=True, database=None),
    )
