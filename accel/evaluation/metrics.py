"""Metrics of predictions against what is true, and what is lost between two models."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypeGuard

import numpy as np

from accel.errors import BadDataset, BindingMismatch
from accel.evaluation.contract import ERRORS, Metric
from accel.evaluation.decoding import Bools, counted, same
from accel.evaluation.predictions import Classes, Decisions, Floats, Predictions, Sequences, Values
from accel.evaluation.statistics import Weights, bootstrap, paired_drop, wilson
from accel.report import Estimate

_ONE_ERROR = 0.6827
"""How sure an interval is that reaches one standard error to both sides."""

_SEEN = 10
"""Samples that differ from where a bootstrap over samples shows how they may."""

Statistic = Callable[[Weights | None], float]
"""A metric of some samples, each counted as often as its weight says."""


def check_metric(metric: Metric, kind: type[Predictions]) -> None:
    """Refuse a metric that does not go with what the model says.

    Raises:
        BindingMismatch: Names those that do.
    """
    if metric in kind.metrics:
        return
    hint = f"Use {', '.join(kind.metrics)}."
    if metric == "f1":
        hint += ' f1 is of yes/no decisions: {"binding": {"decoder": {"decoder": "threshold"}}}.'
    raise BindingMismatch(f"{metric} does not apply, since the model gives {kind.what}.", hint=hint)


def estimate(metric: Metric, said: Predictions, truth: Predictions, *, seed: int) -> Estimate:
    """A metric with its 95 % interval: Wilson's for shares of samples, a bootstrap over samples for the others."""
    found = marks(metric, said, truth)
    if right_or_wrong(found):
        return wilson(int(found.sum()), len(found))
    return _defined(metric, bootstrap(statistic(metric, said, truth), len(said), seed=seed))


def drop(
    metric: Metric,
    baseline: Predictions,
    model: Predictions,
    truth: Predictions,
    *,
    seed: int,
    confidence: float = 0.95,
) -> Estimate:
    """How much worse the model is than the baseline on the same samples; above 0 is worse, whatever the metric."""
    before, after = marks(metric, baseline, truth), marks(metric, model, truth)
    if right_or_wrong(before) and right_or_wrong(after):
        return paired_drop(before, after, confidence)
    found = _drawn_drop(metric, baseline, model, truth, seed=seed, confidence=confidence)
    return _with_unseen(found, baseline, model, confidence)


def _drawn_drop(
    metric: Metric, baseline: Predictions, model: Predictions, truth: Predictions, *, seed: int, confidence: float
) -> Estimate:
    sign = -1.0 if metric in ERRORS else 1.0
    first, second = statistic(metric, baseline, truth), statistic(metric, model, truth)
    found = bootstrap(
        lambda weights: sign * (first(weights) - second(weights)), len(baseline), seed=seed, confidence=confidence
    )
    return _defined(metric, found)


def _with_unseen(found: Estimate, baseline: Predictions, model: Predictions, confidence: float) -> Estimate:
    """A bootstrap's interval, widened by what may differ on samples that were not seen.

    Where no sample differs, every draw is the same, and the bootstrap is sure of it however few there are. So where few do,
    the interval also holds the share of samples that may differ at all, each of them wholly lost.
    """
    if found.low is None or found.high is None or "agreement" not in type(model).metrics:
        return found
    same = np.asarray(marks("agreement", model, baseline) == 1)
    if (~same).sum() >= _SEEN:
        return found
    reach = paired_drop(np.ones(len(same), np.bool_), same, confidence).high or 0.0
    return Estimate(value=found.value, low=min(found.low, -reach), high=max(found.high, reach))


def cautious_drop(metric: Metric, baseline: Predictions, model: Predictions, truth: Predictions, *, seed: int) -> float:
    """The drop plus its standard error, to choose by: of many candidates on few samples the best is mostly a lucky one."""
    before, after = marks(metric, baseline, truth), marks(metric, model, truth)
    if before is None or after is None:
        found = _drawn_drop(metric, baseline, model, truth, seed=seed, confidence=_ONE_ERROR)
        return found.value if found.high is None else found.high
    lost = before.astype(np.float64) - after.astype(np.float64)
    return float(lost.mean() + lost.std() / math.sqrt(len(lost)))


def marks(metric: Metric, said: Predictions, truth: Predictions) -> Bools | Floats | None:
    """What each sample adds to a metric that is a mean over samples; None where it is none.

    Whether the sample is right; of many decisions the share that is right, since those of one sample depend on each other and
    must not be counted as if each were a sample.

    Raises:
        BindingMismatch: The metric does not apply, or the decisions are of different shapes.
    """
    check_metric(metric, type(said))
    match said, truth:
        case Classes(best, top), Classes(labels) if metric != "macro_f1":
            if metric == "top5_accuracy" and top is not None:
                return np.asarray((top == labels[:, None]).any(1))
            return np.asarray(best == labels)
        case Sequences(symbols), Sequences(labels):
            return same(symbols, labels)
        case Decisions() as decided, Decisions() as wanted if metric != "f1":
            check_shapes(decided, wanted)
            wrong = counted(decided.bits ^ wanted.bits)
            return wrong == 0 if decided.each == 1 else 1 - wrong / decided.each
        case _:
            return None


