"""The quality of models on one split of a dataset."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from accel.data.corruption import CorruptionName
from accel.evaluation.contract import Metric, Verdict
from accel.report.environment import Environment
from accel.report.values import Estimate, Value


class ClassChange(Value):
    """What became of one class: how many of its samples were right before and no more, and the other way round."""

    label: int
    name: str | None = None
    samples: int
    baseline_recall: float
    model_recall: float
    lost: int
    won: int


class OutputNoise(Value):
    """How far one output is from the baseline's, number by number."""

    output: str
    samples: int = Field(description="Rows compared; as many as were kept.")
    snr_db: float | None = Field(description="Signal-to-noise ratio in decibels; None where they are equal.")
    max_abs_difference: float
    cosine: float | None = Field(None, description="Mean cosine similarity of a sample's numbers.")


class WorstSample(Value):
    """A sample on which the model is far from the baseline. Row numbers count from 0 within the split."""

    row: int
    difference: float | None = Field(
        description="What the samples are ordered by: see `ordered_by`. None where the output of one of the two is not finite; these come first."
    )
    label: int | float | str | None = None
    baseline: int | float | str | None = Field(None, description="What the baseline says.")
    model: int | float | str | None = Field(None, description="What the model says.")


class Divergence(Value):
    """How far a model is from the baseline, whatever the labels say."""

    agreement: Estimate | None = Field(None, description="Share of samples with the same prediction.")
    kl_divergence: Estimate | None = Field(
        None, description="Mean Kullback-Leibler divergence of the class probabilities from the baseline's, in nats."
    )
    outputs: tuple[OutputNoise, ...] = ()
    ordered_by: Literal["kl_divergence", "abs_difference", "cosine_distance", "edit_distance", "decisions"] | None = (
        None
    )
    worst: tuple[WorstSample, ...] = Field((), description="The 50 samples that differ most; only those that differ.")


class AgainstBaseline(Value):
    """Paired comparison of a model with the baseline on the same samples."""

    metric: Metric
    drop: Estimate | None = Field(
        description="Baseline minus model; for errors model minus baseline: above 0 is worse. None where the metric is no number, as "
        "that of values that are not finite."
    )
    drops: dict[Metric, Estimate] = Field(default_factory=dict, description="The same for every metric.")
    flips: int | None = Field(
        description="Samples whose predicted class or sequence differs; None where a sample has many decisions or values."
    )
    lost: int | None = Field(
        None,
        description="Samples that the baseline has right and the model wrong: by the metric where it says so of each, else by the accuracy.",
    )
    won: int | None = Field(None, description="Samples that the baseline has wrong and the model right.")
    p_value: float | None = Field(
        description="Exact McNemar test of `lost` against `won`, two-sided; None where these are, or where samples belong to groups."
    )
    groups: int | None = Field(
        None, description="Groups that intervals are drawn from, where the binding names a column of groups."
    )
    classes: tuple[ClassChange, ...] = Field(
        (), description="Classes whose recall changed, the largest loss first; 100 at most."
    )
    divergence: Divergence | None = None
    verdict: Verdict | None = None


class Robustness(Value):
    """A model on the same samples, corrupted."""

    corruption: CorruptionName
    severity: int
    metric: Metric
    value: Estimate
    lost_to_corruption: float = Field(description="Drop of the model's own metric from clean to corrupted samples.")
    drop: Estimate | None = Field(
        None, description="Against the baseline on the same corrupted samples; above 0 is worse."
    )
    excess: Estimate | None = Field(
        None, description="This drop minus the drop on clean samples: above 0, corruption hurts this model more."
    )


class EvaluatedModel(Value):
    """The quality of one model."""

    model_id: str
    runtime: str
    samples: int
    metrics: dict[Metric, Estimate]
    not_finite: int = Field(0, description="Samples whose output holds what is no finite number; they count as wrong.")
    against_baseline: AgainstBaseline | None = None
    robustness: tuple[Robustness, ...] = ()
    predictions: str | None = Field(None, description="Name of the job's file with every prediction.")
    reused: bool = Field(False, description="Whether the predictions were kept by an earlier evaluation.")
    warnings: tuple[str, ...] = ()
    error: str | None = Field(None, description="Why this model could not be evaluated.")


class EvaluateReport(Value):
    """The quality of models on one split of a dataset."""

    kind: Literal["evaluate"] = "evaluate"
    split: str
    baseline_id: str
    models: tuple[EvaluatedModel, ...]
    notes: tuple[str, ...] = ()
    environment: Environment
