"""Pages by keyset: a page begins after the last row of the one before, so that new rows shift nothing."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.orm import Session

from store.errors import BadPageToken
from store.tables import DatasetRow, ModelRow

T = TypeVar("T")
Row = TypeVar("Row", ModelRow, DatasetRow)


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """Some rows, newest first, and the token of the next page."""

    items: tuple[T, ...]
    next_page_token: str | None


def page_of(
    session: Session, table: type[Row], value_of: Callable[[Row], T], *, page_size: int, page_token: str | None
) -> Page[T]:
    """A page of a table whose ids are in order of time, newest first.

    Raises:
        BadPageToken: The token is none of ours.
    """
    query = select(table).order_by(table.id.desc()).limit(page_size + 1)
    if page_token:
        query = query.where(table.id < decode(page_token))
    rows = session.scalars(query).all()
    shown = rows[:page_size]
    return Page(tuple(map(value_of, shown)), encode(shown[-1].id) if len(rows) > page_size else None)


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
