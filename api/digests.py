"""Digest fields (RFC 9530): what the caller says the bytes are."""

from __future__ import annotations

import base64
import binascii
import re
from typing import Final

from api.errors import Fault, HttpFault

_MEMBER = re.compile(r"\s*([a-z0-9-]+)\s*=\s*:([A-Za-z0-9+/=]*):\s*(?:,|$)")
_SHA256_BYTES: Final = 32


def sha256_in(header: str | None, name: str) -> str | None:
    """The SHA-256 that a digest field states, in hexadecimal; None when it states none. Other algorithms are ignored.

    Raises:
        HttpFault: ``bad_digest``: it is not of the form ``sha-256=:<base64>:``.
    """
    if header is None:
        return None
    place = 0
    found: str | None = None
    while place < len(header):
        member = _MEMBER.match(header, place)
        if member is None:
            raise _bad(name)
        if member[1] == "sha-256":
            try:
                digest = base64.b64decode(member[2], validate=True)
            except binascii.Error:
                raise _bad(name) from None
            if len(digest) != _SHA256_BYTES:
                raise _bad(name)
            found = digest.hex()
        place = member.end()
    return found


def field_of(sha256: str) -> str:
    """The digest field for bytes with this hash."""
    return f"sha-256=:{base64.b64encode(bytes.fromhex(sha256)).decode()}:"


def _bad(name: str) -> HttpFault:
    message = f"The header {name} is not of the form sha-256=:<base64 of 32 bytes>:."
    return HttpFault("bad_digest", message, faults=[Fault(f"#header/{name}", message)])
