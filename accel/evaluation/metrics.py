"""Metrics of predictions against labels."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import assert_never

import numpy as np
import numpy.typing as npt

from accel.errors import BadDataset, BindingMismatch, LabelsOutOfRange, RuntimeFailed
from accel.evaluation.contract import Metric
from accel.evaluation.statistics import Bools, Weights, bootstrap, paired_drop, wilson
from accel.report import Estimate

Array = npt.NDArray[np.generic]
Floats = npt.NDArray[np.float64]

CLASSIFICATION: tuple[Metric, ...] = ("accuracy", "top5_accuracy", "macro_f1")
REGRESSION: tuple[Metric, ...] = ("mae", "rmse", "r2")
_TOP = 5


@dataclass(frozen=True, slots=True)
class Predictions:
    """What a model said about each sample: classes (with the five best), or values."""

    classes: npt.NDArray[np.int64] | None
    top: npt.NDArray[np.int64] | None
    values: Floats | None

    def __len__(self) -> int:
        first = self.classes if self.classes is not None else self.values
        return 0 if first is None else len(first)


class Collector:
    """Reduces a model's outputs to what metrics need, batch by batch, so that memory does not grow with their width."""

    def __init__(self, *, classes: bool, name: str) -> None:
        """Begin.

        Args:
            classes: Whether the task is classification.
            name: Name of the output, for messages.
        """
        self._classes, self._name = classes, name
        self._parts: list[Array] = []
        self._tops: list[Array] = []
        self._width = 0

    def add(self, batch: Array) -> None:
        """Take in scores [n, classes], one score a sample [n] or [n, 1], labels [n], or values [n, ...].

        Raises:
            BindingMismatch: The output's shape fits no task.
            RuntimeFailed: A value is not finite.
        """
        rows = batch.reshape(len(batch), -1)
        self._width = rows.shape[1]
        if not self._classes:
            values = rows.astype(np.float64)
            if not np.isfinite(values).all():
                raise RuntimeFailed(f"The output {self._name!r} holds values that are not finite.")
            self._parts.append(values)
            return
        if batch.ndim > 2 and self._width != batch.shape[1]:  # noqa: PLR2004  ([n, classes, 1, 1] is fine)
            raise BindingMismatch(
                f"The output {self._name!r} has the shape {list(batch.shape)}; one row of class scores a sample is needed.",
                hint="Name another output in the binding, or evaluate the task as regression.",
            )
        self._parts.append(rows[:, 0].copy() if self._width == 1 else rows.argmax(1))
        if self._width > _TOP:
            self._tops.append(np.argpartition(-rows.astype(np.float32), _TOP - 1, 1)[:, :_TOP])

    def predictions(self) -> Predictions:
        """What the model said about every sample."""
        joined = np.concatenate(self._parts)
        if not self._classes:
            return Predictions(None, None, joined.astype(np.float64))
        if self._width == 1:
            return Predictions(_binary(joined), None, None)
        top = np.concatenate(self._tops).astype(np.int64) if self._tops else None
        return Predictions(joined.astype(np.int64), top, None)


def _binary(scores: Array) -> npt.NDArray[np.int64]:
    if scores.dtype.kind in "iub":
        return scores.astype(np.int64)
    floats = scores.astype(np.float64)
    # Probabilities lie within 0 and 1; a score outside shows that these are logits.
    probabilities = bool(((floats >= 0) & (floats <= 1)).all())
    return (floats > (0.5 if probabilities else 0.0)).astype(np.int64)


def check_labels(labels: Array, classes: int, name: str) -> None:
    """Refuse labels that the model has no class for.

    Raises:
        LabelsOutOfRange: Names the first such label and how many there are.
    """
    if labels.dtype.kind not in "iub":
        raise LabelsOutOfRange(
            f"The labels are of type {labels.dtype}; whole numbers from 0 are needed.",
            hint="Encode the classes as 0, 1, 2, ..., or set the task to regression in the dataset's spec.",
        )
    wrong = (labels.astype(np.int64) < 0) | (labels.astype(np.int64) >= classes)
    if wrong.any():
        raise LabelsOutOfRange(
            f"The label {labels[wrong][0]} is outside the model's {classes} classes (output {name!r}); "
            f"{int(wrong.sum()):,} of {len(labels):,} rows are so.",
            hint="Labels count from 0. Check that the dataset belongs to this model, and which output the binding names.",
        )