def check_shapes(said: Decisions, truth: Decisions) -> None:
    """Refuse to compare decisions that are not the same ones.

    Raises:
        BindingMismatch: Names both shapes.
    """
    if said.shape != truth.shape:
        raise BindingMismatch(
            f"The output has {list(said.shape)} decisions a sample, what it is compared with has {list(truth.shape)}.",
            hint="Both need one shape, apart from axes of size 1 at the end. Check the target, and which output the binding names.",
        )


def check_values(said: Values, truth: Values) -> None:
    """Refuse to compare values of different shapes.

    Raises:
        BindingMismatch: Names both.
    """
    if truth.numbers.shape[1:] != said.numbers.shape[1:]:
        raise BindingMismatch(
            f"The target has the shape {truth.numbers.shape}, the output {said.numbers.shape}.",
            hint="Both need as many values a sample. Check the target, and which output the binding names.",
        )


def statistic(metric: Metric, said: Predictions, truth: Predictions) -> Statistic:
    """A metric of weighted samples; what does not depend on the weights is computed once.

    Raises:
        BindingMismatch: The metric does not apply, or the shapes differ.
    """
    found = marks(metric, said, truth)
    if found is not None:
        return lambda weights: float(np.average(found, weights=weights))
    match said, truth:
        case Classes(), Classes():
            return _macro_f1(said, truth)
        case Decisions(), Decisions():
            return _f1(said, truth)
        case Values(), Values():
            return _regression(metric, said, truth)
        case _:
            raise TypeError(f"{type(said).__name__} cannot be held against {type(truth).__name__}")


def value(metric: Metric, said: Predictions, truth: Predictions) -> float:
    """A metric of all samples."""
    return statistic(metric, said, truth)(None)


def right_or_wrong(found: Bools | Floats | None) -> TypeGuard[Bools]:
    """Whether marks say of each sample only that it is right or wrong, so that exact tests on counts of samples apply."""
    return found is not None and found.dtype == np.bool_


def _defined(metric: Metric, found: Estimate) -> Estimate:
    if math.isfinite(found.value):
        return found
    if metric == "f1":
        raise BadDataset(
            "f1 is no number on these samples: nothing is yes, neither in the target nor by the model.",
            hint="Use accuracy, or samples where something is yes.",
        )
    raise BadDataset(
        f"{metric} is no number on these samples: the target is the same everywhere, or is not finite somewhere.",
        hint="Use mae or rmse where the target does not vary, and remove rows whose target is not a number.",
    )


def _macro_f1(said: Classes, truth: Classes) -> Statistic:
    """Mean of each class's F1; a class that neither the labels nor the model name is left out."""
    labels, best = truth.best, said.best
    width, right = int(max(labels.max(initial=0), best.max(initial=0))) + 1, labels == best

    def weighted(weights: Weights | None) -> float:
        hit = np.bincount(labels, right * (1.0 if weights is None else weights), width)
        total = np.bincount(labels, weights, width) + np.bincount(best, weights, width)
        return float(np.mean(2 * hit[total > 0] / total[total > 0]))

    return weighted


def _f1(said: Decisions, truth: Decisions) -> Statistic:
    """F1 of yes over all decisions: 2 TP / (2 TP + FP + FN)."""
    check_shapes(said, truth)
    hits = counted(said.bits & truth.bits)
    named = counted(said.bits) + counted(truth.bits)

    def weighted(weights: Weights | None) -> float:
        total = float(np.sum(named if weights is None else named * weights))
        return 2 * float(np.sum(hits if weights is None else hits * weights)) / total if total > 0 else math.nan

    return weighted


def _regression(metric: Metric, said: Values, truth: Values) -> Statistic:
    check_values(said, truth)
    numbers = truth.numbers
    error = said.numbers - numbers
    absolute, squared = np.abs(error).mean(1), (error**2).mean(1)

    def spread(weights: Weights | None) -> float:
        mean = np.average(numbers, axis=0, weights=weights)
        return float(np.average(((numbers - mean) ** 2).mean(1), weights=weights))

    def weighted(weights: Weights | None) -> float:
        match metric:
            case "mae":
                return float(np.average(absolute, weights=weights))
            case "rmse":
                return math.sqrt(float(np.average(squared, weights=weights)))
            case _:
                around = spread(weights)
                return 1 - float(np.average(squared, weights=weights)) / around if around > 0 else math.nan

    return weighted
