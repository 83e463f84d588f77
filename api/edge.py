"""What every request gets: an id, safe headers, a line in the log, and an answer even when a handler breaks."""

from __future__ import annotations

import re
import time
from typing import Final

import structlog
from starlette.datastructures import MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.metrics import Metrics
from api.problems import problem
from store.ids import new_id

_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}", flags=re.ASCII)
CLOSED: Final = "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
_CLIENT_CLOSED: Final = 499
"""What the log says when the caller went away before the answer."""

_log = structlog.get_logger("api.access")


class Edge:
    """The outermost middleware."""

    def __init__(self, app: ASGIApp, *, metrics: Metrics, access_log: bool) -> None:
        self._app = app
        self._metrics = metrics
        self._access_log = access_log

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, and dress what comes back."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = time.perf_counter()
        request_id = _request_id(scope)
        scope["accel.request_id"] = request_id
        status = 0

        async def send_dressed(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                _dress(message, request_id)
            await send(message)

        try:
            await self._app(scope, receive, send_dressed)
        except ClientDisconnect:
            status = status or _CLIENT_CLOSED  # nobody is there to be answered
        except Exception:
            _log.exception("unforeseen", request_id=request_id, path=scope["path"])
            if status:
                raise  # the answer has begun: only closing the connection can say that it is not whole
            message = "The service broke while it worked on this request."
            hint = f"The log of the service has the reason under request id {request_id}."
            await problem(scope, "internal", message, hint=hint)(scope, receive, send_dressed)
        finally:
            seconds = time.perf_counter() - began
            route = getattr(scope.get("route"), "path", "")
            self._metrics.answered(scope["method"], route, status, seconds)
            if self._access_log:
                _log.info(
                    "request",
                    request_id=request_id,
                    method=scope["method"],
                    path=scope["path"],
                    status=status,
                    ms=round(seconds * 1000, 2),
                    client=scope["client"][0] if scope.get("client") else None,
                    problem=scope.get("accel.problem"),
                )


def _request_id(scope: Scope) -> str:
    for name, value in scope["headers"]:
        if name == b"x-request-id" and _ID.fullmatch(value):
            return str(value, "ascii")
    return str(new_id())


def _dress(message: Message, request_id: str) -> None:
    headers = MutableHeaders(raw=message["headers"])
    headers["x-request-id"] = request_id
    headers["x-content-type-options"] = "nosniff"
    headers["referrer-policy"] = "no-referrer"
    if "content-security-policy" not in headers:
        headers["content-security-policy"] = CLOSED
    if "cache-control" not in headers:
        headers["cache-control"] = "no-cache"
    message["headers"] = headers.raw
