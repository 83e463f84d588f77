"""The caller's bound on quality, and the verdict on it."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

Metric = Literal["accuracy", "top5_accuracy", "macro_f1", "f1", "mae", "rmse", "r2", "agreement"]

ERRORS: frozenset[Metric] = frozenset({"mae", "rmse"})
"""Metrics of which less is better."""


class Contract(BaseModel):
    """How much worse than the baseline a model may be."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    metric: Metric = Field(
        "accuracy",
        description="What is compared; accuracy and F1 are shares from 0 to 1. `f1` is of yes/no decisions, which need the "
        "decoder `threshold` in the binding; `macro_f1` is of classes.",
    )
    max_drop: float = Field(0.01, ge=0, description="Largest loss that is accepted, in the metric's own unit.")
    confidence: float = Field(0.95, gt=0.5, lt=1, description="How sure the verdict must be.")


class Verdict(BaseModel):
    """Whether a contract holds: ``inconclusive`` where the samples cannot tell."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    outcome: Literal["met", "not_met", "inconclusive"]
    contract: Contract
    explanation: str = Field(description="The verdict in a sentence, with the figures.")
    samples_needed: int | None = Field(None, description="About how many samples would settle it.")
