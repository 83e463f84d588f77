"""Files on their way out: whole or a range, with a tag that never changes because the bytes never do."""

from __future__ import annotations

import re
import urllib.parse
from collections.abc import Callable
from typing import Final

from fastapi import APIRouter, Request, Response
from fastapi.responses import StreamingResponse

from api import etag
from api.answers import problems
from api.digests import field_of
from api.errors import HttpFault
from store.files import Files

_RANGE: Final = re.compile(r"bytes\s*=\s*(\d{0,18})\s*-\s*(\d{0,18})\s*", flags=re.ASCII | re.IGNORECASE)


def file_answer(
    request: Request,
    files: Files,
    *,
    sha256: str,
    size_bytes: int,
    filename: str,
    have: str | None,
    media_type: str = "application/octet-stream",
) -> Response:
    """The bytes of a file, or the part of it that ``Range`` asks for (RFC 9110, section 14).

    Args:
        request: Its method and its headers ``Range`` and ``If-Range`` count.
        files: Where the file is.
        sha256: The file's.
        size_bytes: The file's.
        filename: What the caller's computer shall call it.
        have: The caller's ``If-None-Match``.
        media_type: What the file is. Browsers save it all the same, and never guess: nothing in it runs.

    Raises:
        HttpFault: ``range_not_satisfiable``.
        NotFound: The file is gone.
    """
    tag = etag.strong(sha256)
    headers = {
        "ETag": tag,
        "Accept-Ranges": "bytes",
        "Repr-Digest": field_of(sha256),
        "Content-Disposition": _disposition(filename),
        "Cache-Control": "private, max-age=31536000, immutable",
    }
    if etag.matches(have, tag):
        return Response(status_code=304, headers=headers)
    if_range = request.headers.get("if-range")
    wanted = request.headers.get("range") if if_range is None or if_range.strip() == tag else None
    start, end, status = 0, size_bytes, 200
    found = _RANGE.fullmatch(wanted) if wanted else None
    # Several ranges, other units and nonsense are ignored, as the RFC allows: the whole file answers them.
    if found and (found[1] or found[2]) and not (found[1] and found[2] and int(found[1]) > int(found[2])):
        start, end = _bounds(found[1], found[2], size_bytes)
        status = 206
        headers["Content-Range"] = f"bytes {start}-{end - 1}/{size_bytes}"
    headers["Content-Length"] = str(end - start)
    files.size(sha256)  # before the answer begins: a file that is gone must be a 404, not a broken stream
    if request.method == "HEAD":
        return Response(status_code=status, headers=headers, media_type=media_type)
    return StreamingResponse(files.read(sha256, start, end), status, headers, media_type)


def add_download(
    router: APIRouter,
    path: str,
    endpoint: Callable[..., Response],
    *,
    operation_id: str,
    summary: str,
    about: str = "The file.",
    media_type: str = "application/octet-stream",
) -> None:
    """Serve a file by GET, and by HEAD without its bytes; ``about`` and ``media_type`` describe it in the API's description."""
    router.add_api_route(
        path,
        endpoint,
        methods=["GET"],
        operation_id=operation_id,
        summary=summary,
        response_class=Response,
        responses={
            200: {"description": about, "content": {media_type: {}}},
            206: {"description": "A part of the file.", "content": {media_type: {}}},
            304: {"description": "You have it."},
            **problems(404, 416, 422),
        },
    )
    router.add_api_route(path, endpoint, methods=["HEAD"], include_in_schema=False)


def _bounds(first: str, last: str, size_bytes: int) -> tuple[int, int]:
    if first:
        start, end = int(first), min(int(last) + 1, size_bytes) if last else size_bytes
    else:
        start, end = max(size_bytes - int(last), 0), size_bytes
    if start >= size_bytes or start == end:
        raise HttpFault(
            "range_not_satisfiable",
            f"The file has {size_bytes} bytes; the range lies outside.",
            headers={"Content-Range": f"bytes */{size_bytes}"},
        )
    return start, end


def _disposition(filename: str) -> str:
    plain = re.sub(r"[^A-Za-z0-9._ -]", "_", filename)
    encoded = urllib.parse.quote(filename, safe="")
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{encoded}"
