"""What corrupted inputs cost a model, and whether they cost it more than the baseline."""

from __future__ import annotations

from dataclasses import dataclass

from accel.data.corruption import Corruption
from accel.evaluation import metrics
from accel.evaluation.contract import ERRORS, Metric
from accel.evaluation.predictions import Predictions
from accel.evaluation.truth import Truth
from accel.report import Robustness


@dataclass(frozen=True, slots=True)
class Twice:
    """What a model says of the same samples, as they are and corrupted."""

    clean: Predictions
    corrupted: Predictions


def robustness(
    corruption: Corruption,
    metric: Metric,
    said: Twice,
    baseline: Twice,
    truth: Truth,
    *,
    seed: int,
) -> Robustness:
    """Compare a model with itself on clean samples, and with the baseline on the same corrupted ones.

    Args:
        corruption: What was done to the samples.
        metric: What is compared.
        said: What the model says.
        baseline: What the baseline says; the same object where the model is the baseline.
        truth: The labels, or nothing but what the baseline says of the same inputs.
        seed: Seed of the bootstrap.

    Raises:
        BadDataset: The metric is no number on these samples.
    """
    before, after = (truth.against(metric, predictions) for predictions in (baseline.clean, baseline.corrupted))
    gone = metrics.value(metric, said.clean, before) - metrics.value(metric, said.corrupted, after)
    drop = excess = None
    if said is not baseline:
        drop = metrics.drop(metric, baseline.corrupted, said.corrupted, after, seed=seed, groups=truth.groups)
        pairs = ((baseline.corrupted, said.corrupted, after), (baseline.clean, said.clean, before))
        dirty, clean = (metrics.lost(metric, *pair) for pair in pairs)
        here, there = (metrics.differing(metric, *pair) for pair in pairs)
        excess = metrics.drawn_drop(
            metric,
            dirty.minus(clean),
            len(said.clean),
            None if here is None or there is None else here | there,
            seed=seed,
            groups=truth.groups,
        )
    return Robustness(
        corruption=corruption.corruption,
        severity=corruption.severity,
        metric=metric,
        value=metrics.estimate(metric, said.corrupted, after, seed=seed, groups=truth.groups),
        lost_to_corruption=-gone if metric in ERRORS else gone,
        drop=drop,
        excess=excess,
    )
