"""What is kept of a job that has not ended, and for how long."""

from __future__ import annotations

import pytest

from store import checkpoints, jobs, leases
from store.database import Database
from store.errors import Fenced
from store.references import is_referenced
from store.states import JobState
from tests.rows import a_job, a_model, claimed, compress, lapse, results, sha


def kept(database: Database, lease: leases.Lease, name: str) -> None:
    with database.write() as session:
        checkpoints.keep(session, lease.job_id, lease.token, sha(name))


def test_the_next_attempt_finds_the_latest_one(database: Database) -> None:
    lease = claimed(database, a_job(database))
    with database.read() as session:
        assert checkpoints.latest(session, lease.job_id) is None
    kept(database, lease, "first")
    kept(database, lease, "second")
    lapse(database, lease.job_id)
    with database.write() as session:
        leases.reap(session)
    again = claimed(database, lease.job_id)
    with database.read() as session:
        assert checkpoints.latest(session, again.job_id) == sha("second")
        assert (is_referenced(session, sha("first")), is_referenced(session, sha("second"))) == (False, True)
    with pytest.raises(Fenced):
        kept(database, lease, "of the lost attempt")
    with database.read() as session:
        assert checkpoints.latest(session, again.job_id) == sha("second")


@pytest.mark.parametrize("ended", ["succeeded", "failed", "cancelled"])
def test_its_file_may_go_when_the_job_has_ended(database: Database, ended: str) -> None:
    model_id = a_model(database)
    lease = claimed(database, a_job(database, compress(model_id)))
    kept(database, lease, "state")
    with database.write() as session:
        match ended:
            case "succeeded":
                leases.finish(session, lease, results(model_id))
            case "failed":
                leases.fail(session, lease, code="c", message="m")
            case _:
                leases.cancelled(session, lease)
    with database.read() as session:
        assert not is_referenced(session, sha("state"))


def test_models_of_a_failed_or_cancelled_job_are_kept(database: Database) -> None:
    model_id = a_model(database)
    failed, cancelled = (claimed(database, a_job(database, compress(model_id))) for _ in range(2))
    of_failed, of_cancelled = results(model_id), results(model_id)
    with database.write() as session:
        leases.fail(session, failed, code="c", message="m", models=of_failed.models)
        leases.cancelled(session, cancelled, of_cancelled)
    with database.read() as session:
        first, second = jobs.get(session, failed.job_id), jobs.get(session, cancelled.job_id)
    assert (first.state, first.model_ids) == (JobState.FAILED, tuple(model.id for model in of_failed.models))
    assert (first.report, second.report) == (None, of_cancelled.report)
    assert (second.state, second.model_ids) == (JobState.CANCELLED, tuple(model.id for model in of_cancelled.models))
