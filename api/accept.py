"""Which of our formats a caller likes best (RFC 9110, section 12.5.1)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

_WEIGHT: Final = re.compile(r"(0(?:\.\d{0,3})?|1(?:\.0{0,3})?)", flags=re.ASCII)


def preferred(header: str | None, offered: Sequence[str]) -> str | None:
    """The best of what is offered; of equals the first; None when the caller takes none of them."""
    if header is None or not header.strip():
        return offered[0]
    ranges = [_range(part) for part in header.split(",") if part.strip()]
    weights = {kind: _weight(kind, ranges) for kind in offered}
    best = max(offered, key=lambda kind: weights[kind])
    return best if weights[best] > 0 else None


def _range(part: str) -> tuple[str, float]:
    kind, *parameters = (piece.strip() for piece in part.lower().split(";"))
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip() == "q":
            found = _WEIGHT.fullmatch(value.strip())
            return kind, float(found[1]) if found else 0.0
    return kind, 1.0


def _weight(kind: str, ranges: Sequence[tuple[str, float]]) -> float:
    # The most exact range that fits decides, whatever its weight.
    for pattern in (kind, f"{kind.partition('/')[0]}/*", "*/*"):
        found = [weight for name, weight in ranges if name == pattern]
        if found:
            return max(found)
    return 0.0
