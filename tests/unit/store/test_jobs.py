from __future__ import annotations

import json
import threading

import pytest

from store import idempotency, jobs, models
from store.database import Database
from store.errors import (
    BadPageToken,
    DatasetRequired,
    IdempotencyKeyReused,
    IllegalTransition,
    InUse,
    NotFound,
    UnfitReference,
)
from store.idempotency import IdempotencyKey
from store.ids import new_id
from store.specs import adapter
from store.states import JobState
from tests.rows import a_dataset, a_job, a_model, claimed, compress


def submit(database: Database, spec, **more):
    with database.write() as session:
        return jobs.submit(session, spec, max_attempts=3, **more)


def test_what_does_not_exist_is_named_by_its_field(database: Database) -> None:
    model_id = a_model(database)
    with pytest.raises(UnfitReference) as caught:
        submit(database, compress(new_id()))
    assert caught.value.pointer == "/model_id"
    with pytest.raises(UnfitReference) as caught:
        submit(database, compress(model_id, dataset_id=new_id()))
    assert caught.value.pointer == "/dataset_id"
    several = {"kind": "benchmark", "model_ids": [model_id, new_id()]}
    with pytest.raises(UnfitReference) as caught:
        submit(database, adapter.validate_python(several))
    assert caught.value.pointer == "/model_ids/1"


def test_data_that_a_step_needs_is_asked_for(database: Database) -> None:
    model_id = a_model(database)
    for more in ({"steps": [{"technique": "quantize_static"}]}, {"contract": {"max_drop": 0.1}}):
        with pytest.raises(DatasetRequired) as caught:
            submit(database, compress(model_id, **more))
        assert caught.value.pointer == "/dataset_id"
    submit(database, compress(model_id, steps=[{"technique": "quantize_static"}], dataset_id=a_dataset(database)))


def test_the_document_is_the_job(database: Database) -> None:
    job_id = a_job(database)
    with database.read() as session:
        job = jobs.get(session, job_id)
        version, state, text = jobs.document(session, job_id) or (0, JobState.FAILED, "")
    document = json.loads(text)
    assert (version, state) == (1, JobState.QUEUED)
    assert document["id"] == str(job.id)
    assert adapter.validate_python(document["spec"]) == job.spec
    assert document["report"] is None
    assert document["progress"] == {"done": 0, "total": None, "message": ""}
    assert document["created_at"].endswith("Z")
    assert document["links"]["self"] == f"/v1/jobs/{job_id}"
    with database.read() as session:
        assert jobs.document(session, new_id()) is None


def test_one_key_makes_one_job(database: Database) -> None:
    spec = compress(a_model(database))
    key = IdempotencyKey.of("k", "body")
    first, new = submit(database, spec, idempotency_key=key)
    again, new_again = submit(database, spec, idempotency_key=key)
    assert (first.id, new, new_again) == (again.id, True, False)
    with pytest.raises(IdempotencyKeyReused):
        submit(database, spec, idempotency_key=IdempotencyKey.of("k", "other"))
    with database.write() as session:
        assert idempotency.forget_keys(session, older_than_s=3600) == 0
        assert idempotency.forget_keys(session, older_than_s=-1) == 1


def test_one_key_makes_one_job_however_many_send_it(database: Database) -> None:
    spec = compress(a_model(database))
    key = IdempotencyKey.of("k", "body")
    answers: list[tuple[object, bool]] = []

    def send() -> None:
        job, new = submit(database, spec, idempotency_key=key)
        answers.append((job.id, new))

    threads = [threading.Thread(target=send) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(answers) == 6
    assert len({job_id for job_id, _ in answers}) == 1
    assert sum(new for _, new in answers) == 1


def test_cancelling(database: Database) -> None:
    queued, running = a_job(database), a_job(database)
    lease = claimed(database, running)
    with database.write() as session:
        jobs.request_cancel(session, queued)
        jobs.request_cancel(session, running)
        jobs.request_cancel(session, running)
        with pytest.raises(NotFound):
            jobs.request_cancel(session, new_id())
    with database.read() as session:
        assert jobs.get(session, queued).state == JobState.CANCELLED
        asked = jobs.get(session, lease.job_id)
    assert (asked.state, asked.cancel_requested, asked.version) == (JobState.RUNNING, True, 3)


def test_only_a_finished_job_is_retried(database: Database) -> None:
    job_id = a_job(database)
    with pytest.raises(IllegalTransition), database.write() as session:
        jobs.retry(session, job_id, max_attempts=3)
    with database.write() as session:
        jobs.request_cancel(session, job_id)
        again, _ = jobs.retry(session, job_id, max_attempts=3)
    assert again.retry_of == job_id
    assert again.state == JobState.QUEUED


def test_pages_have_no_gaps_while_rows_come(database: Database) -> None:
    ids = [str(a_job(database)) for _ in range(7)]
    seen, token = [], None
    while True:
        with database.read() as session:
            page = jobs.documents(session, page_size=3, page_token=token)
        seen += [json.loads(text)["id"] for text in page.items]
        token = page.next_page_token
        if token is None:
            break
        a_job(database)
    assert seen == ids[::-1]
    with database.read() as session:
        assert len(jobs.documents(session, page_size=50, state=JobState.FAILED).items) == 0
        with pytest.raises(BadPageToken):
            jobs.documents(session, page_size=3, page_token="%%%")


def test_a_model_in_use_is_kept(database: Database) -> None:
    model_id = a_model(database, "used")
    job_id = a_job(database, compress(model_id))
    with pytest.raises(InUse, match=str(job_id)), database.write() as session:
        models.delete(session, model_id)
    with database.write() as session:
        jobs.request_cancel(session, job_id)
        models.delete(session, model_id)
    with pytest.raises(NotFound), database.read() as session:
        models.get(session, model_id)


def test_a_job_is_claimed_once_by_many(database: Database) -> None:
    ids = [a_job(database) for _ in range(12)]
    won: list[object] = []

    def claim_all() -> None:
        from store.leases import claim

        for job_id in ids:
            with database.write() as session:
                lease = claim(session, job_id, worker_id=new_id(), lease_s=60)
            if lease is not None:
                won.append(lease.job_id)

    threads = [threading.Thread(target=claim_all) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(map(str, won)) == sorted(map(str, ids))


@pytest.mark.parametrize(
    "wrong",
    [
        {"kind": "benchmark", "model_ids": []},
        {"kind": "benchmark", "model_ids": [str(new_id())] * 2},
        {"kind": "benchmark", "model_ids": [str(new_id())], "baseline_id": str(new_id())},
        {"kind": "benchmark", "model_ids": [str(new_id())], "rounds": True},
        {"kind": "benchmark", "model_ids": [str(new_id())], "seconds_per_round": float("nan")},
        {"kind": "benchmark", "model_ids": [str(new_id())], "surprise": 1},
        {"kind": "evaluate", "model_ids": [str(new_id())], "dataset_id": str(new_id()), "split": "a\x00b"},
        {"kind": "evaluate", "model_ids": [str(new_id())], "dataset_id": str(new_id()), "runtime": "gpu"},
        {"kind": "compress", "model_id": str(new_id()), "steps": []},
        {"kind": "compress", "model_id": str(new_id()), "steps": [{"technique": "magic"}]},
        {"kind": "dance"},
    ],
)
def test_specs_that_make_no_sense_are_refused(wrong: dict) -> None:
    with pytest.raises(ValueError):  # noqa: PT011  (pydantic's own, which names the field)
        adapter.validate_python(wrong)
