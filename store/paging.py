"""Pages by keyset: a page begins after the last row of the one before, so that new rows shift nothing."""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from typing import Generic, TypeVar
from uuid import UUID

from store.errors import BadPageToken

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """Some rows, newest first, and the token of the next page."""

    items: tuple[T, ...]
    next_page_token: str | None


def encode(last: UUID) -> str:
    """The token of the page after this row."""
    return base64.urlsafe_b64encode(last.bytes).decode().rstrip("=")


def decode(token: str) -> UUID:
    """The row that a token stands for.

    Raises:
        BadPageToken: It is none of ours.
    """
    try:
        return UUID(bytes=base64.b64decode(token + "==", altchars=b"-_", validate=True))
    except (ValueError, binascii.Error) as error:
        raise BadPageToken(
            "The page token is not one that this service made.",
            hint="Pass next_page_token on as it is.",
            pointer="/page_token",
        ) from error
