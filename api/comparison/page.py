"""A comparison as a web page that needs nothing but itself: no script, no font, no image from elsewhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlencode
from uuid import UUID

import jinja2

from accel.evaluation.contract import Metric
from accel.report import Estimate
from api.comparison import figures
from api.comparison.advice import first_view, pace_of
from api.comparison.document import Comparison
from api.comparison.markdown import flipped, heading, pace
from api.comparison.names import names_of
from api.comparison.plots import Plot, plots_of
from api.comparison.rows import Row
from api.comparison.views import View, views_of

TEMPLATES: Final = Path(__file__).parents[1] / "templates"
_PAGES: Final = jinja2.Environment(
    loader=jinja2.FileSystemLoader(TEMPLATES),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


@dataclass(frozen=True, slots=True)
class Whisker:
    """An interval on a scale from 0 to 100, with the lines that it is read against."""

    low: float
    value: float
    high: float
    zero: float
    bound: float | None = None


@dataclass(frozen=True, slots=True)
class Line:
    """A row of the table."""

    row: Row
    place: int
    number: int
    in_set: bool
    recommended: bool
    pace: tuple[str, str]
    loss: Whisker | None
    speedup: Whisker | None


@dataclass(frozen=True, slots=True)
class Section:
    """A view as it is shown: plots and a table."""

    heading: str
    metric: Metric | None
    quality: str
    """What the column of quality is called."""
    pace: str
    """What the column of speed is called."""
    models: frozenset[UUID]
    lines: tuple[Line, ...]
    plots: tuple[Plot, ...]
    runtimes: tuple[str, ...]
    missing: tuple[str, ...]
    """Models that no plot can show."""


def as_html(comparison: Comparison) -> str:
    """The page."""
    views = list(views_of(comparison.rows))
    first = first_view(views, comparison.rows)
    views.sort(key=lambda view: view is not first)  # the advice is about the first
    numbers = {entry.model_id: place for place, entry in enumerate(comparison.models, 1)}
    sections = [_section(comparison, view, numbers) for view in views]
    at = comparison.advice.row
    names = names_of(comparison.rows)
    return _PAGES.get_template("compare.html").render(
        page=comparison,
        baseline=comparison.models[0],
        sections=sections,
        taken=None if at is None else comparison.rows[at],
        baseline_row=comparison.rows[0],
        numbers=numbers,
        names=names,
        paths={row.model_id: row.made_by for row in comparison.rows},
        hosts={host.fingerprint: host.name for host in comparison.environments},
        several_hosts=len({row.speed.environment for row in comparison.rows if row.speed is not None}) > 1,
        verdicts=_verdicts(comparison.rows),
        query=_query(comparison),
        f=figures,
        flipped=flipped,
        pace_of=pace_of,
        share=_share,
    )


def _section(comparison: Comparison, view: View, numbers: Mapping[UUID, int]) -> Section:
    sets = frozenset(place for one in comparison.pareto for place in one.rows)
    rows = comparison.rows
    there = [rows[place] for place in view.places]
    plots = plots_of(rows, view, numbers=numbers, sets=sets, recommended=comparison.advice.row)
    shown = {mark.model_id for plot in plots for mark in plot.marks}
    names = names_of(rows)
    losses = _scale([row.quality.drop for row in there if row.quality], [0.0, *_bounds(there)])
    gains = _scale([row.speed.speedup for row in there if row.speed], [1.0])
    lines = tuple(
        Line(
            row=rows[place],
            place=place,
            number=numbers[rows[place].model_id],
            in_set=place in sets,
            recommended=place == comparison.advice.row,
            pace=pace(rows[place]),
            loss=_whisker(row.quality.drop if row.quality else None, losses, 0.0, _bound(row)),
            speedup=_whisker(row.speed.speedup if row.speed else None, gains, 1.0),
        )
        for place in view.places
        for row in (rows[place],)
    )
    metric = view.quality.metric if view.quality is not None else None
    name = figures.spelled(metric) or "quality"
    return Section(
        heading=heading(comparison, view),
        metric=metric,
        quality=f"{name[:1].upper()}{name[1:]}",
        pace="Latency" if view.speed is None or view.speed.less_is_better else "Pace",
        models=frozenset(row.model_id for row in there),
        lines=lines,
        plots=plots,
        runtimes=tuple(sorted({row.runtime for row in there if row.runtime} if plots else ())),
        missing=tuple(names[identity] for identity in dict.fromkeys(r.model_id for r in there) if identity not in shown)
        if plots
        else (),
    )


def _bound(row: Row) -> float | None:
    """The loss that the contract allows, where it is on the metric that is shown."""
    verdict = row.quality.verdict if row.quality is not None else None
    if row.quality is None or verdict is None or verdict.contract.metric != row.quality.metric:
        return None
    return verdict.contract.max_drop


def _bounds(rows: Sequence[Row]) -> list[float]:
    return [bound for row in rows if (bound := _bound(row)) is not None]


def _scale(estimates: Sequence[Estimate | None], marks: Sequence[float]) -> tuple[float, float]:
    values = [v for e in estimates if e is not None for v in (e.value, e.low, e.high) if v is not None]
    low, high = min([*values, *marks]), max([*values, *marks])
    room = 0.06 * (high - low) or 1.0
    return low - room, high + room


def _whisker(
    estimate: Estimate | None, scale: tuple[float, float], zero: float, bound: float | None = None
) -> Whisker | None:
    if estimate is None:
        return None

    def at(value: float) -> float:
        return round(100 * (value - scale[0]) / (scale[1] - scale[0]), 1)

    low = estimate.value if estimate.low is None else estimate.low
    high = estimate.value if estimate.high is None else estimate.high
    return Whisker(at(low), at(estimate.value), at(high), at(zero), None if bound is None else at(bound))


def _verdicts(rows: Sequence[Row]) -> dict[UUID, tuple[str, ...]]:
    """The verdicts on each model, each once, the worst first."""
    worst_first = ("not_met", "inconclusive", "met")
    found: dict[UUID, set[str]] = {}
    for row in rows:
        if row.quality is not None and row.quality.verdict is not None:
            found.setdefault(row.model_id, set()).add(row.quality.verdict.outcome)
    return {row.model_id: tuple(o for o in worst_first if o in found.get(row.model_id, ())) for row in rows}


def _query(comparison: Comparison) -> str:
    asked: list[tuple[str, Any]] = [("model", entry.model_id) for entry in comparison.models]
    if comparison.baseline_choice == "named":
        asked.append(("baseline", comparison.baseline_id))
    return urlencode(asked)


def _share(ratio: float) -> str:
    return f"{100 * ratio:.3g} %"
