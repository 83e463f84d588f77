"""What reports are made of."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Value(BaseModel):
    """Part of a report: it does not change, and what is no finite number is null in JSON."""

    model_config = ConfigDict(extra="forbid", frozen=True, ser_json_inf_nan="null")


class Estimate(Value):
    """A figure with its confidence interval (95 % unless said otherwise)."""

    value: float
    low: float | None = None
    high: float | None = None