def estimate(metric: Metric, said: Predictions, labels: Array, *, seed: int) -> Estimate:
    """A metric with its 95 % interval: Wilson's for shares, a bootstrap for the others."""
    if metric in {"accuracy", "top5_accuracy", "agreement"}:
        right = correct(metric, said, labels)
        return wilson(int(right.sum()), len(right))
    return _defined(metric, bootstrap(lambda weights: value(metric, said, labels, weights), len(said), seed=seed))


def drop(
    metric: Metric, baseline: Predictions, model: Predictions, labels: Array, *, seed: int, confidence: float = 0.95
) -> Estimate:
    """How much worse the model is than the baseline on the same samples; above 0 is worse, whatever the metric."""
    labels = reference(metric, baseline, labels)
    if metric in {"accuracy", "top5_accuracy", "agreement"}:
        return paired_drop(correct(metric, baseline, labels), correct(metric, model, labels), confidence)
    sign = -1.0 if metric in {"mae", "rmse"} else 1.0
    found = bootstrap(
        lambda weights: sign * (value(metric, baseline, labels, weights) - value(metric, model, labels, weights)),
        len(baseline),
        seed=seed,
        confidence=confidence,
    )
    return _defined(metric, found)


def reference(metric: Metric, baseline: Predictions, labels: Array) -> Array:
    """What predictions are held against: the labels, or for the agreement what the baseline said."""
    return baseline.classes if metric == "agreement" and baseline.classes is not None else labels


def _defined(metric: Metric, found: Estimate) -> Estimate:
    if not math.isfinite(found.value):
        raise BadDataset(
            f"{metric} is no number on these samples: the target is the same everywhere, or is not finite somewhere.",
            hint="Use mae or rmse where the target does not vary, and remove rows whose target is not a number.",
        )
    return found


def correct(metric: Metric, said: Predictions, labels: Array) -> Bools:
    """For each sample, whether it is right by a metric that counts."""
    if said.classes is None:
        raise BindingMismatch(f"{metric} needs classes, but the model gives values.", hint="Use mae, rmse or r2.")
    if metric == "top5_accuracy" and said.top is not None:
        return np.asarray((said.top == labels[:, None]).any(1))
    return np.asarray(said.classes == labels)


def value(metric: Metric, said: Predictions, labels: Array, weights: Weights | None = None) -> float:
    """A metric, each sample counted as often as its weight says."""
    match metric:
        case "accuracy" | "top5_accuracy" | "agreement":
            return float(np.average(correct(metric, said, labels), weights=weights))
        case "macro_f1":
            return _macro_f1(said, labels, weights)
        case "mae" | "rmse" | "r2":
            return _regression(metric, said, labels, weights)
        case _:
            assert_never(metric)


def _macro_f1(said: Predictions, labels: Array, weights: Weights | None) -> float:
    """Mean of each class's F1; a class that neither the labels nor the model name is left out."""
    if said.classes is None:
        raise BindingMismatch("macro_f1 needs classes, but the model gives values.", hint="Use mae, rmse or r2.")
    truth = labels.astype(np.int64)
    width = int(max(truth.max(initial=0), said.classes.max(initial=0))) + 1
    hit = np.bincount(truth, (truth == said.classes) * (1.0 if weights is None else weights), width)
    total = np.bincount(truth, weights, width) + np.bincount(said.classes, weights, width)
    return float(np.mean(2 * hit[total > 0] / total[total > 0]))


def _regression(metric: Metric, said: Predictions, labels: Array, weights: Weights | None) -> float:
    if said.values is None:
        raise BindingMismatch(f"{metric} needs values, but the model gives classes.", hint="Use accuracy or macro_f1.")
    if labels.dtype.kind not in "biuf":
        raise BindingMismatch(f"The target is of type {labels.dtype}; {metric} needs numbers.")
    truth = labels.reshape(len(labels), -1).astype(np.float64)
    if truth.shape != said.values.shape:
        raise BindingMismatch(f"The target has the shape {truth.shape}, the output {said.values.shape}.")
    error = said.values - truth
    squared = float(np.average((error**2).mean(1), weights=weights))
    match metric:
        case "mae":
            return float(np.average(np.abs(error).mean(1), weights=weights))
        case "rmse":
            return math.sqrt(squared)
        case _:
            mean = np.average(truth, axis=0, weights=weights)
            spread = float(np.average(((truth - mean) ** 2).mean(1), weights=weights))
            return 1 - squared / spread if spread > 0 else math.nan
