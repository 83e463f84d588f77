"""SIGKILL on everything, at random moments: every job ends exactly once, and nothing is left behind or lost."""

from __future__ import annotations

import collections
import contextlib
import hashlib
import os
import random
import signal
import time
from pathlib import Path

import pytest
from sqlalchemy import select

from store import jobs, models
from store.states import JobState
from store.tables import EvaluationRow, ModelRow
from store.values import Job
from tests.models import convnet, labelled
from tests.stack import Stack, stack, until

_EVALUATION_EACH = 8
_SEED = 20_261_124
_PIECES = ("worker1", "worker2", "valkey", "dispatcher", "reaper")


@pytest.mark.timeout(240)
@pytest.mark.parametrize(
    ("count", "faults_for_s", "fewest_faults"),
    [(24, 15.0, 6), pytest.param(72, 40.0, 15, marks=pytest.mark.slow)],
    ids=["short", "long"],
)
def test_every_job_ends_exactly_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], count: int, faults_for_s: float, fewest_faults: int
) -> None:
    chance = random.Random(_SEED)
    with stack(
        tmp_path,
        *("valkey", "worker1", "worker2", "dispatcher", "reaper"),
        lease_seconds=3,
        dispatch_retry_seconds=2,
        max_attempts=12,
    ) as system:
        model_id = system.model(convnet())
        dataset_id = system.dataset(labelled(tmp_path / "labelled.npz", convnet()))
        ids = [
            system.submit("evaluate", model_ids=[model_id], dataset_id=dataset_id, seed=number)
            if number % _EVALUATION_EACH == 0
            else system.submit("compress", model_id=model_id, steps=[{"technique": technique}], seed=number)
            for number in range(count)
            for technique in [("optimize_graph", "convert_float16")[number % 2]]
        ]
        faults = collections.Counter[str]()
        until_fault_s = time.monotonic() + faults_for_s
        while time.monotonic() < until_fault_s and not _all_ended(system):
            faults[_break_something(system, chance)] += 1
            time.sleep(chance.uniform(0.2, 0.9))
        until(lambda: _all_ended(system), "all jobs end", within_s=120, pause_s=0.2)

        _check_jobs(system, ids)
        ended = collections.Counter(system.job(job_id).state for job_id in ids)
        attempts = sum(system.job(job_id).attempt for job_id in ids)
        until(lambda: not system.engines(), "engines end with their jobs")
        until(lambda: system.waiting_messages() == 0, "copies of messages find nothing to claim")
        until(lambda: not list(system.scratch.glob("run-*")), "workers sweep what dead ones left")
        assert {name: system.stop(name) for name in ("worker1", "worker2", "reaper")} == dict.fromkeys(
            ("worker1", "worker2", "reaper"), 0
        )
        system.kill("dispatcher")
        assert system.processes() == []
        assert sorted(path.name for path in system.scratch.iterdir()) == ["host.lock", "host.turn"]
    with capsys.disabled():
        told = ", ".join(f"{times}x {what}" for what, times in sorted(faults.items()))
        print(f"\n{count} jobs, {attempts} attempts, {sum(faults.values())} faults ({told}): {dict(ended)}")
    assert ended[JobState.SUCCEEDED] >= count - 2
    assert sum(faults.values()) >= fewest_faults
    assert len(faults) >= 3


def _break_something(system: Stack, chance: random.Random) -> str:
    """Kill one thing; what is a piece is started again, as a supervisor would."""
    what = chance.choice((*_PIECES, "engine", "engine", "pool"))
    if what in _PIECES:
        system.kill(what)
        system.start(what)
        return what
    victims = system.engines() if what == "engine" else system.pool()
    if not victims:
        return "nothing to kill"
    with contextlib.suppress(ProcessLookupError):
        os.kill(chance.choice(sorted(victims)), signal.SIGKILL)
    return what


def _all_ended(system: Stack) -> bool:
    with system.database.read() as session:
        return not {state for _, state in jobs.counts(session)} & {JobState.QUEUED, JobState.RUNNING}


def _check_jobs(system: Stack, ids: list[object]) -> None:
    terminal = {"succeeded", "failed", "cancelled"}
    for job_id in ids:
        job = system.job(job_id)
        with system.database.read() as session:
            history = jobs.events(session, job.id, after=0)
        assert [event.seq for event in history] == list(range(1, job.version + 1))
        assert sum(any(f'"state": "{end}"' in event.data for end in terminal) for event in history) == 1
        assert 1 <= job.attempt <= job.max_attempts
        if job.state == JobState.SUCCEEDED:
            _check_results(system, job)
        else:
            assert job.error is not None
            assert job.error.code in {"worker_lost", "engine_crashed"}


def _check_results(system: Stack, job: Job) -> None:
    with system.database.read() as session:
        made = session.scalars(select(ModelRow.id).where(ModelRow.job_id == job.id)).all()
        evaluations = session.scalars(select(EvaluationRow.id).where(EvaluationRow.job_id == job.id)).all()
    assert tuple(made) == job.model_ids
    assert (len(made), len(evaluations)) == ((0, 1) if job.kind == "evaluate" else (1, 0))
    for model_id in made:
        with system.database.read() as session:
            model = models.get(session, model_id)
        kept = system.files.fetch(model.sha256, Path(os.devnull))
        assert hashlib.sha256(kept.read_bytes()).hexdigest() == model.sha256
        assert kept.stat().st_size == model.size_bytes
