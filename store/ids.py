"""Identities: UUIDs of version 7 (RFC 9562), whose order is that of their making."""

from __future__ import annotations

from uuid import UUID

import uuid_utils.compat


def new_id() -> UUID:
    """A new identity."""
    return uuid_utils.compat.uuid7()
