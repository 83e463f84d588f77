"""Every refusal as ``application/problem+json``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from http import HTTPStatus

import sqlalchemy.exc
import structlog
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.types import Scope

from accel.errors import AccelError
from api.errors import Fault, FieldProblem, HttpFault, Problem, status_of
from api.json_body import escape
from store.errors import StoreError

MEDIA_TYPE = "application/problem+json"
_log = structlog.get_logger("api")


def problem(
    scope: Scope,
    code: str,
    message: str,
    *,
    hint: str = "",
    faults: Sequence[Fault] = (),
    headers: Mapping[str, str] | None = None,
    status: int | None = None,
) -> Response:
    """A problem document; its status follows from ``code`` unless HTTP has said another."""
    number = HTTPStatus(status or status_of(code))
    document = Problem(
        type=f"urn:accel:problem:{code}",
        title=number.phrase,
        status=number.value,
        detail=message,
        code=code,
        errors=[FieldProblem(pointer=fault.pointer, detail=fault.message, code=fault.code) for fault in faults],
        hint=hint,
        request_id=scope.get("accel.request_id"),
    )
    scope["accel.problem"] = code
    return Response(document.model_dump_json(), number.value, headers=dict(headers or {}), media_type=MEDIA_TYPE)


def install(app: FastAPI) -> None:
    """Answer every error that a handler can raise."""
    app.add_exception_handler(HttpFault, _http_fault)
    app.add_exception_handler(StoreError, _store_error)
    app.add_exception_handler(AccelError, _accel_error)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http_exception)
    app.add_exception_handler(sqlalchemy.exc.DBAPIError, _database_error)
    app.add_exception_handler(sqlalchemy.exc.TimeoutError, _database_error)


def _http_fault(request: Request, error: Exception) -> Response:
    if not isinstance(error, HttpFault):
        raise error
    return problem(
        request.scope, error.code, error.message, hint=error.hint, faults=error.faults, headers=error.headers
    )


def _store_error(request: Request, error: Exception) -> Response:
    if not isinstance(error, StoreError):
        raise error
    code = error.code
    faults = [Fault(error.pointer, error.message, code)] if error.pointer else []
    return problem(request.scope, code, error.message, hint=error.hint, faults=faults)


def _accel_error(request: Request, error: Exception) -> Response:
    if not isinstance(error, AccelError):
        raise error
    return problem(request.scope, error.code, error.message, hint=error.hint)


def _invalid(request: Request, error: Exception) -> Response:
    if not isinstance(error, RequestValidationError):
        raise error
    faults = []
    for item in error.errors():
        where, *rest = item["loc"]
        path = "".join(f"/{escape(str(part))}" for part in rest)
        message = str(item["msg"]).removeprefix("Value error, ")
        faults.append(Fault(path if where == "body" else f"#{where}{path}", message, str(item["type"])))
    first = faults[0]
    more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
    place = f"{first.pointer}: " if first.pointer else ""
    return problem(request.scope, "invalid", f"{place}{first.message}{more}", faults=faults)


def _http_exception(request: Request, error: Exception) -> Response:
    if not isinstance(error, HTTPException):
        raise error
    headers = dict(error.headers or {})
    path = request.url.path
    match error.status_code:
        case HTTPStatus.NOT_FOUND:
            return problem(
                request.scope,
                "unknown_route",
                f"There is nothing at {path[:200]!a}.",
                hint="GET /docs lists what there is.",
            )
        case HTTPStatus.METHOD_NOT_ALLOWED:
            headers["Allow"] = ", ".join(sorted(_allowed(request)))
            message = f"{path[:200]!a} does not answer to {request.method}."
            return problem(
                request.scope, "method_not_allowed", message, hint=f"It answers to {headers['Allow']}.", headers=headers
            )
        case HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
            return problem(request.scope, "body_too_large", "The body is too large.", headers=headers)
        case _:
            code = "bad_http" if error.status_code < HTTPStatus.INTERNAL_SERVER_ERROR else "internal"
            return problem(request.scope, code, str(error.detail), headers=headers, status=error.status_code)


def _allowed(request: Request) -> set[str]:
    # A router answers 405 from the first route with the path; the others with the same path are asked here.
    routes: tuple[APIRoute, ...] = request.app.state.routes
    path = request.scope["path"].removeprefix(request.scope.get("root_path", ""))
    return {method for route in routes if route.path_regex.match(path) for method in route.methods or ()}


def _database_error(request: Request, error: Exception) -> Response:
    _log.error("database_error", error=str(error)[:500], request_id=request.scope.get("accel.request_id"))
    return problem(
        request.scope,
        "unavailable",
        "The database does not answer.",
        hint="Try again soon; GET /readyz says what is wrong.",
        headers={"Retry-After": "2"},
    )
