"""The caller's bound on quality, and the verdict on it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

Metric = Literal[
    "accuracy",
    "top2_accuracy",
    "top3_accuracy",
    "top5_accuracy",
    "top10_accuracy",
    "macro_f1",
    "f1",
    "exact_match",
    "auc",
    "log_loss",
    "ece",
    "mae",
    "rmse",
    "r2",
    "spearman",
    "cosine",
    "agreement",
]

ERRORS: frozenset[Metric] = frozenset({"mae", "rmse", "log_loss", "ece"})
"""Metrics of which less is better."""

SHARES: frozenset[Metric] = frozenset(
    {
        "accuracy",
        "top2_accuracy",
        "top3_accuracy",
        "top5_accuracy",
        "top10_accuracy",
        "macro_f1",
        "f1",
        "exact_match",
        "ece",
        "agreement",
    }
)
"""Metrics from 0 to 1, of which people speak in percent."""


ReadAs = Literal["classes", "values", "ctc_greedy", "threshold", "embedding"]
"""How an output is read: as classes, as values, or by a decoder of the binding."""

METRICS: Mapping[ReadAs, tuple[Metric, ...]] = {
    "classes": (
        "accuracy",
        "top2_accuracy",
        "top3_accuracy",
        "top5_accuracy",
        "top10_accuracy",
        "macro_f1",
        "auc",
        "log_loss",
        "ece",
        "agreement",
    ),
    "values": ("mae", "rmse", "r2", "spearman"),
    "ctc_greedy": ("accuracy", "agreement"),
    "threshold": ("f1", "macro_f1", "exact_match", "accuracy", "auc", "agreement"),
    "embedding": ("spearman", "cosine"),
}
"""What can be measured of an output, by how it is read."""


class Contract(BaseModel):
    """How much worse than the baseline a model may be."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    metric: Metric = Field(
        "accuracy",
        description="What is compared; accuracy, F1, auc and ece are shares from 0 to 1, `log_loss` is in nats. `f1` and "
        "`exact_match` are of yes/no decisions, which need the decoder `threshold` in the binding; `cosine` is of vectors, which need "
        "`embedding`.",
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
