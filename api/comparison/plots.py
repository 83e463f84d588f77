"""Quality against speed and against size, as figures that a template draws."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from accel.evaluation.contract import ERRORS, SHARES, Metric
from accel.report import Estimate
from api.comparison import figures
from api.comparison.axes import Axis, axis, decimals
from api.comparison.labels import far, place_labels
from api.comparison.pareto import coordinates, front
from api.comparison.rows import Row, Speed
from api.comparison.views import View

WIDTH: Final = 540
HEIGHT: Final = 340
_LEFT, _RIGHT, _TOP, _BOTTOM = 66, 18, 16, 52

Spot = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Mark:
    """A row's point: its place, the ends of its intervals, and where its number is written."""

    model_id: UUID
    number: int
    series: int
    in_set: bool
    recommended: bool
    x: float
    y: float
    left: float
    right: float
    top: float
    bottom: float
    label_x: float
    label_y: float
    leader: bool
    text: str


@dataclass(frozen=True, slots=True)
class Front:
    """The stairs of what no other point of the series beats in both figures."""

    series: int
    path: str


@dataclass(frozen=True, slots=True)
class Plot:
    """A scatter plot."""

    kind: str
    title: str
    better: str
    x: Axis
    y: Axis
    marks: tuple[Mark, ...]
    fronts: tuple[Front, ...]
    width: int = WIDTH
    height: int = HEIGHT


@dataclass(frozen=True, slots=True)
class _Point:
    """A row's figures with the ends of their intervals."""

    row: int
    series: int
    x: tuple[float, float, float]
    y: tuple[float, float, float]


def plots_of(
    rows: Sequence[Row], view: View, *, numbers: Mapping[UUID, int], sets: frozenset[int], recommended: int | None
) -> tuple[Plot, ...]:
    """The plots of a view; none where no row has both figures.

    Args:
        rows: All rows.
        view: Which of them are shown.
        numbers: The number of each model.
        sets: Places of the rows in a Pareto set.
        recommended: Place of the row that is recommended.
    """
    if view.quality is None or view.speed is None or view.quality.metric is None:
        return ()
    metric, speed = view.quality.metric, view.speed
    places = [p for p in view.places if coordinates(rows[p]) is not None and _metric(rows[p]) == metric]
    if not places:
        return ()
    series = {name: number for number, name in enumerate(sorted({rows[p].runtime or "" for p in places}))}
    against_speed = [
        _Point(p, series[rows[p].runtime or ""], _speed(rows[p].speed), _quality(rows[p], metric)) for p in places
    ]
    against_size = [
        _Point(p, series[rows[p].runtime or ""], (rows[p].size_bytes / 1e6,) * 3, _quality(rows[p], metric))
        for p in places
    ]
    name = figures.spelled(metric)
    made = (
        ("speed", f"{name} against {_measure(speed)}", _speed_title(speed), against_speed, not speed.less_is_better),
        ("size", f"{name} against size", "Size in MB", against_size, False),
    )
    return tuple(
        _plot(
            kind, f"{title[:1].upper()}{title[1:]}", x_title, points, rows,
            metric=metric, more_is_better=more, numbers=numbers, sets=sets, recommended=recommended,
        )
        for kind, title, x_title, points, more in made
    )  # fmt: skip


def _metric(row: Row) -> Metric | None:
    return row.quality.metric if row.quality is not None else None


def _measure(speed: Speed) -> str:
    return {"offline": "throughput", "server": "request rate"}.get(speed.scenario, "latency")


def _speed_title(speed: Speed) -> str:
    titles = {"offline": "Samples per second", "server": "Requests per second that hold the bound"}
    return titles.get(speed.scenario, "Median latency in ms")


def _three(value: float, low: float | None, high: float | None) -> tuple[float, float, float]:
    return value, value if low is None else min(low, value), value if high is None else max(high, value)


def _speed(speed: Speed | None) -> tuple[float, float, float]:
    if speed is None or speed.figure is None:
        raise ValueError("a row without a speed has no point")
    if speed.less_is_better and speed.latency_ms is not None:
        return _three(speed.figure, speed.latency_ms.p50.low, speed.latency_ms.p50.high)
    return (speed.figure,) * 3


