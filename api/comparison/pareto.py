"""The Pareto set: rows that no other row beats in everything."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal
from uuid import UUID

from pydantic import Field

from accel.evaluation.contract import ERRORS, Metric
from accel.report import Scenario
from api.comparison.rows import Row, Value


class Objective(Value):
    """A figure of a row, and which way is better."""

    figure: str = Field(description="Path of the figure within a row.")
    direction: Literal["maximise", "minimise"]


class Dominated(Value):
    """A row that another beats: as good in every objective, better in one at least."""

    row: int
    by: int


class ParetoSet(Value):
    """The best trade-offs among rows of one split, runtime, setting and environment. Point estimates decide."""

    dataset_id: UUID
    split: str
    metric: Metric
    runtime: str
    scenario: Scenario
    batch_size: int
    threads: int
    instances: int
    environment: str
    objectives: tuple[Objective, ...]
    rows: tuple[int, ...] = Field(description="Places in `rows`, from 0; equals are all in the set.")
    dominated: tuple[Dominated, ...]


def front(points: Sequence[Sequence[float]]) -> dict[int, int | None]:
    """For each point the place of one that beats it, or None for those of the Pareto set.

    A point beats another when it is as small in every coordinate and smaller in one. Equal points are both in the set. What
    beats a point is itself in the set.

    Args:
        points: Coordinates, all to be minimised, none of them NaN.
    """
    beaten_by: dict[int, int | None] = {}
    members: list[int] = []
    # In lexicographic order nothing is beaten by what comes after it, and what is beaten at all is beaten by a member.
    for place in sorted(range(len(points)), key=lambda place: tuple(points[place])):
        at = points[place]
        beaten_by[place] = next((m for m in members if _beats(points[m], at)), None)
        if beaten_by[place] is None:
            members.append(place)
    return beaten_by


def _beats(one: Sequence[float], other: Sequence[float]) -> bool:
    return tuple(one) != tuple(other) and all(a <= b for a, b in zip(one, other, strict=True))


def pareto_sets(rows: Sequence[Row]) -> tuple[ParetoSet, ...]:
    """The Pareto sets of all groups of comparable rows; a row whose quality or speed is unknown is in none."""
    groups: dict[object, list[int]] = {}
    for place, row in enumerate(rows):
        if coordinates(row) is not None and row.quality is not None:
            groups.setdefault((row.contest, row.runtime, row.quality.metric), []).append(place)
    return tuple(_set(rows, places) for places in groups.values())


def coordinates(row: Row) -> tuple[float, float, float] | None:
    """Quality, speed and size so that less is better; None where one of them is unknown."""
    quality, speed = row.quality, row.speed
    if quality is None or quality.value is None or quality.metric is None or speed is None or speed.figure is None:
        return None
    point = (
        quality.value.value if quality.metric in ERRORS else -quality.value.value,
        speed.figure if speed.less_is_better else -speed.figure,
        float(row.size_bytes),
    )
    return point if all(map(math.isfinite, point)) else None


def _set(rows: Sequence[Row], places: Sequence[int]) -> ParetoSet:
    first = rows[places[0]]
    points = [point for point in (coordinates(rows[place]) for place in places) if point is not None]
    beaten_by = front(points)
    quality, speed = first.quality, first.speed
    if quality is None or quality.metric is None or speed is None or first.runtime is None:
        raise ValueError("a row without figures is in no Pareto set")
    figures = {"offline": "speed.throughput", "server": "speed.server.rate_hz"}
    return ParetoSet(
        dataset_id=quality.dataset_id,
        split=quality.split,
        metric=quality.metric,
        runtime=first.runtime,
        scenario=speed.scenario,
        batch_size=speed.batch_size,
        threads=speed.threads,
        instances=speed.instances,
        environment=speed.environment,
        objectives=(
            Objective(figure="quality.value.value", direction="minimise" if quality.metric in ERRORS else "maximise"),
            Objective(
                figure=figures.get(speed.scenario, "speed.latency_ms.median"),
                direction="minimise" if speed.less_is_better else "maximise",
            ),
            Objective(figure="size_bytes", direction="minimise"),
        ),
        rows=tuple(places[at] for at in range(len(places)) if beaten_by[at] is None),
        dominated=tuple(
            Dominated(row=places[at], by=places[by]) for at in range(len(places)) if (by := beaten_by[at]) is not None
        ),
    )
