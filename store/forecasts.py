"""How well predictions of speed-ups fared: what was measured beside what had been predicted."""

from __future__ import annotations

import statistics
from collections import defaultdict
from typing import Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from sqlalchemy import select
from sqlalchemy.orm import Session

from accel.report import Estimate
from store.tables import MeasurementRow

_LOOKED_AT: Final = 1000
"""So many of the newest measurements with a prediction are looked at."""


class Forecasts(BaseModel):
    """Speed-ups that were measured, beside those that a preflight predicts of the same pairs."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    count: int = Field(
        description="Pairs of a model and its baseline that were predicted and measured: the newest 1,000."
    )
    within_range: float | None = Field(
        description="Share of them in the predicted range, 0 to 1; null without a range."
    )
    median_ratio: float = Field(
        description="Median of measured over predicted: above 1, models are faster than expected."
    )


class _Pair(BaseModel):
    """What is needed of a measurement, whatever else is in it."""

    speedup: Estimate
    predicted_speedup: Estimate


def forecasts(session: Session) -> dict[str, Forecasts]:
    """For each runtime how its predictions fared; runtimes of which nothing is known are left out."""
    row = MeasurementRow
    query = (
        select(row.runtime, row.result)
        .where(row.result.contains('"predicted_speedup":{'), row.result.contains('"speedup":{'))
        .order_by(row.id.desc())
        .limit(_LOOKED_AT)
    )
    pairs: dict[str, list[_Pair]] = defaultdict(list)
    for runtime, result in session.execute(query):
        try:
            pair = _Pair.model_validate_json(result)
        except ValidationError:  # written by another version
            continue
        if pair.predicted_speedup.value > 0:
            pairs[runtime].append(pair)
    return {runtime: _fared(found) for runtime, found in pairs.items()}


def _fared(pairs: list[_Pair]) -> Forecasts:
    ranges = [
        (pair.predicted_speedup.low, pair.speedup.value, pair.predicted_speedup.high)
        for pair in pairs
        if pair.predicted_speedup.low is not None and pair.predicted_speedup.high is not None
    ]
    within = [low <= measured <= high for low, measured, high in ranges if low is not None and high is not None]
    return Forecasts(
        count=len(pairs),
        within_range=sum(within) / len(within) if within else None,
        median_ratio=statistics.median(pair.speedup.value / pair.predicted_speedup.value for pair in pairs),
    )
