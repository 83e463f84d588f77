"""Errors as HTTP: one table from code to status, and the errors that belong to HTTP itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final

from pydantic import BaseModel, ConfigDict, Field

STATUS: Final[Mapping[str, HTTPStatus]] = {
    # --- HTTP's own -------------------------------------------------------------------------------------------
    "bad_json": HTTPStatus.BAD_REQUEST,
    "bad_multipart": HTTPStatus.BAD_REQUEST,
    "bad_digest": HTTPStatus.BAD_REQUEST,
    "bad_http": HTTPStatus.BAD_REQUEST,
    "invalid": HTTPStatus.UNPROCESSABLE_ENTITY,
    "empty_file": HTTPStatus.UNPROCESSABLE_ENTITY,
    "unknown_route": HTTPStatus.NOT_FOUND,
    "method_not_allowed": HTTPStatus.METHOD_NOT_ALLOWED,
    "not_acceptable": HTTPStatus.NOT_ACCEPTABLE,
    "body_too_large": HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    "unsupported_media_type": HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
    "range_not_satisfiable": HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE,
    "internal": HTTPStatus.INTERNAL_SERVER_ERROR,
    "unavailable": HTTPStatus.SERVICE_UNAVAILABLE,
    # --- of the store -----------------------------------------------------------------------------------------
    "store_error": HTTPStatus.INTERNAL_SERVER_ERROR,
    "not_found": HTTPStatus.NOT_FOUND,
    "illegal_transition": HTTPStatus.CONFLICT,
    "in_use": HTTPStatus.CONFLICT,
    "fenced": HTTPStatus.CONFLICT,
    "idempotency_key_reused": HTTPStatus.UNPROCESSABLE_ENTITY,
    "bad_page_token": HTTPStatus.UNPROCESSABLE_ENTITY,
    "digest_mismatch": HTTPStatus.UNPROCESSABLE_ENTITY,
    "disk_full": HTTPStatus.INSUFFICIENT_STORAGE,
    "unfit_reference": HTTPStatus.UNPROCESSABLE_ENTITY,
    "contradiction": HTTPStatus.UNPROCESSABLE_ENTITY,
    # --- of the engine ----------------------------------------------------------------------------------------
    "engine_error": HTTPStatus.INTERNAL_SERVER_ERROR,
    "bad_request": HTTPStatus.INTERNAL_SERVER_ERROR,  # the API wrote that request, not the caller
    "unsupported_format": HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
    "bad_model": HTTPStatus.UNPROCESSABLE_ENTITY,
    "external_data": HTTPStatus.UNPROCESSABLE_ENTITY,
    "unknown_operator": HTTPStatus.UNPROCESSABLE_ENTITY,
    "too_large": HTTPStatus.UNPROCESSABLE_ENTITY,
    "bad_dataset": HTTPStatus.UNPROCESSABLE_ENTITY,
    "binding_mismatch": HTTPStatus.UNPROCESSABLE_ENTITY,
    "labels_out_of_range": HTTPStatus.UNPROCESSABLE_ENTITY,
    "dataset_required": HTTPStatus.UNPROCESSABLE_ENTITY,
    "training_failed": HTTPStatus.UNPROCESSABLE_ENTITY,
    "unsupported_operator": HTTPStatus.UNPROCESSABLE_ENTITY,
    "technique_failed": HTTPStatus.UNPROCESSABLE_ENTITY,
    "result_broken": HTTPStatus.UNPROCESSABLE_ENTITY,
    "runtime_unavailable": HTTPStatus.UNPROCESSABLE_ENTITY,
    "runtime_failed": HTTPStatus.UNPROCESSABLE_ENTITY,
    "out_of_memory": HTTPStatus.UNPROCESSABLE_ENTITY,
    "engine_crashed": HTTPStatus.UNPROCESSABLE_ENTITY,
    "engine_timeout": HTTPStatus.UNPROCESSABLE_ENTITY,
}
"""The one place where a code meets an HTTP number. A test insists that every error class is here."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that is wrong with a request, and where."""

    pointer: str
    """JSON pointer into the body, such as ``/steps/0/samples``; for a parameter ``#query/wait`` or ``#header/...``."""
    message: str
    code: str = "invalid"


class HttpFault(Exception):
    """A request that HTTP itself, not a lower room, refuses."""

    def __init__(
        self,
        code: str,
        message: str,
        *,
        hint: str = "",
        faults: Sequence[Fault] = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.hint = hint
        self.faults = tuple(faults)
        self.headers = dict(headers or {})


class FieldProblem(BaseModel):
    """One field that is wrong."""

    model_config = ConfigDict(extra="forbid")

    pointer: str = Field(description="JSON pointer to the field; `#query/...` and `#header/...` for parameters.")
    detail: str
    code: str = "invalid"


class Problem(BaseModel):
    """What went wrong (RFC 9457). `code` is stable; `hint` says what would help."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "example": {
                "type": "urn:accel:problem:not_found",
                "title": "Not Found",
                "status": 404,
                "detail": "There is no model 01990000-0000-7000-8000-000000000000.",
                "code": "not_found",
                "errors": [],
                "hint": "",
                "request_id": "01990000-0000-7000-8000-000000000001",
            }
        },
    )

    type: str
    title: str
    status: int
    detail: str
    code: str
    errors: list[FieldProblem] = []
    hint: str = ""
    request_id: str | None = None


def status_of(code: str) -> HTTPStatus:
    """The HTTP status of an error's code; one that nobody listed is the service's own fault."""
    return STATUS.get(code, HTTPStatus.INTERNAL_SERVER_ERROR)
