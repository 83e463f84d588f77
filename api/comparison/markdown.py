"""A comparison as Markdown, for a README or a pull request."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from api.comparison import figures
from api.comparison.document import Comparison
from api.comparison.names import tame
from api.comparison.rows import Row
from api.comparison.views import View, setting, views_of

_HEAD: Final = ("model", "runtime", "quality", "loss", "verdict", "flips", "size", "latency", "speed-up", "memory")
_RIGHT: Final = frozenset({"size", "latency", "speed-up", "memory"})
_SPECIAL: Final = "\\|`*_~<>[]&#$"


def as_markdown(comparison: Comparison) -> str:
    """The advice, the warnings, and a table for each split and setting."""
    parts = [f"**{_text(comparison.advice.headline)}** {_text(comparison.advice.explanation)}\n"]
    parts += [f"> **Warning:** {_text(doubt.text)}\n" for doubt in comparison.warnings]
    stars = {place for one in comparison.pareto for place in one.rows}
    views = views_of(comparison.rows)
    for view in views:
        if len(views) > 1:
            parts.append(f"### {_text(heading(comparison, view))}\n")
        parts.append(_table([(comparison.rows[place], place in stars) for place in view.places]))
    alone = heading(comparison, views[0]) if len(views) == 1 else ""
    parts.append(
        f"{_text(alone)}{'. ' if alone else ''}★: in the Pareto set of quality, speed and size. Loss: baseline minus model (for errors "
        "the other way round), above 0 is worse. Brackets hold 95 % intervals.\n"
    )
    return "\n".join(parts)


def heading(comparison: Comparison, view: View) -> str:
    """What the rows of a view have in common."""
    said = []
    if view.quality is not None:
        said.append(
            f"{view.quality.split} split of {view.quality.dataset_name or view.quality.dataset_id} "
            f"({view.quality.samples:,} samples)"
        )
    if view.speed is not None:
        said.append(setting(view.speed))
        named = {host.fingerprint: host.name for host in comparison.environments}
        if len({row.speed.environment for row in comparison.rows if row.speed is not None}) > 1:
            said.append(f"environment {named.get(view.speed.environment, view.speed.environment)}")
    text = "; ".join(said)
    return f"{text[:1].upper()}{text[1:]}"


def _table(rows: Sequence[tuple[Row, bool]]) -> str:
    lines = ["| " + " | ".join(_HEAD) + " |", "|" + "|".join(" ---: " if h in _RIGHT else " --- " for h in _HEAD) + "|"]
    lines += ["| " + " | ".join(_text(cell) for cell in _cells(row, starred=starred)) + " |" for row, starred in rows]
    return "".join(f"{line}\n" for line in lines)


def _cells(row: Row, *, starred: bool) -> tuple[str, ...]:
    quality, speed = row.quality, row.speed
    name = f"{row.name} (baseline)" if row.role == "baseline" else row.name
    value = loss = verdict = flips = figures.DASH
    if quality is not None:
        value = figures.bracketed(
            figures.metric_value(quality.metric, quality.value), figures.metric_interval(quality.metric, quality.value)
        )
        value = f"{figures.spelled(quality.metric)} {value}" if quality.metric else value
        loss = figures.bracketed(
            figures.drop_value(quality.metric, quality.drop), figures.drop_interval(quality.metric, quality.drop)
        )
        verdict = quality.verdict.outcome.replace("_", " ") if quality.verdict else figures.DASH
        flips = flipped(quality.flips, quality.lost, quality.won)
    latency = speedup = memory = figures.DASH
    if speed is not None:
        latency = figures.bracketed(*pace(row))
        speedup = figures.bracketed(figures.times(speed.speedup), figures.times_interval(speed.speedup))
        memory = figures.size(speed.peak_memory_bytes)
    size = f"{figures.size(row.size_bytes)} ({row.size_ratio:.0%})"
    return (
        f"★ {name}" if starred else name, row.runtime or figures.DASH, value, loss, verdict, flips, size, latency, speedup,
        memory,
    )  # fmt: skip


def flipped(flips: int | None, lost: int | None, won: int | None) -> str:
    """How many predictions changed, and how many of them for the worse and the better."""
    if flips is None:
        return figures.DASH
    return f"{flips:,}" if lost is None or won is None else f"{flips:,} ({lost:,} lost, {won:,} won)"


def pace(row: Row) -> tuple[str, str]:
    """What the scenario measures, and its interval."""
    speed = row.speed
    if speed is None:
        return figures.DASH, ""
    if speed.scenario in {"offline", "server"}:
        return figures.per_second(speed.figure), ""
    if speed.latency_ms is None:
        return figures.DASH, ""
    return figures.milliseconds(speed.figure), figures.between(speed.latency_ms.p50.low, speed.latency_ms.p50.high)


def _text(text: str) -> str:
    """Text that Markdown shows as it is, on one line."""
    text = tame(text)
    for character in _SPECIAL:
        text = text.replace(character, f"\\{character}")
    return text
