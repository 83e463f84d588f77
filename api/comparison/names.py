"""What models are called within a sentence. Names are the callers' own, so nothing in them may change the text around."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final
from uuid import UUID

from api.comparison.rows import Row

_TURNS: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]+")
"""Control characters, ends of lines, and what turns the direction of writing."""


def tame(name: str) -> str:
    """The name without characters that would break the line or turn what follows."""
    return " ".join(_TURNS.sub(" ", name).split()) or "(no name)"


def names_of(rows: Sequence[Row]) -> dict[UUID, str]:
    """What each model is called: its name, or how it was made where two models share a name."""
    models = {row.model_id: row for row in rows}
    shared = [row.name for row in models.values()]
    return {
        identity: tame(row.name if shared.count(row.name) == 1 else row.made_by) for identity, row in models.items()
    }
