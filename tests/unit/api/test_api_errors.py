"""Every error has a status, and every refusal is a problem document."""

from __future__ import annotations

from http import HTTPStatus

import httpx
import pytest

from accel.errors import AccelError
from api.errors import STATUS
from store.errors import StoreError
from tests.api_service import Service


def descendants(base: type[Exception]) -> list[type[Exception]]:
    return [base, *(found for child in base.__subclasses__() for found in descendants(child))]


@pytest.mark.parametrize("error", [*descendants(StoreError), *descendants(AccelError)], ids=lambda e: e.__name__)
def test_every_error_class_has_a_status(error: type[StoreError | AccelError]) -> None:
    assert error.code in STATUS, f"{error.__name__} needs a line in api/errors.py"
    assert STATUS[error.code] >= HTTPStatus.BAD_REQUEST


def is_problem(answer: httpx.Response, status: int, code: str) -> dict[str, object]:
    document = answer.json()
    assert (answer.status_code, document["code"]) == (status, code), answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert document["status"] == status
    assert document["type"] == f"urn:accel:problem:{code}"
    assert document["title"]
    assert document["detail"]
    assert document["request_id"] == answer.headers["x-request-id"]
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    return document


def test_unknown_route(service: Service) -> None:
    is_problem(service.http.get("/v1/nothing"), 404, "unknown_route")


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("PUT", "/v1/models", "GET, POST"),
        ("PATCH", "/v1/models/01990000-0000-7000-8000-000000000001", "DELETE, GET"),
        ("DELETE", "/v1/jobs", "GET"),
        ("POST", "/livez", "GET"),
        ("GET", "/v1/jobs/01990000-0000-7000-8000-000000000001/cancel", "POST"),
        ("POST", "/v1/models/01990000-0000-7000-8000-000000000001/file", "GET, HEAD"),
    ],
)
def test_method_not_allowed(service: Service, method: str, path: str, allow: str) -> None:
    answer = service.http.request(method, path)
    is_problem(answer, 405, "method_not_allowed")
    assert answer.headers["allow"] == allow


@pytest.mark.parametrize(
    ("body", "what"),
    [
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b"\xff\xfe", "UTF"),
        (b'{"seed": NaN}', "NaN"),
        (b'{"seed": -Infinity}', "Infinity"),
        (b'{"seed": 1e999}', "too large"),
        (b'{"seed": ' + b"9" * 6000 + b"}", "digits"),
        (b'{"split": "\\ud800"}', "surrogate"),
        (b'{"split": "\\u0000"}', "NUL"),
        (b'{"\\u0000": 1}', "NUL"),
        (b'{"seed": 1, "seed": 2}', "twice"),
        (b"[" * 100_000, "deeper"),
        (b"[" * 100 + b"]" * 100, "deeper"),
    ],
)
def test_malformed_json(service: Service, body: bytes, what: str) -> None:
    answer = service.http.post("/v1/jobs/evaluate", content=body, headers={"content-type": "application/json"})
    assert what in str(is_problem(answer, 400, "bad_json")["detail"])


def test_body_that_is_not_json(service: Service) -> None:
    answer = service.http.post("/v1/jobs/evaluate", content=b"a=1", headers={"content-type": "text/plain"})
    is_problem(answer, 415, "unsupported_media_type")
    is_problem(service.http.post("/v1/jobs/evaluate"), 415, "unsupported_media_type")


def test_body_that_is_too_large(service: Service) -> None:
    body = b'"' + b"a" * (1 << 20) + b'"'
    answer = service.http.post("/v1/jobs/evaluate", content=body, headers={"content-type": "application/json"})
    is_problem(answer, 413, "body_too_large")
    chunked = service.http.post(
        "/v1/jobs/evaluate", content=iter([body[:1000], body[1000:]]), headers={"content-type": "application/json"}
    )
    is_problem(chunked, 413, "body_too_large")


def test_validation_names_every_field_by_pointer(service: Service) -> None:
    body = {"model_id": "x", "steps": [{"technique": "quantize_static", "samples": 0}], "extra": 1}
    document = is_problem(service.http.post("/v1/jobs/compress", json=body), 422, "invalid")
    pointers = {error["pointer"] for error in document["errors"]}  # type: ignore[index, attr-defined]
    assert "/model_id" in pointers
    assert "/extra" in pointers
    assert any(pointer.startswith("/steps/0/") and pointer.endswith("/samples") for pointer in pointers)


def test_parameters_are_named_too(service: Service) -> None:
    document = is_problem(service.http.get("/v1/jobs?page_size=0"), 422, "invalid")
    assert document["errors"][0]["pointer"] == "#query/page_size"  # type: ignore[index]
    is_problem(service.http.get("/v1/jobs/not-an-id"), 422, "invalid")
    is_problem(service.http.get("/v1/jobs?page_token=nonsense!"), 422, "bad_page_token")


@pytest.mark.parametrize("path", ["models", "datasets", "jobs"])
def test_unknown_ids(service: Service, path: str) -> None:
    is_problem(service.http.get(f"/v1/{path}/01990000-0000-7000-8000-000000000009"), 404, "not_found")


def test_request_ids_are_kept_when_they_are_sane(service: Service) -> None:
    assert service.http.get("/livez", headers={"x-request-id": "mine-1"}).headers["x-request-id"] == "mine-1"
    assert service.http.get("/livez", headers={"x-request-id": "a b"}).headers["x-request-id"] != "a b"


def test_no_other_site_may_read_answers(service: Service) -> None:
    answer = service.http.get("/livez", headers={"origin": "https://example.org"})
    assert "access-control-allow-origin" not in answer.headers
