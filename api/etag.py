"""Entity tags: made, and compared with what the caller has."""

from __future__ import annotations

import re

_TAG = re.compile(r'\s*((?:W/)?"[\x21\x23-\x7e\x80-\xff]*")\s*(?:,|$)')


def weak(version: int) -> str:
    """The tag of a document's version."""
    return f'W/"{version}"'


def strong(sha256: str) -> str:
    """The tag of bytes that never change."""
    return f'"{sha256}"'


def matches(header: str | None, tag: str) -> bool:
    """Whether ``If-None-Match`` names ``tag``, by weak comparison (RFC 9110, section 13.1.2)."""
    if not header:
        return False
    return header.strip() == "*" or any(_bare(other) == _bare(tag) for other in _TAG.findall(header))


def version_in(header: str | None) -> int | None:
    """The version that the caller has, when ``If-None-Match`` holds one tag of ours."""
    found = re.fullmatch(r'\s*(?:W/)?"(\d{1,18})"\s*', header or "", flags=re.ASCII)
    return int(found[1]) if found else None


def _bare(tag: str) -> str:
    return tag.removeprefix("W/")
