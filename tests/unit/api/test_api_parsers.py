"""What the API reads by itself: forms, JSON, tags, digests, preferences. No server is needed."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api import digests, etag, json_body
from api.accept import preferred
from api.errors import HttpFault
from api.multipart import FormReader, boundary_of

HEAD = b'--B\r\nContent-Disposition: form-data; name="file"; filename="m.onnx"\r\nContent-Digest: sha-256=:x:\r\n\r\n'
NAME = b'\r\n--B\r\nContent-Disposition: form-data; name="name"\r\n\r\n'


def read(body: bytes, sizes: list[int]) -> tuple[FormReader, bytes]:
    taken = bytearray()
    form = FormReader(b"B", fields=frozenset({"name"}), on_file=taken.extend)
    place = 0
    for size in sizes:
        form.feed(body[place : place + size])
        place += size
    form.feed(body[place:])
    return form, bytes(taken)


@given(
    content=st.one_of(
        st.binary(max_size=400), st.lists(st.sampled_from([b"\r", b"\n", b"--", b"B", b"x"])).map(b"".join)
    ),
    name=st.text(max_size=20),
    sizes=st.lists(st.integers(1, 40), max_size=60),
)
def test_a_file_comes_out_as_it_went_in_however_it_is_cut(content: bytes, name: str, sizes: list[int]) -> None:
    if b"\r\n--B" in content or "\r\n--B" in name:
        return
    form, taken = read(HEAD + content + NAME + name.encode() + b"\r\n--B--\r\n", sizes)
    assert form.finish() == {"name": name}
    assert taken == content
    assert form.filename == "m.onnx"
    assert form.file_headers[b"content-digest"] == b"sha-256=:x:"


@given(st.binary(max_size=300))
def test_nonsense_is_refused_and_nothing_else(body: bytes) -> None:
    with pytest.raises(HttpFault):
        read(body, [])[0].finish()


@given(st.integers(0, len(HEAD) + 20))
def test_a_form_without_its_end_is_refused(cut: int) -> None:
    body = HEAD + b"x" * 20 + b"\r\n--B--"
    with pytest.raises(HttpFault):
        read(body[: min(cut, len(body) - 3)], [])[0].finish()


def test_boundaries() -> None:
    assert boundary_of('multipart/form-data; boundary="a b"') == b"a b"
    for bad in (None, "", "text/plain", "multipart/mixed; boundary=B"):
        with pytest.raises(HttpFault, match="multipart/form-data"):
            boundary_of(bad)
    with pytest.raises(HttpFault, match="Boundary"):
        FormReader(b"x" * 300, fields=frozenset(), on_file=lambda _: None)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@given(json_values)
def test_json_is_read_as_it_was_written(value: object) -> None:
    text = json.dumps(value)
    if "\\u0000" in text:
        return
    assert json_body.parse(text.encode()) == value


@given(st.binary(max_size=60))
def test_any_bytes_give_a_value_or_a_clear_refusal(text: bytes) -> None:
    with contextlib.suppress(HttpFault):
        json_body.parse(text)


def test_pointers_name_the_text_at_fault() -> None:
    with pytest.raises(HttpFault) as caught:
        json_body.parse(b'{"a/b": [1, {"~": "\\ud800"}]}')
    assert caught.value.faults[0].pointer == "/a~1b/1/~0"


@pytest.mark.parametrize(
    ("header", "fits"),
    [
        (None, False),
        ("", False),
        ('W/"7"', True),
        ('"7"', True),
        ("*", True),
        ('"6", W/"7"', True),
        ('"a,b", "7"', True),
        ("7", False),
        ('W/"70"', False),
        ('"unfinished', False),
    ],
)
def test_tags(header: str | None, *, fits: bool) -> None:
    assert etag.matches(header, etag.weak(7)) is fits


def test_versions_in_tags() -> None:
    assert etag.version_in('W/"12"') == 12
    for other in (None, "", "*", '"a"', 'W/"1", W/"2"', '"\u0661"'):
        assert etag.version_in(other) is None


@given(st.binary())
def test_digests(content: bytes) -> None:
    sha256 = hashlib.sha256(content).hexdigest()
    assert digests.sha256_in(digests.field_of(sha256), "Repr-Digest") == sha256


def test_digests_of_other_kinds() -> None:
    assert digests.sha256_in(None, "x") is None
    assert digests.sha256_in("md5=:AAAA:", "x") is None
    short = base64.b64encode(b"short").decode()
    for bad in ("sha-256", "sha-256=abc", f"sha-256=:{short}:", "sha-256=:A:", "sha-256=:AAAA: nonsense"):
        with pytest.raises(HttpFault):
            digests.sha256_in(bad, "x")


OFFERED = ("application/json", "text/html", "text/csv")


@pytest.mark.parametrize(
    ("accept", "best"),
    [
        (None, "application/json"),
        ("*/*", "application/json"),
        ("text/*", "text/html"),
        ("text/csv", "text/csv"),
        ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", "text/html"),
        ("text/csv;q=0.5, application/json;q=0.4", "text/csv"),
        ("application/json;q=0, */*", "text/html"),
        ("TEXT/CSV; charset=utf-8", "text/csv"),
        ("image/png", None),
        ("text/html;q=nonsense", None),
    ],
)
def test_preferences(accept: str | None, best: str | None) -> None:
    assert preferred(accept, OFFERED) == best
