"""Parts that several routes share: the described problems, pages, and documents with an ETag."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Final

from fastapi import Query, Request, Response
from pydantic import BaseModel

from api import etag
from api.errors import HttpFault, Problem
from api.problems import MEDIA_TYPE
from store.idempotency import IdempotencyKey

Responses = dict[int | str, dict[str, Any]]

_TEXT: Final[Mapping[int, str]] = {
    400: "Malformed body or header.",
    404: "There is no such object.",
    406: "None of the formats that you accept.",
    409: "The object's state does not allow it.",
    413: "The body is too large.",
    415: "The format is not taken.",
    416: "The range lies outside the file.",
    422: "Something in the request does not fit; `errors` names the fields.",
    503: "The database does not answer; try again soon.",
    507: "The service's disk is full.",
}


def problems(*statuses: int) -> Responses:
    """Descriptions of the problems that an operation may answer with."""
    content = {MEDIA_TYPE: {"schema": {"$ref": f"#/components/schemas/{Problem.__name__}"}}}
    return {status: {"description": _TEXT[status], "content": content} for status in (*statuses, 503)}


PageSize = Annotated[int, Query(ge=1, le=200, description="Objects on a page.")]
PageToken = Annotated[str | None, Query(max_length=200, description="`next_page_token` of the page before.")]


def document(
    value: BaseModel, *, status: int = 200, tag: str | None = None, have: str | None = None, location: str | None = None
) -> Response:
    """A document as JSON; 304 when ``have``, the caller's ``If-None-Match``, names its tag."""
    headers = {}
    if tag is not None:
        headers["ETag"] = tag
        if etag.matches(have, tag):
            return Response(status_code=304, headers=headers)
    if location is not None:
        headers["Location"] = location
    return Response(value.model_dump_json(), status, headers, "application/json")


def page_links(request: Request, next_page_token: str | None) -> dict[str, str]:
    """The ``Link`` to the next page, where there is one."""
    if next_page_token is None:
        return {}
    following = request.url.include_query_params(page_token=next_page_token)
    return {"Link": f'<{following.path}?{following.query}>; rel="next"'}


def idempotency_key(key: str | None, *parts: str) -> IdempotencyKey | None:
    """The caller's key, bound to the request that it came with.

    Raises:
        HttpFault: It is not of printable ASCII characters.
    """
    if key is None:
        return None
    if not (key.isascii() and key.isprintable()):
        raise HttpFault("invalid", "The header Idempotency-Key must be of printable ASCII characters.")
    return IdempotencyKey.of(key, *parts)
