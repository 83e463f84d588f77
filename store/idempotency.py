"""Requests that are made once, however often they are sent (draft-ietf-httpapi-idempotency-key-header-07)."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from store.clock import db_now
from store.errors import IdempotencyKeyReused
from store.tables import IdempotencyRow

KEPT_S = 24 * 3600


@dataclass(frozen=True, slots=True)
class IdempotencyKey:
    """The caller's key, and a fingerprint of the request that it stands for."""

    key: str
    fingerprint: str

    @classmethod
    def of(cls, key: str, *parts: str | bytes) -> IdempotencyKey:
        """A key for the request that these parts make up."""
        digest = hashlib.sha256()
        for part in parts:
            data = part.encode() if isinstance(part, str) else part
            digest.update(len(data).to_bytes(8, "big") + data)
        return cls(key, digest.hexdigest())


def made_before(session: Session, key: IdempotencyKey) -> UUID | None:
    """What the same request made before, or None.

    Raises:
        IdempotencyKeyReused: The key stands for another request.
    """
    row = session.get(IdempotencyRow, key.key)
    if row is None:
        return None
    if row.fingerprint != key.fingerprint:
        raise IdempotencyKeyReused(
            f"The Idempotency-Key {key.key!r} was used before with another request.", hint="Use a new key."
        )
    return row.made


def remember(session: Session, key: IdempotencyKey, made: UUID) -> None:
    """Note what the request made, in the transaction that makes it."""
    session.add(IdempotencyRow(key=key.key, fingerprint=key.fingerprint, made=made))
    session.flush()


def forget_keys(session: Session, *, older_than_s: float = KEPT_S) -> int:
    """Drop keys that nobody will send again; returns how many."""
    old = select(IdempotencyRow.key).where(IdempotencyRow.created_at < db_now() - older_than_s)
    return session.execute(delete(IdempotencyRow).where(IdempotencyRow.key.in_(old))).rowcount  # type: ignore[attr-defined,no-any-return]
