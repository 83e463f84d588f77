"""Files on their way in and out, over a real socket, checked by the real engine."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import socket
from pathlib import Path
from uuid import UUID

import httpx
import numpy as np
import pytest

from tests.api_service import Service, linear, rows, serve, until
from tests.hostile import FILES


def problem(answer: httpx.Response) -> tuple[int, str]:
    assert answer.headers["content-type"] == "application/problem+json", answer.text
    return answer.status_code, answer.json()["code"]


def test_a_model_is_described_and_kept(service: Service) -> None:
    content = linear(seed=1)
    answer = service.http.post("/v1/models", files={"file": ("a/b\\m.onnx", content)}, data={"name": " mine "})
    assert answer.status_code == 201, answer.text
    model = answer.json()
    assert answer.headers["location"] == f"/v1/models/{model['id']}" == model["links"]["self"]
    assert (model["name"], model["size_bytes"]) == ("mine", len(content))
    assert model["sha256"] == hashlib.sha256(content).hexdigest()
    assert model["summary"]["parameters"] == 12
    assert service.http.get(model["links"]["self"]).json() == model
    assert not service.left_behind()

    again = service.http.post("/v1/models", files={"file": ("other.onnx", content)})
    assert (again.status_code, again.json()) == (200, model)


def test_a_model_without_a_name_gets_that_of_its_file(service: Service) -> None:
    answer = service.http.post("/v1/models", files={"file": ("C:\\models\\net.onnx", linear(seed=2))})
    assert answer.json()["name"] == "net.onnx"


def test_a_dataset_is_described_and_kept(service: Service, tmp_path: Path) -> None:
    content = rows(tmp_path, seed=1)
    form = {"name": "rows", "spec": json.dumps({"task": "classification"})}
    answer = service.http.post("/v1/datasets", files={"file": ("rows.npz", content)}, data=form)
    assert answer.status_code == 201, answer.text
    dataset = answer.json()
    assert dataset["summary"]["splits"] == {"test": 20}
    assert service.http.get(dataset["links"]["self"]).json() == dataset
    assert service.http.get(dataset["links"]["file"]).content == content
    again = service.http.post("/v1/datasets", files={"file": ("rows.npz", content)}, data=form)
    assert (again.status_code, again.json()["id"]) == (200, dataset["id"])


THROUGH_THE_DOOR = (
    "text", "truncated", "external_initializer", "external_constant", "external_in_if", "external_in_function",
    "unknown_domain", "pickle", "torchscript", "pt2", "keras",
)  # fmt: skip


@pytest.mark.parametrize("name", THROUGH_THE_DOOR)
def test_bad_models_leave_nothing(service: Service, name: str) -> None:
    hostile = next(hostile for hostile in FILES if hostile.name == name)
    before = service.kept()
    answer = service.http.post("/v1/models", files={"file": ("m.onnx", hostile.make())})
    status = 415 if hostile.code == "unsupported_format" else 422
    assert problem(answer) == (status, hostile.code), answer.text
    assert hostile.says in answer.json()["detail"] + answer.json()["hint"]
    assert service.kept() == before
    assert not service.left_behind()


def test_an_empty_file(service: Service) -> None:
    before = service.kept()
    for path in ("models", "datasets"):
        answer = service.http.post(f"/v1/{path}", files={"file": ("m.onnx", b"")})
        assert problem(answer) == (422, "empty_file")
    assert service.kept() == before
    assert not service.left_behind()


def objects() -> bytes:
    file = io.BytesIO()
    np.savez(file, x_test=np.array([{"a": 1}, None], dtype=object), y_test=np.array([0, 1]))
    return file.getvalue()


def terabytes() -> bytes:
    file = io.BytesIO()
    header = {"descr": "<f4", "fortran_order": False, "shape": (1 << 40,)}
    np.lib.format.write_array_header_1_0(file, header)
    return file.getvalue() + b"\0" * 64


@pytest.mark.parametrize(
    ("name", "content"), [("o.npz", objects()), ("t.npy", terabytes()), ("z.npz", b"PK\x03\x04 and no more")]
)
def test_bad_datasets_leave_nothing(service: Service, name: str, content: bytes) -> None:
    before = service.kept()
    answer = service.http.post("/v1/datasets", files={"file": (name, content)})
    assert answer.status_code in {415, 422}, answer.text
    assert problem(answer)[1] in {"bad_dataset", "unsupported_format", "too_large"}
    assert service.kept() == before
    assert not service.left_behind()


def test_forms_that_do_not_fit(service: Service, tmp_path: Path) -> None:
    post = service.http.post
    file = ("m.onnx", linear())
    assert problem(post("/v1/models", data={"name": "x"})) == (415, "unsupported_media_type")
    assert problem(post("/v1/models", files={"name": (None, b"x")})) == (422, "invalid")
    assert problem(post("/v1/models", files=[("file", file), ("file", file)])) == (422, "invalid")
    assert problem(post("/v1/models", files={"file": file, "other": (None, b"x")})) == (422, "invalid")
    assert problem(post("/v1/models", files={"file": (None, b"text")})) == (422, "invalid")
    assert problem(post("/v1/models", files={"file": file}, data={"name": "a\0b"})) == (422, "invalid")
    assert problem(post("/v1/models", files={"file": file}, data={"name": "x" * 201})) == (422, "invalid")
    no_boundary = {"content-type": "multipart/form-data"}
    assert problem(post("/v1/models", content=b"x", headers=no_boundary)) == (400, "bad_multipart")
    broken = {"content-type": "multipart/form-data; boundary=B"}
    assert problem(post("/v1/models", content=b"no boundary here", headers=broken)) == (400, "bad_multipart")
    unfinished = b'--B\r\ncontent-disposition: form-data; name="file"; filename="m"\r\n\r\nbytes'
    assert problem(post("/v1/models", content=unfinished, headers=broken)) == (400, "bad_multipart")
    data = ("d.npz", rows(tmp_path))
    assert problem(post("/v1/datasets", files={"file": data}, data={"spec": "{"})) == (400, "bad_json")
    bad = post("/v1/datasets", files={"file": data}, data={"spec": '{"splits": {"fractions": {"a": 2}}}'})
    assert problem(bad) == (422, "invalid")
    assert bad.json()["errors"][0]["pointer"].startswith("/spec/splits")
    assert not service.left_behind()


def digest(content: bytes) -> str:
    return f"sha-256=:{base64.b64encode(hashlib.sha256(content).digest()).decode()}:"


def test_digests_are_checked(service: Service) -> None:
    content = linear(seed=3)
    file = {"file": ("m.onnx", content)}
    before = service.kept()
    for header in ("Repr-Digest", "Content-Digest"):
        wrong = service.http.post("/v1/models", files=file, headers={header: digest(b"other")})
        assert problem(wrong) == (422, "digest_mismatch")
        odd = service.http.post("/v1/models", files=file, headers={header: "sha-256=nonsense"})
        assert problem(odd) == (400, "bad_digest")
    assert service.kept() == before
    right = service.http.post("/v1/models", files=file, headers={"Repr-Digest": f"md5=:AAAA:, {digest(content)}"})
    assert right.status_code == 201
    request = service.http.build_request("POST", "/v1/models", files=file)
    body = request.read()
    request.headers["content-digest"] = digest(body)
    assert service.http.send(request).status_code == 200


def test_an_upload_that_is_cut_off_leaves_nothing(service: Service) -> None:
    before = service.kept()
    head = (
        b"POST /v1/models HTTP/1.1\r\nHost: x\r\nContent-Type: multipart/form-data; boundary=B\r\n"
        b"Content-Length: 90000000\r\n\r\n"
        b'--B\r\nContent-Disposition: form-data; name="file"; filename="m.onnx"\r\n\r\n'
    )
    with socket.create_connection(("127.0.0.1", service.port)) as connection:
        connection.sendall(head + b"x" * (8 << 20))
        until(service.left_behind)
    until(lambda: not service.left_behind())
    assert service.kept() == before
    assert service.http.get("/livez").status_code == 200


def test_too_large_a_file(tmp_path: Path) -> None:
    with serve(tmp_path, upload_limit_bytes=100_000) as service:
        file = b"x" * 100_001
        body = service.http.build_request("POST", "/v1/models", files={"file": ("m.onnx", file)})
        content, kind = body.read(), body.headers["content-type"]
        streamed = service.http.post("/v1/models", content=iter([content]), headers={"content-type": kind})
        assert problem(streamed) == (413, "body_too_large")
        head = f"POST /v1/models HTTP/1.1\r\nHost: x\r\nContent-Type: {kind}\r\nContent-Length: 99999999999\r\n\r\n".encode()
        with socket.create_connection(("127.0.0.1", service.port)) as connection:
            connection.sendall(head)  # and not one byte of the body
            connection.settimeout(10)
            assert connection.recv(12) == b"HTTP/1.1 413"
        assert not service.left_behind()


def test_a_disk_without_space(tmp_path: Path) -> None:
    with serve(tmp_path, min_free_bytes=1 << 62) as service:
        answer = service.http.post("/v1/models", files={"file": ("m.onnx", linear())})
        assert problem(answer) == (507, "disk_full")
        assert not service.left_behind()
        assert not service.kept()
        checks = service.http.get("/readyz").json()["checks"]
        assert not checks["space"]["ok"]


def test_downloads(service: Service, model_id: UUID) -> None:
    content = linear()
    where = f"/v1/models/{model_id}/file"
    whole = service.http.get(where)
    assert whole.content == content
    tag = whole.headers["etag"]
    assert tag == f'"{hashlib.sha256(content).hexdigest()}"'
    assert whole.headers["repr-digest"] == digest(content)
    assert whole.headers["content-disposition"].startswith('attachment; filename="linear.onnx"')
    assert service.http.get(where, headers={"if-none-match": tag}).status_code == 304
    head = service.http.head(where)
    assert (head.status_code, head.headers["content-length"], head.content) == (200, str(len(content)), b"")


@pytest.mark.parametrize(
    ("wanted", "status", "part"),
    [
        ("bytes=0-0", 206, slice(0, 1)),
        ("bytes=10-19", 206, slice(10, 20)),
        ("bytes=10-", 206, slice(10, None)),
        ("bytes=-5", 206, slice(-5, None)),
        ("bytes=-999999", 206, slice(None)),
        ("bytes=0-999999", 206, slice(None)),
        ("bytes=5-2", 200, slice(None)),
        ("bytes=0-1,5-6", 200, slice(None)),
        ("lines=1-2", 200, slice(None)),
        ("bytes=-", 200, slice(None)),
    ],
)
def test_ranges(service: Service, model_id: UUID, wanted: str, status: int, part: slice) -> None:
    answer = service.http.get(f"/v1/models/{model_id}/file", headers={"range": wanted})
    assert (answer.status_code, answer.content) == (status, linear()[part])


def test_ranges_beyond_the_end(service: Service, model_id: UUID) -> None:
    for wanted in ("bytes=999999-", "bytes=-0"):
        answer = service.http.get(f"/v1/models/{model_id}/file", headers={"range": wanted})
        assert problem(answer) == (416, "range_not_satisfiable")
        assert answer.headers["content-range"] == f"bytes */{len(linear())}"
    stale = {"range": "bytes=0-0", "if-range": '"other"'}
    assert service.http.get(f"/v1/models/{model_id}/file", headers=stale).status_code == 200


def test_names_do_not_break_headers(service: Service) -> None:
    model = service.upload_model(linear(seed=4), name='a"b; ü\r\nX-Evil: 1')
    answer = service.http.get(f"/v1/models/{model['id']}/file")
    assert "x-evil" not in answer.headers
    assert "%C3%BC" in answer.headers["content-disposition"]


def test_the_same_key_makes_one_object(service: Service) -> None:
    key = {"Idempotency-Key": "upload-1"}
    file = {"file": ("m.onnx", linear(seed=5))}
    first = service.http.post("/v1/models", files=file, headers=key)
    assert first.status_code == 201
    assert service.http.post("/v1/models", files=file, headers=key).json() == first.json()
    other = service.http.post("/v1/models", files={"file": ("m.onnx", linear(seed=6))}, headers=key)
    assert problem(other) == (422, "idempotency_key_reused")


def test_delete(service: Service) -> None:
    model = service.upload_model(linear(seed=7))
    job = service.http.post("/v1/jobs/benchmark", json={"model_ids": [model["id"]]}).json()
    assert problem(service.http.delete(f"/v1/models/{model['id']}")) == (409, "in_use")
    service.http.post(f"/v1/jobs/{job['id']}/cancel")
    assert service.http.delete(f"/v1/models/{model['id']}").status_code == 204
    assert problem(service.http.delete(f"/v1/models/{model['id']}")) == (404, "not_found")


def test_pages_have_every_model_once(service: Service) -> None:
    made = {str(service.upload_model(linear(seed=seed))["id"]) for seed in range(20, 25)}
    seen: list[str] = []
    where = "/v1/models?page_size=2"
    while True:
        answer = service.http.get(where)
        page = answer.json()
        seen += [item["id"] for item in page["items"]]
        if page["next_page_token"] is None:
            assert "link" not in answer.headers
            break
        where = answer.links["next"]["url"]
    assert len(seen) == len(set(seen))
    assert made <= set(seen)
    assert seen == sorted(seen, reverse=True)
