"""The API's description: kept in the repository, complete, and true."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from api.main import create_app, routed
from api.openapi import describe
from api.settings import ApiSettings
from store.database import Database
from store.migrate import upgrade
from store.settings import StoreSettings

ROOT = Path(__file__).parents[2]
SPEC: dict[str, Any] = json.loads(json.dumps(describe(routed())))
UPLOADS = {("post", "/v1/models"), ("post", "/v1/datasets")}
OPERATIONS = [
    pytest.param(path, method, operation, id=f"{method} {path}")
    for path, operations in SPEC["paths"].items()
    for method, operation in operations.items()
]


def test_the_kept_description_is_current() -> None:
    kept = json.loads((ROOT / "openapi.json").read_text())
    assert kept == SPEC, "run `make openapi`"


def test_operations_have_names_of_their_own() -> None:
    names = [operation.values[2]["operationId"] for operation in OPERATIONS]
    assert len(names) == len(set(names))


@pytest.mark.parametrize(("path", "method", "operation"), OPERATIONS)
def test_every_operation_is_described(path: str, method: str, operation: dict[str, Any]) -> None:
    assert operation["tags"]
    assert operation["summary"]
    assert operation["description"]
    success = [status for status in operation["responses"] if status.startswith("2")]
    assert success
    if path.startswith("/v1/") and path != "/v1/techniques":
        assert "503" in operation["responses"]
    for status, response in operation["responses"].items():
        if int(status) >= 400 and path != "/readyz":
            assert list(response["content"]) == ["application/problem+json"], (status, response)
    if method == "post" and "requestBody" in operation:
        for kind, body in operation["requestBody"]["content"].items():
            assert kind == "multipart/form-data" or body["examples"]


def test_every_reference_leads_somewhere() -> None:
    for reference in references(SPEC):
        place: Any = SPEC
        for part in reference.removeprefix("#/").split("/"):
            place = place[part]


def references(node: object) -> Iterator[str]:
    if isinstance(node, dict):
        for name, value in node.items():
            if name == "$ref":
                yield value
            else:
                yield from references(value)
    elif isinstance(node, list):
        for value in node:
            yield from references(value)


@pytest.mark.parametrize("path", ["/v1/models", "/v1/datasets"])
def test_uploads_show_a_file_picker(path: str) -> None:
    schema = SPEC["paths"][path]["post"]["requestBody"]["content"]["multipart/form-data"]["schema"]
    assert schema["properties"]["file"]["type"] == "string"
    assert schema["properties"]["file"]["format"] == "binary"
    assert schema["required"] == ["file"]


@pytest.fixture(scope="module")
def described(tmp_path_factory: pytest.TempPathFactory) -> schemathesis.BaseSchema:
    home = tmp_path_factory.mktemp("described")
    store = StoreSettings(
        database_url=f"sqlite:///{home / 'accel.sqlite3'}",
        files_url=f"file://{home / 'files'}",
        broker_url="redis://127.0.0.1:1/0",
    )
    database = Database(store.database_url)
    upgrade(database)
    database.dispose()
    app = create_app(ApiSettings(min_free_bytes=0, access_log=False, dispatch_in_api=False), store)
    return schemathesis.openapi.from_asgi("/openapi.json", app)


def test_the_description_is_true(described: schemathesis.BaseSchema) -> None:
    """Requests drawn from the description get answers that it foresees, and never a 500."""
    checks = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]
    tried = 0
    for found in described.get_all_operations():
        operation = found.ok()
        # Event streams and uploads have tests of their own, over real sockets.
        if operation.path.endswith("/events") or (operation.method, operation.path) in UPLOADS:
            continue

        @given(case=operation.as_strategy())
        @settings(
            max_examples=12, derandomize=True, deadline=None, database=None, suppress_health_check=list(HealthCheck)
        )
        def holds(case: schemathesis.Case) -> None:
            if case.query.get("wait"):
                case.query["wait"] = 0
            case.call_and_validate(checks=checks)

        holds()
        tried += 1
    assert tried >= 20
