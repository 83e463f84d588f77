"""Requests that are made once, however often they are sent (draft-ietf-httpapi-idempotency-key-header-07)."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import delete, select
from sqlalchemy.dialects import postgresql, sqlite
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


def claim(session: Session, key: IdempotencyKey | None, makes: UUID) -> UUID:
    """Note what a request makes, in the transaction that makes it.

    Of two transactions with one key the second waits for the first, and learns what that made.

    Returns:
        ``makes``, or what the same request made before, and then nothing is to be made.

    Raises:
        IdempotencyKeyReused: The key stands for another request.
    """
    if key is None:
        return makes
    insert = postgresql.insert if session.get_bind().dialect.name == "postgresql" else sqlite.insert
    row = {"key": key.key, "fingerprint": key.fingerprint, "made": makes, "created_at": db_now()}
    session.execute(insert(IdempotencyRow).values(row).on_conflict_do_nothing())
    kept = session.execute(
        select(IdempotencyRow.fingerprint, IdempotencyRow.made).where(IdempotencyRow.key == key.key)
    ).one()
    if kept.fingerprint != key.fingerprint:
        raise IdempotencyKeyReused(
            f"The Idempotency-Key {key.key!r} was used before with another request.", hint="Use a new key."
        )
    made: UUID = kept.made
    return made


def forget_keys(session: Session, *, older_than_s: float = KEPT_S) -> int:
    """Drop keys that nobody will send again; returns how many."""
    old = select(IdempotencyRow.key).where(IdempotencyRow.created_at < db_now() - older_than_s)
    return session.execute(delete(IdempotencyRow).where(IdempotencyRow.key.in_(old))).rowcount  # type: ignore[attr-defined,no-any-return]
