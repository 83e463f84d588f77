"""Rows that belong on one page: of one split and one setting in one environment, whatever their runtime."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from api.comparison.rows import Quality, Row, Speed

_JUDGED = 3
"""So many of the first parts of a contest are about quality, the others about speed."""


@dataclass(frozen=True, slots=True)
class View:
    """Places of rows whose figures may be held against each other."""

    places: tuple[int, ...]
    quality: Quality | None
    """How quality was judged, by the example of one row; None where it was not."""
    speed: Speed | None
    """How speed was measured, by the example of one row; None where it was not."""


def views_of(rows: Sequence[Row]) -> tuple[View, ...]:
    """Every row in the views that it fits: a row without quality or speed joins those that agree in what it has."""
    keys: dict[tuple[Any, ...], None] = {}
    for row in sorted(rows, key=lambda row: -_known(row)):  # those that know most first, so that others can join them
        if not any(_fits(row.contest, key) for key in keys):
            keys[row.contest] = None
    return tuple(_view(rows, key) for key in keys)


def _known(row: Row) -> int:
    return (row.quality is not None) + (row.speed is not None)


def _fits(contest: tuple[Any, ...], key: tuple[Any, ...]) -> bool:
    judged, timed = contest[:_JUDGED], contest[_JUDGED:]
    return (judged == key[:_JUDGED] or not any(judged)) and (timed == key[_JUDGED:] or not any(timed))


def _view(rows: Sequence[Row], key: tuple[Any, ...]) -> View:
    places = tuple(place for place, row in enumerate(rows) if _fits(row.contest, key))
    there = [rows[place] for place in places]
    return View(
        places=places,
        quality=next((row.quality for row in there if row.quality is not None), None),
        speed=next((row.speed for row in there if row.speed is not None), None),
    )


def setting(speed: Speed) -> str:
    """The setting in words."""
    parts = [
        speed.scenario.replace("_", " "),
        f"batch {speed.batch_size}",
        f"{speed.threads} {'thread' if speed.threads == 1 else 'threads'}",
    ]
    if speed.instances > 1:
        parts.append(f"{speed.instances} instances")
    if speed.server is not None:
        parts.append(f"p99 within {speed.server.bound_ms:g} ms")
    return ", ".join(parts)
