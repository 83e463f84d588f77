from __future__ import annotations

import itertools

import pytest
from sqlalchemy import update

from store import jobs
from store.database import Database
from store.errors import Fenced, IllegalTransition
from store.ids import new_id
from store.states import MOVES, JobState, advance
from store.tables import JobRow
from tests.rows import a_job


def put(database: Database, state: JobState):
    job_id = a_job(database)
    with database.write() as session:
        session.execute(update(JobRow).where(JobRow.id == job_id).values({"state": state, "lease_token": new_id()}))
    return job_id


@pytest.mark.parametrize(("before", "after"), list(itertools.product(JobState, JobState)))
def test_every_pair_of_states(before: JobState, after: JobState, database: Database) -> None:
    job_id = put(database, before)
    if after in MOVES[before]:
        with database.write() as session:
            assert advance(session, job_id, after).state == after
    else:
        with pytest.raises(IllegalTransition), database.write() as session:
            advance(session, job_id, after)
    with database.read() as session:
        job = jobs.get(session, job_id)
        events = jobs.events(session, job_id, after=0)
    assert job.state == (after if after in MOVES[before] else before)
    assert [event.seq for event in events] == list(range(1, job.version + 1))


def test_a_lease_of_somebody_else_is_fenced(database: Database) -> None:
    job_id = put(database, JobState.RUNNING)
    with pytest.raises(Fenced), database.write() as session:
        advance(session, job_id, JobState.SUCCEEDED, guard=new_id())


def test_what_has_ended_stays_so() -> None:
    assert {state for state in JobState if state.terminal} == {"succeeded", "failed", "cancelled"}
