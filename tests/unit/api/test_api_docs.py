"""Swagger UI and the description, the catalogue and the health of the service."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path

import pytest

import api
from accel.report import Environment, HostSummary, RuntimeSummary, SandboxSummary
from api.examples import DATASET_ID, MODEL_ID
from store import workers
from store.ids import new_id
from tests.api_service import Service, linear, rows, serve

SWAGGER_UI = Path(api.__file__).parent / "static" / "swagger-ui"


def test_assets_are_those_that_were_published() -> None:
    sums = dict(reversed(line.split()) for line in (SWAGGER_UI / "SHA256SUMS.txt").read_text().splitlines())
    present = {path.name for path in SWAGGER_UI.iterdir()} - {"SHA256SUMS.txt", "VERSION.txt"}
    assert present == set(sums)
    for name, sha256 in sums.items():
        assert hashlib.sha256((SWAGGER_UI / name).read_bytes()).hexdigest() == sha256, name


def test_the_page_comes_whole_from_here(service: Service) -> None:
    home = service.http.get("/")
    assert (home.status_code, home.headers["location"]) == (307, "/docs")
    page = service.http.get("/docs")
    assert "script-src 'self';" in page.headers["content-security-policy"]
    assert not re.search(r"https?://", page.text)
    for address in re.findall(r'(?:src|href|content)="(/[^"]+)"', page.text):
        answer = service.http.get(address)
        assert answer.status_code == 200, address
        assert answer.headers["x-content-type-options"] == "nosniff"


def test_examples_run_as_they_stand_after_an_upload(service: Service, tmp_path: Path) -> None:
    model = service.upload_model(linear(seed=41))
    dataset = service.upload_dataset(rows(tmp_path, seed=41))
    spec = service.http.get("/docs/openapi.json").json()
    tried = 0
    for path, operations in spec["paths"].items():
        body = operations.get("post", {}).get("requestBody", {}).get("content", {}).get("application/json")
        if body is None:
            continue
        assert body["examples"], path
        for name, example in body["examples"].items():
            text = json.dumps(example["value"])
            assert MODEL_ID not in text
            assert DATASET_ID not in text
            assert str(model["id"]) in text or str(dataset["id"]) in text
            answer = service.http.post(path, json=example["value"])
            assert answer.status_code == 202, (path, name, answer.text)
            tried += 1
    assert tried >= 8
    assert str(dataset["id"]) in json.dumps(spec)
    for path in ("/v1/models/{model_id}", "/v1/datasets/{dataset_id}", "/v1/jobs/{job_id}"):
        parameter = spec["paths"][path]["get"]["parameters"][0]
        where = path.replace("{" + parameter["name"] + "}", parameter["example"])
        if path != "/v1/jobs/{job_id}":  # no job was there yet when the description was made
            assert service.http.get(where).status_code == 200


def test_techniques(service: Service) -> None:
    items = {item["technique"]: item for item in service.http.get("/v1/techniques").json()["items"]}
    assert items["quantize_static"]["needs_data"] is True
    assert items["optimize_graph"]["needs_data"] is False
    for name, item in items.items():
        assert item["help"]
        assert item["example"]["technique"] == name
        assert item["parameters"]["properties"]["technique"]["const"] == name


def announce(service: Service) -> None:
    summary = HostSummary(
        runtimes=(
            RuntimeSummary(name="onnxruntime:cpu", version="1", device="cpu", available=True),
            RuntimeSummary(name="onnxruntime:openvino", version="1", device="cpu", available=False, reason="no device"),
        ),
        sandbox=SandboxSummary(active=("rlimits",), missing={"landlock": "the kernel is too old"}),
        environment=Environment(
            cpu="x", cpu_features=(), cores=2, memory_bytes=1, platform="x", python="3", libraries={}
        ),
    )
    with service.database.write() as session:
        workers.announce(session, new_id(), host="here", pid=1, queues=("cpu",), summary=summary)


def test_ready_and_what_is_lacking(tmp_path: Path) -> None:
    with serve(tmp_path) as service:
        assert service.http.get("/livez").json() == {"status": "ok"}
        answer = service.http.get("/readyz")
        assert answer.status_code == 200
        ready = answer.json()
        assert ready["status"] == "degraded"
        assert {name: check["ok"] for name, check in ready["checks"].items()} == {
            "database": True,
            "broker": False,
            "files": True,
            "space": True,
            "workers": False,
        }
        announce(service)
        ready = service.http.get("/readyz").json()
        assert ready["live_workers"] == 1
        assert ready["confinement"] == [
            {"host": "here", "active": ["rlimits"], "missing": {"landlock": "the kernel is too old"}}
        ]
        runtimes = service.http.get("/v1/runtimes").json()["items"]
        assert [(runtime["name"], runtime["available"]) for runtime in runtimes] == [
            ("onnxruntime:cpu", True),
            ("onnxruntime:openvino", False),
        ]
        assert [runtime["forecasts"] for runtime in runtimes] == [None, None]
        assert service.http.get("/v1/workers").json()["items"][0]["queues"] == ["cpu"]


def test_a_service_without_its_tables_is_not_ready(tmp_path: Path) -> None:
    with serve(tmp_path) as service:
        with service.database.write() as session:
            session.connection().exec_driver_sql("ALTER TABLE jobs RENAME TO gone")
        answer = service.http.get("/readyz")
        assert (answer.status_code, answer.json()["status"]) == (503, "unavailable")
        assert answer.json()["live_workers"] is None
        broken = service.http.get("/v1/jobs")
        assert (broken.status_code, broken.json()["code"]) == (503, "unavailable")
        assert broken.headers["retry-after"] == "2"
        assert service.http.get("/docs/openapi.json").status_code == 200


def test_metrics_count_templates_not_ids(service: Service) -> None:
    service.http.get("/v1/models/01990000-0000-7000-8000-000000000009")
    text = service.http.get("/metrics").text
    assert 'route="/v1/models/{model_id}",status="404"' in text
    assert "01990000" not in text
    assert 'accel_jobs{state="queued"}' in text


def test_an_error_nobody_foresaw(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with serve(tmp_path) as service:
        model = service.upload_model(linear())
        with service.database.write() as session:
            session.connection().exec_driver_sql("UPDATE models SET summary = '{}'")
        answer = service.http.get(f"/v1/models/{model['id']}")
        assert (answer.status_code, answer.json()["code"]) == (500, "internal")
        assert answer.json()["request_id"] in answer.json()["hint"]
        assert "ValidationError" not in answer.text
    lines = [json.loads(line) for line in capfd.readouterr().out.splitlines() if line.startswith("{")]
    (logged,) = [line for line in lines if line["event"] == "unforeseen"]
    assert logged["request_id"] == answer.json()["request_id"]
    assert "ValidationError" in logged["exception"]


def test_one_line_in_the_log_for_each_request(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with serve(tmp_path, access_log=True) as service:
        service.http.get("/v1/nothing", headers={"x-request-id": "seen"})
    lines = [json.loads(line) for line in capfd.readouterr().out.splitlines() if line.startswith("{")]
    (line,) = [line for line in lines if line.get("request_id") == "seen"]
    assert (line["method"], line["path"], line["status"], line["problem"]) == (
        "GET",
        "/v1/nothing",
        404,
        "unknown_route",
    )