def _quality(row: Row, metric: Metric) -> tuple[float, float, float]:
    value: Estimate | None = row.quality.value if row.quality is not None else None
    if value is None:
        raise ValueError("a row without a quality has no point")
    scale = 100.0 if metric in SHARES else 1.0
    return _three(value.value * scale, _times(value.low, scale), _times(value.high, scale))


def _times(value: float | None, scale: float) -> float | None:
    return None if value is None else value * scale


def _plot(
    kind: str,
    title: str,
    x_title: str,
    points: Sequence[_Point],
    rows: Sequence[Row],
    *,
    metric: Metric,
    more_is_better: bool,
    numbers: Mapping[UUID, int],
    sets: frozenset[int],
    recommended: int | None,
) -> Plot:
    share, less = metric in SHARES, metric in ERRORS
    name = figures.spelled(metric)
    x = axis(
        x_title, [v for p in points for v in p.x], start=_LEFT, end=WIDTH - _RIGHT, text=_plain, bounds=(0, math.inf)
    )
    y = axis(
        f"{name[:1].upper()}{name[1:]}{' in %' if share else ''}",
        [v for p in points for v in p.y],
        start=HEIGHT - _BOTTOM,
        end=_TOP,
        text=_plain,
        bounds=(0, 100) if share else (-math.inf, math.inf),
        logarithmic=False,
    )
    spots = [(x.place(p.x[0]), y.place(p.y[0])) for p in points]
    bars = [(x.place(p.x[1]), y.place(p.y[2]), x.place(p.x[2]), y.place(p.y[1])) for p in points]
    labels = place_labels(spots, bars, (_LEFT, _TOP, WIDTH - _RIGHT, HEIGHT - _BOTTOM))
    marks = []
    for point, (at_x, at_y), (left, top, right, bottom), (label_x, label_y) in zip(
        points, spots, bars, labels, strict=True
    ):
        row = rows[point.row]
        marks.append(
            Mark(
                model_id=row.model_id,
                number=numbers[row.model_id],
                series=point.series,
                in_set=point.row in sets,
                recommended=point.row == recommended,
                x=at_x,
                y=at_y,
                left=left,
                right=right,
                top=top,
                bottom=bottom,
                label_x=label_x,
                label_y=label_y,
                leader=far((at_x, at_y), (label_x, label_y)),
                text=f"{row.name}, {row.runtime}: {name} {figures.number(point.y[0])}{' %' if share else ''}, "
                f"{x_title[:1].lower()}{x_title[1:]}: {figures.number(point.x[0])}",
            )
        )
    return Plot(
        kind=kind,
        title=title,
        better=f"better {_ARROWS[more_is_better, less]}",
        x=x,
        y=y,
        marks=tuple(marks),
        fronts=_fronts(points, spots, more_is_better=more_is_better, less=less),
    )


_ARROWS: Final = {(False, False): "↖", (True, False): "↗", (False, True): "↙", (True, True): "↘"}


def _plain(value: float, step: float) -> str:
    return f"{value:,.{decimals(step)}f}"


def _fronts(points: Sequence[_Point], spots: Sequence[Spot], *, more_is_better: bool, less: bool) -> tuple[Front, ...]:
    made = []
    for series in sorted({point.series for point in points}):
        of = [place for place, point in enumerate(points) if point.series == series]
        cost: Callable[[int], Spot] = lambda place: (  # noqa: E731  (one use, two lines)
            -points[place].x[0] if more_is_better else points[place].x[0],
            points[place].y[0] if less else -points[place].y[0],
        )
        beaten_by = front([cost(place) for place in of])
        members = sorted((place for at, place in enumerate(of) if beaten_by[at] is None), key=cost)
        # From the worse edge to the fastest, then stairs to the best, then to the other edge: what is within reach.
        start_x, start_y = spots[members[0]]
        path = [f"M{start_x} {_TOP if less else HEIGHT - _BOTTOM}", f"V{start_y}"]
        for place in members[1:]:
            path += [f"H{spots[place][0]}", f"V{spots[place][1]}"]
        path.append(f"H{_LEFT if more_is_better else WIDTH - _RIGHT}")
        made.append(Front(series=series, path=" ".join(path)))
    return tuple(made)
