"""Which model to take, in a sentence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal
from uuid import UUID

from pydantic import Field

from accel.report import Estimate
from api.comparison import figures
from api.comparison.names import names_of
from api.comparison.rows import Row, Speed, Value
from api.comparison.views import View, setting


class Advice(Value):
    """Which row to take, and why."""

    row: int | None = Field(description="Place of the row to take; null where none can be recommended.")
    reason: Literal["fastest_that_met", "smallest_that_met", "baseline", "none_met", "no_contract", "not_compared"] = (
        Field(
            description="`no_contract`: nobody said how much quality may be lost. `not_compared`: figures are missing."
        )
    )
    headline: str = Field(description="The advice in a sentence.")
    explanation: str = Field(description="The figures behind it.")


@dataclass(frozen=True, slots=True)
class _Case:
    """The rows of one view, and what they are called."""

    rows: Sequence[Row]
    places: tuple[int, ...]
    names: Mapping[UUID, str]

    def of(self, place: int) -> Row:
        return self.rows[place]

    def name(self, place: int) -> str:
        return self.names[self.of(place).model_id]

    def there(self, place: int) -> str:
        """The model and its runtime, where there is more than one."""
        return f"{self.name(place)} on {self.of(place).runtime}" if self.several_runtimes else self.name(place)

    @property
    def several_runtimes(self) -> bool:
        """Whether a model is named only together with its runtime."""
        return len({row.runtime for place in self.places if (row := self.rows[place]).runtime}) > 1

    def pace(self, place: int) -> float | None:
        """So that less is faster; None where it was not measured."""
        speed = self.of(place).speed
        if speed is None or speed.figure is None:
            return None
        return speed.figure if speed.less_is_better else -speed.figure


def first_view(views: Sequence[View], rows: Sequence[Row]) -> View:
    """The view that tells the most: where contracts were met, then judged, then where quality and speed are known."""

    def told(view: View) -> tuple[int, int, int, bool]:
        there = [rows[place] for place in view.places]
        outcomes = [row.quality.verdict.outcome for row in there if row.quality and row.quality.verdict]
        both = sum(row.quality is not None and row.speed is not None for row in there)
        return outcomes.count("met"), len(outcomes), both, bool(view.speed and view.speed.scenario == "single_stream")

    return max(views, key=told)


def advise(rows: Sequence[Row], view: View) -> Advice:
    """The fastest model that met its contract, the smallest where speed is not known, or why there is none."""
    case = _Case(rows, view.places, names_of(rows))
    candidates = [place for place in case.places if case.of(place).role == "candidate"]
    judged = [place for place in candidates if _outcome(case.of(place)) is not None]
    met = [place for place in judged if _outcome(case.of(place)) == "met"]
    if met:
        return _of_those_that_met(case, met)
    if judged:
        return _none_met(case, judged)
    compared = [p for p in candidates if (q := case.of(p).quality) is not None and q.drop is not None]
    return _without_contract(case, compared) if compared else _not_compared(case, candidates)


def _outcome(row: Row) -> str | None:
    return row.quality.verdict.outcome if row.quality is not None and row.quality.verdict is not None else None


def _of_those_that_met(case: _Case, met: Sequence[int]) -> Advice:
    timed = [(pace, place) for place in met if (pace := case.pace(place)) is not None]
    smallest = min(met, key=lambda place: case.of(place).size_bytes)
    if not timed:
        return _take_for_size(case, smallest, "its speed was not measured")
    pace, best = min(timed)
    baselines = [
        (base, place)
        for place in case.places
        if case.of(place).role == "baseline" and (base := case.pace(place)) is not None
    ]
    speedup = _speedup(case.of(best))
    faster = speedup is None or speedup.low is None or speedup.low > 1
    if faster and (not baselines or pace < min(baselines)[0]):
        return Advice(
            row=best,
            reason="fastest_that_met",
            headline=f"Take {case.there(best)}: {_gains(case, best)}, and it met its contract.",
            explanation=_told(case, best),
        )
    if case.of(smallest).size_ratio < 1:
        return _take_for_size(case, smallest, "no model that met its contract is measurably faster than the baseline")
    base = min(baselines)[1] if baselines else next(p for p in case.places if case.of(p).role == "baseline")
    return Advice(
        row=base,
        reason="baseline",
        headline=f"Keep {case.there(base)}: no model that met its contract is measurably faster or smaller.",
        explanation=_told(case, best),
    )


def _take_for_size(case: _Case, place: int, because: str) -> Advice:
    row = case.of(place)
    return Advice(
        row=place,
        reason="smallest_that_met",
        headline=f"Take {case.there(place)} for its size: {_share(row.size_ratio)} of the baseline's, and it met its contract; "
        f"{because}.",
        explanation=_told(case, place),
    )


def _none_met(case: _Case, judged: Sequence[int]) -> Advice:
    broke = [place for place in judged if _outcome(case.of(place)) == "not_met"]
    open_ = [place for place in judged if _outcome(case.of(place)) == "inconclusive"]
    needed = [v.samples_needed for p in open_ if (q := case.of(p).quality) and (v := q.verdict) and v.samples_needed]
    parts = []
    if broke:
        parts.append(f"{_listed(case, broke)} did not meet {'its' if len(broke) == 1 else 'their'} contract")
    if open_:
        more = f" (about {min(needed):,} samples would tell)" if needed else ""
        parts.append(f"{_listed(case, open_)} cannot be judged on so few samples{more}")
    return Advice(
        row=None,
        reason="none_met",
        headline=f"No model can be recommended: {', and '.join(parts)}.",
        explanation=" ".join(
            f"{case.name(p)}: {q.verdict.explanation}" for p in judged[:4] if (q := case.of(p).quality) and q.verdict
        ),
    )


def _without_contract(case: _Case, compared: Sequence[int]) -> Advice:
    timed = [(pace, place) for place in compared if (pace := case.pace(place)) is not None]
    place = min(timed)[1] if timed else min(compared, key=lambda place: case.of(place).size_bytes)
    quality = case.of(place).quality
    lost = ""
    if quality is not None and quality.drop is not None:
        lost = f"its {figures.spelled(quality.metric)} drops by " + figures.bracketed(
            figures.drop_value(quality.metric, quality.drop), figures.drop_interval(quality.metric, quality.drop)
        )
    which = "fastest" if timed else "smallest"
    return Advice(
        row=None,
        reason="no_contract",
        headline=f"Say how much quality may be lost, and one can be recommended. The {which} is {case.there(place)}: "
        f"{_gains(case, place)}; {lost}.",
        explanation='No contract was judged. Evaluate the models with one, such as {"metric": "accuracy", "max_drop": 0.01}.',
    )


def _not_compared(case: _Case, candidates: Sequence[int]) -> Advice:
    timed = [(pace, place) for place in candidates if (pace := case.pace(place)) is not None]
    if not candidates:
        said = "There is nothing to compare with the baseline: name more models"
    elif timed:
        best = min(timed)[1]
        said = f"Quality is not known yet. The fastest is {case.there(best)}: {_gains(case, best)}"
    else:
        said = "These models have not been compared yet"
    return Advice(
        row=None,
        reason="not_compared",
        headline=f"{said}.",
        explanation="Evaluate and benchmark them together with the baseline: POST /v1/jobs/evaluate and /v1/jobs/benchmark.",
    )


def _speedup(row: Row) -> Estimate | None:
    return row.speed.speedup if row.speed is not None else None


def _gains(case: _Case, place: int) -> str:
    row = case.of(place)
    said = []
    speedup = _speedup(row)
    if speedup is not None:
        said.append(f"{figures.times(speedup)} as fast as the baseline{' there' if case.several_runtimes else ''}")
    elif row.speed is not None and row.speed.figure is not None:
        said.append(pace_of(row.speed))
    said.append(
        f"{_share(row.size_ratio)} of its size"
        if speedup is not None
        else f"{_share(row.size_ratio)} of the baseline's size"
    )
    return ", ".join(said)


def _share(ratio: float) -> str:
    return f"{100 * ratio:.3g} %"


def pace_of(speed: Speed) -> str:
    """What the scenario measures, in words."""
    match speed.scenario:
        case "offline":
            return figures.per_second(speed.throughput, "samples")
        case "server":
            return figures.per_second(speed.figure, "requests")
        case _:
            return figures.milliseconds(speed.figure)


def _told(case: _Case, place: int) -> str:
    row = case.of(place)
    said = []
    if row.quality is not None and row.quality.verdict is not None:
        text = row.quality.verdict.explanation
        said.append(f"{text[:1].upper()}{text[1:]}")
    if row.speed is not None:
        said.append(f"Measured with {setting(row.speed)} on {row.runtime}.")
    if row.warnings:
        said.append("Mind the warnings about it.")
    return " ".join(said)


def _listed(case: _Case, places: Sequence[int]) -> str:
    names = list(dict.fromkeys(case.there(place) for place in places))
    if len(names) > 3:  # noqa: PLR2004  (a sentence, not a list)
        return f"{len(names)} of them"
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
