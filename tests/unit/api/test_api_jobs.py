"""Jobs over HTTP; this test plays the worker, on the same store."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import UUID

import httpx
import pytest

from accel.report import Environment, EvaluatedModel, EvaluateReport
from store import leases
from store.ids import new_id
from store.job_files import JobFile
from store.leases import Lease, Results
from store.values import JobProgress
from tests.api_service import Service, linear, serve, until

ENVIRONMENT = Environment(cpu="x", cpu_features=(), cores=1, memory_bytes=1, platform="x", python="3", libraries={})


def problem(answer: httpx.Response) -> tuple[int, str]:
    assert answer.headers["content-type"] == "application/problem+json", answer.text
    return answer.status_code, answer.json()["code"]


def submit(service: Service, model_id: UUID, dataset_id: UUID, **headers: str) -> httpx.Response:
    body = {"model_ids": [str(model_id)], "dataset_id": str(dataset_id)}
    return service.http.post("/v1/jobs/evaluate", json=body, headers=headers)


def claim(service: Service, job_id: str) -> Lease:
    with service.database.write() as session:
        lease = leases.claim(session, UUID(job_id), worker_id=new_id(), lease_s=60)
    assert lease is not None
    return lease


def progress(service: Service, lease: Lease, done: int) -> None:
    with service.database.write() as session:
        leases.renew(session, lease, lease_s=60, phase="evaluating", progress=JobProgress(done, 10))


def finish(service: Service, lease: Lease, model_id: UUID, *files: JobFile) -> None:
    model = EvaluatedModel(model_id=str(model_id), runtime="onnxruntime:cpu", samples=20, metrics={})
    report = EvaluateReport(split="test", baseline_id=str(model_id), models=(model,), environment=ENVIRONMENT)
    with service.database.write() as session:
        leases.finish(session, lease, Results(report, files=files))


def test_a_job_is_taken_although_the_broker_is_away(service: Service, model_id: UUID, dataset_id: UUID) -> None:
    began = time.perf_counter()
    answer = submit(service, model_id, dataset_id)
    assert answer.status_code == 202, answer.text
    assert time.perf_counter() - began < 2
    job = answer.json()
    assert answer.headers["location"] == f"/v1/jobs/{job['id']}"
    assert answer.headers["retry-after"] == "1"
    assert (job["kind"], job["state"], job["spec"]["split"]) == ("evaluate", "queued", "test")
    assert service.http.get(answer.headers["location"]).json() == job


def test_every_kind(service: Service, model_id: UUID) -> None:
    body = {"model_id": str(model_id), "steps": [{"technique": "optimize_graph"}]}
    assert service.http.post("/v1/jobs/compress", json=body).json()["kind"] == "compress"
    body = {"model_ids": [str(model_id)]}
    assert service.http.post("/v1/jobs/benchmark", json=body).json()["kind"] == "benchmark"
    listed = service.http.get("/v1/jobs?kind=benchmark&state=queued").json()["items"]
    assert {job["kind"] for job in listed} == {"benchmark"}


def test_references_are_checked_and_named(service: Service, model_id: UUID) -> None:
    nobody = "01990000-0000-7000-8000-00000000000f"
    answer = service.http.post("/v1/jobs/benchmark", json={"model_ids": [str(model_id), nobody]})
    assert problem(answer) == (422, "unfit_reference")
    assert answer.json()["errors"][0]["pointer"] == "/model_ids/1"
    answer = service.http.post("/v1/jobs/evaluate", json={"model_ids": [str(model_id)], "dataset_id": nobody})
    assert answer.json()["errors"][0]["pointer"] == "/dataset_id"
    steps = [{"technique": "quantize_static"}]
    answer = service.http.post("/v1/jobs/compress", json={"model_id": str(model_id), "steps": steps})
    assert problem(answer) == (422, "dataset_required")
    assert answer.json()["errors"][0]["pointer"] == "/dataset_id"


def test_a_decoder_is_kept_or_its_field_is_named(service: Service, model_id: UUID, dataset_id: UUID) -> None:
    body = {"model_ids": [str(model_id)], "dataset_id": str(dataset_id)}
    decoder = {"decoder": "ctc_greedy", "blank": 3, "trim": [1]}
    answer = service.http.post("/v1/jobs/evaluate", json=body | {"binding": {"decoder": decoder}})
    assert answer.status_code == 202, answer.text
    assert answer.json()["spec"]["binding"]["decoder"] == decoder
    for wrong, pointer in (
        ({"decoder": "beam"}, "/binding/decoder"),
        ({"decoder": "ctc_greedy", "blank": -1}, "/binding/decoder/ctc_greedy/blank"),
        ({"decoder": "threshold", "blank": 0}, "/binding/decoder/threshold/blank"),
    ):
        answer = service.http.post("/v1/jobs/evaluate", json=body | {"binding": {"decoder": wrong}})
        assert problem(answer) == (422, "invalid")
        assert answer.json()["errors"][0]["pointer"] == pointer


def test_the_same_key_makes_one_job(service: Service, model_id: UUID, dataset_id: UUID) -> None:
    key = {"Idempotency-Key": "k-1"}
    first = submit(service, model_id, dataset_id, **key)
    assert submit(service, model_id, dataset_id, **key).json() == first.json()
    other = service.http.post("/v1/jobs/benchmark", json={"model_ids": [str(model_id)]}, headers=key)
    assert problem(other) == (422, "idempotency_key_reused")
    odd = submit(service, model_id, dataset_id, **{"Idempotency-Key": "x" * 256})
    assert problem(odd) == (422, "invalid")


def test_an_unchanged_job_is_304(service: Service, model_id: UUID, dataset_id: UUID) -> None:
    job = submit(service, model_id, dataset_id).json()
    where = job["links"]["self"]
    tag = service.http.get(where).headers["etag"]
    assert tag == f'W/"{job["version"]}"'
    answer = service.http.get(where, headers={"if-none-match": tag})
    assert (answer.status_code, answer.content, answer.headers["etag"]) == (304, b"", tag)
    claim(service, job["id"])
    assert service.http.get(where, headers={"if-none-match": tag}).status_code == 200


def later(work: object, *arguments: object) -> threading.Timer:
    timer = threading.Timer(0.3, work, arguments)  # type: ignore[arg-type]
    timer.start()
    return timer


def test_waiting_for_the_end(service: Service, model_id: UUID, dataset_id: UUID) -> None:
    job = submit(service, model_id, dataset_id).json()
    lease = claim(service, job["id"])
    timers = [later(progress, service, lease, 1), threading.Timer(0.6, finish, (service, lease, model_id))]
    timers[1].start()
    answer = service.http.get(f"{job['links']['self']}?wait=15")
    for timer in timers:
        timer.join()
    assert answer.json()["state"] == "succeeded"
    assert answer.json()["report"]["kind"] == "evaluate"
    assert "retry-after" not in answer.headers


def test_waiting_for_any_change(service: Service, model_id: UUID, dataset_id: UUID) -> None:
    job = submit(service, model_id, dataset_id).json()
    timer = later(claim, service, job["id"])
    answer = service.http.get(f"{job['links']['self']}?wait=15", headers={"if-none-match": f'W/"{job["version"]}"'})
    timer.join()
    assert (answer.status_code, answer.json()["state"]) == (200, "running")


def test_waiting_in_vain(service: Service, model_id: UUID, dataset_id: UUID) -> None:
    job = submit(service, model_id, dataset_id).json()
    where = f"{job['links']['self']}?wait=0.3"
    assert service.http.get(where).json()["state"] == "queued"
    assert service.http.get(where, headers={"if-none-match": f'W/"{job["version"]}"'}).status_code == 304
    for bad in ("61", "-1", "nan", "x"):
        assert problem(service.http.get(f"{job['links']['self']}?wait={bad}")) == (422, "invalid")


def test_cancel_and_retry(service: Service, model_id: UUID, dataset_id: UUID) -> None:
    job = submit(service, model_id, dataset_id).json()
    assert problem(service.http.post(job["links"]["retry"])) == (409, "illegal_transition")
    cancelled = service.http.post(job["links"]["cancel"])
    assert (cancelled.status_code, cancelled.json()["state"]) == (202, "cancelled")
    assert service.http.post(job["links"]["cancel"]).json()["state"] == "cancelled"
    key = {"Idempotency-Key": "again"}
    again = service.http.post(job["links"]["retry"], headers=key)
    assert again.status_code == 202
    assert again.json()["retry_of"] == job["id"]
    assert again.json()["spec"] == job["spec"]
    assert again.headers["location"] == again.json()["links"]["self"]
    assert service.http.post(job["links"]["retry"], headers=key).json()["id"] == again.json()["id"]

    running = submit(service, model_id, dataset_id).json()
    claim(service, running["id"])
    assert service.http.post(running["links"]["cancel"]).json()["cancel_requested"] is True


def test_files_of_a_job(service: Service, model_id: UUID, dataset_id: UUID, tmp_path: Path) -> None:
    job = submit(service, model_id, dataset_id).json()
    assert service.http.get(job["links"]["files"]).json() == {"items": []}
    content = b"<script>alert(1)</script>" * 9
    (tmp_path / "page").write_bytes(content)
    sha256, size_bytes = service.files.keep(tmp_path / "page")
    files = [JobFile(name, kind, sha256, size_bytes) for name, kind in (("b.html", "text/html"), ("a.bin", "x/y"))]
    finish(service, claim(service, job["id"]), model_id, *files)
    items = service.http.get(job["links"]["files"]).json()["items"]
    where = f"{job['links']['files']}/b.html"
    assert [item["name"] for item in items] == ["a.bin", "b.html"]
    assert items[1] == {
        "name": "b.html",
        "media_type": "text/html",
        "size_bytes": size_bytes,
        "sha256": sha256,
        "link": where,
    }
    answer = service.http.get(where)
    assert (answer.status_code, answer.content) == (200, content)
    headers = answer.headers
    assert headers["content-type"].startswith("text/html")
    assert headers["content-disposition"].startswith('attachment; filename="b.html"')
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["content-security-policy"].startswith("default-src 'none'")
    assert headers["etag"] == f'"{sha256}"'
    assert service.http.get(where, headers={"if-none-match": headers["etag"]}).status_code == 304
    part = service.http.get(where, headers={"range": "bytes=3-7"})
    assert (part.status_code, part.content, part.headers["content-type"]) == (
        206,
        content[3:8],
        headers["content-type"],
    )
    head = service.http.head(where)
    assert (head.status_code, head.content, head.headers["content-length"]) == (200, b"", str(size_bytes))
    assert problem(service.http.get(where, headers={"range": "bytes=9999-"})) == (416, "range_not_satisfiable")
    assert problem(service.http.get(f"{job['links']['files']}/c.html")) == (404, "not_found")
    for odd in ("%00", ".hidden", "a%20b", "x" * 201, "..%2Fx"):
        answer = service.http.get(f"{job['links']['files']}/{odd}")
        assert answer.status_code in {404, 422}, odd
    nobody = "/v1/jobs/01990000-0000-7000-8000-00000000000f/files"
    assert problem(service.http.get(nobody)) == problem(service.http.get(f"{nobody}/a.bin")) == (404, "not_found")


def test_a_baseline_that_was_evaluated_elsewhere_is_refused(service: Service, model_id: UUID, dataset_id: UUID) -> None:
    base = service.upload_model(linear(seed=5), "base")["id"]
    body = {"model_ids": [str(model_id)], "dataset_id": str(dataset_id), "baseline_id": base}
    answer = service.http.post("/v1/jobs/evaluate", json=body)
    assert problem(answer) == (422, "unfit_reference")
    assert answer.json()["errors"][0]["pointer"] == "/baseline_id"
    assert "model_ids" in answer.json()["hint"]


def test_parts_that_do_not_go_together_are_pointed_to(service: Service, model_id: UUID, dataset_id: UUID) -> None:
    models = {"model_ids": [str(model_id)]}
    data = {"dataset_id": str(dataset_id)}
    decoder = {"binding": {"decoder": {"decoder": "ctc_greedy"}}}
    for kind, body, code, pointer in (
        ("benchmark", {"scenario": "server"}, "invalid", "/bound_ms"),
        ("benchmark", {"deadline_seconds": 10}, "contradiction", "/deadline_seconds"),
        ("evaluate", data | decoder | {"contract": {"metric": "f1"}}, "binding_mismatch", "/contract/metric"),
        ("evaluate", data | {"metrics": ["accuracy", "accuracy"]}, "invalid", "/metrics"),
        ("evaluate", data | {"corruptions": [{"corruption": "rain"}]}, "invalid", "/corruptions/0/corruption"),
    ):
        answer = service.http.post(f"/v1/jobs/{kind}", json=models | body)
        assert problem(answer) == (422, code), answer.text
        assert answer.json()["errors"][0]["pointer"] == pointer


@contextmanager
def following(service: Service, path: str, **headers: str) -> Iterator[Iterator[dict[str, str]]]:
    with service.http.stream("GET", path, headers=headers) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        yield parsed(answer.iter_lines())


def parsed(lines: Iterator[str]) -> Iterator[dict[str, str]]:
    event: dict[str, str] = {}
    for line in lines:
        if line:
            name, _, value = line.partition(":")
            event[name or "comment"] = value.strip()
        else:
            yield event
            event = {}


def test_events_as_they_happen(service: Service, model_id: UUID, dataset_id: UUID) -> None:
    job = submit(service, model_id, dataset_id).json()
    with following(service, job["links"]["events"]) as events:
        assert next(events) == {"retry": "1000"}
        first = next(events)
        assert (first["event"], json.loads(first["data"])["state"]) == ("state", "queued")
        lease = claim(service, job["id"])
        assert json.loads(next(events)["data"])["state"] == "running"
        progress(service, lease, 5)
        event = next(events)
        assert (event["event"], json.loads(event["data"])["progress"]["done"]) == ("progress", 5)
        finish(service, lease, model_id)
        last = next(events)
        assert json.loads(last["data"])["state"] == "succeeded"
        assert list(events) == []
    version = service.http.get(job["links"]["self"]).json()["version"]
    assert int(last["id"]) == version

    with following(service, job["links"]["events"], **{"Last-Event-ID": event["id"]}) as events:
        assert [found.get("id") for found in events] == [None, last["id"]]
    with following(service, job["links"]["events"], **{"Last-Event-ID": last["id"]}) as events:
        assert [found.get("id") for found in events] == [None]


def test_events_that_are_asked_for_wrongly(service: Service, model_id: UUID, dataset_id: UUID) -> None:
    job = submit(service, model_id, dataset_id).json()
    for bad in ("x", "-1", "9" * 30):
        answer = service.http.get(job["links"]["events"], headers={"Last-Event-ID": bad})
        assert problem(answer) == (422, "invalid")
    nobody = "/v1/jobs/01990000-0000-7000-8000-00000000000f/events"
    assert problem(service.http.get(nobody)) == (404, "not_found")


def test_silence_is_filled_and_who_leaves_is_forgotten(tmp_path_factory: pytest.TempPathFactory) -> None:
    with serve(tmp_path_factory.mktemp("quiet"), keep_alive_s=0.1) as service:
        model = service.upload_model(linear())
        job = service.http.post("/v1/jobs/benchmark", json={"model_ids": [model["id"]]}).json()
        with following(service, job["links"]["events"]) as events:
            assert next(events) == {"retry": "1000"}
            assert next(events)["event"] == "state"
            assert next(events) == {"comment": "still here"}
            until(lambda: b"accel_waiting_clients 1.0" in service.http.get("/metrics").content)
        until(lambda: b"accel_waiting_clients 0.0" in service.http.get("/metrics").content)
