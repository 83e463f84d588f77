"""What the store refuses. Each error has a stable ``code``, a message that names the object, and a hint."""

from __future__ import annotations

from typing import ClassVar
from uuid import UUID


class StoreError(Exception):
    """The store refuses; ``pointer`` is the JSON pointer of the field at fault, where there is one."""

    code: ClassVar[str] = "store_error"

    def __init__(self, message: str, *, hint: str = "", pointer: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.pointer = pointer


class NotFound(StoreError):
    """There is no such object."""

    code = "not_found"

    def __init__(self, kind: str, identity: UUID | str, *, hint: str = "", pointer: str = "") -> None:
        super().__init__(
            f"There is no {kind} {identity}.", hint=hint or f"GET /v1/{kind}s lists what there is.", pointer=pointer
        )


class UnfitReference(StoreError):
    """The request names an object that does not exist or does not fit."""

    code = "unfit_reference"


class DatasetRequired(StoreError):
    """A step needs data and the request names no dataset."""

    code = "dataset_required"


class BindingMismatch(StoreError):
    """A metric does not go with how the output is read."""

    code = "binding_mismatch"


class Contradiction(StoreError):
    """Two parts of the request do not go together."""

    code = "contradiction"


class IllegalTransition(StoreError):
    """The job is in a state from which it cannot go there."""

    code = "illegal_transition"


class Fenced(StoreError):
    """The lease was lost: another worker may have the job, so nothing may be written."""

    code = "fenced"


class InUse(StoreError):
    """A job that is not finished needs the object."""

    code = "in_use"


class IdempotencyKeyReused(StoreError):
    """The Idempotency-Key was used before with another request."""

    code = "idempotency_key_reused"


class BadPageToken(StoreError):
    """The page token was not made by this service."""

    code = "bad_page_token"


class DigestMismatch(StoreError):
    """The content is not what its digest says."""

    code = "digest_mismatch"


class NoSpace(StoreError):
    """There is no space left to keep the file."""

    code = "disk_full"
