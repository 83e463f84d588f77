"""Metrics of predictions against what is true, and what is lost between two models."""

from __future__ import annotations

import math
from typing import TypeGuard

import numpy as np

from accel.errors import BindingMismatch
from accel.evaluation import classification, multilabel, regression
from accel.evaluation.contract import ERRORS, SHARES, Metric
from accel.evaluation.decoding import Bools, Ints, cosines, counted, same
from accel.evaluation.predictions import (
    Classes,
    Decisions,
    Embeddings,
    Floats,
    Predictions,
    Sequences,
    Values,
    check_alike,
)
from accel.evaluation.ranking import rank_correlation
from accel.evaluation.resampling import FEWEST, Statistic, bootstrap, mean
from accel.evaluation.scores import chunks
from accel.evaluation.statistics import paired_drop, wilson
from accel.evaluation.undefined import SCORED, TOPS, check_applies, check_defined
from accel.report import Estimate

_WITHIN: dict[Metric, tuple[float, float]] = {
    **dict.fromkeys(ERRORS, (0.0, math.inf)),
    **dict.fromkeys((*SHARES, "auc"), (0.0, 1.0)),
    **dict.fromkeys(("spearman", "cosine"), (-1.0, 1.0)),
    "r2": (-math.inf, 1.0),
}
"""What no metric goes beyond."""

_ONE_ERROR = 0.6827
"""How sure an interval is that reaches one standard error to both sides."""


def estimate(
    metric: Metric, said: Predictions, truth: Predictions, *, seed: int, groups: Ints | None = None
) -> Estimate:
    """A metric with its 95 % interval: Wilson's for shares of samples, a bootstrap over samples for the others.

    Args:
        metric: The metric.
        said: What the model says.
        truth: What that is held against.
        seed: Seed of the bootstrap.
        groups: Number of each sample's group [samples]; intervals are then drawn from whole groups.

    Raises:
        BindingMismatch: The metric does not apply, or the shapes differ.
        BadDataset: It is no number on these samples.
    """
    found = marks(metric, said, truth)
    if groups is None and right_or_wrong(found):
        return wilson(int(found.sum()), len(found))
    check_defined(metric, said, truth)
    drawn = bootstrap(statistic(metric, said, truth), len(said), seed=seed, groups=groups)
    if groups is not None and right_or_wrong(found):
        drawn = _with_unseen_share(drawn, found, groups)
    if drawn.low is None or drawn.high is None:
        return drawn
    reach, (least, most) = 0.0, _WITHIN[metric]
    if drawn.low == drawn.high and _bounded(metric):  # every draw is the same: see drawn_drop
        reach = _unseen(np.zeros(len(said), np.bool_), 0.95, groups) or 0.0
    return Estimate(value=drawn.value, low=max(least, drawn.low - reach), high=min(most, drawn.high + reach))


def drop(
    metric: Metric,
    baseline: Predictions,
    model: Predictions,
    truth: Predictions,
    *,
    seed: int,
    confidence: float = 0.95,
    groups: Ints | None = None,
) -> Estimate:
    """How much worse the model is than the baseline on the same samples; above 0 is worse, whatever the metric.

    Raises:
        BindingMismatch: The metric does not apply, or the shapes differ.
        BadDataset: It is no number on these samples.
    """
    before, after = marks(metric, baseline, truth), marks(metric, model, truth)
    if groups is None and right_or_wrong(before) and right_or_wrong(after):
        return paired_drop(before, after, confidence)
    for said in (baseline, model):
        check_defined(metric, said, truth)
    return drawn_drop(
        metric,
        lost(metric, baseline, model, truth),
        len(baseline),
        differing(metric, baseline, model, truth),
        seed=seed,
        confidence=confidence,
        groups=groups,
    )


def lost(metric: Metric, baseline: Predictions, model: Predictions, truth: Predictions) -> Statistic:
    """The drop of a metric, as a statistic of weighted samples; above 0 is worse."""
    change = statistic(metric, baseline, truth).minus(statistic(metric, model, truth))
    return change.times(-1.0) if metric in ERRORS else change


def differing(metric: Metric, baseline: Predictions, model: Predictions, truth: Predictions) -> Bools | None:
    """Which samples a drop may come from; None where each may change a little."""
    before, after = marks(metric, baseline, truth), marks(metric, model, truth)
    if before is not None and after is not None:
        return np.asarray(before != after)
    if isinstance(baseline, Classes | Decisions) and isinstance(model, Classes | Decisions):
        first, second = baseline.scores, model.scores
        if metric in SCORED and first is not None and second is not None and first.shape == second.shape:
            parts = zip(chunks(first), chunks(second), strict=True)
            return np.concatenate([(one != two).any(1) for (_, one), (_, two) in parts])
        return np.asarray(marks("agreement", model, baseline) != 1)
    return None


def drawn_drop(
    metric: Metric,
    change: Statistic,
    samples: int,
    differing: Bools | None,
    *,
    seed: int,
    confidence: float = 0.95,
    groups: Ints | None = None,
) -> Estimate:
    """A change with its interval from draws, widened by what may differ on samples, or groups, that were not seen.

    Where every draw is the same, as where no sample differs, the bootstrap is sure of it however few samples there are. So where
    few differ, the interval also holds the share of samples that may differ at all, each of them wholly lost.

    Args:
        metric: The metric.
        change: What is drawn.
        samples: Their number.
        differing: Which samples the change may come from; None where each may change a little.
        seed: Seed of the bootstrap.
        confidence: How sure the interval is.
        groups: Number of each sample's group.
    """
    found = bootstrap(change, samples, seed=seed, confidence=confidence, groups=groups)
    if found.low is None or found.high is None:
        return found
    if found.low == found.high and _bounded(metric):  # what differs makes no difference, such as scores of one order
        differing = np.zeros(samples, np.bool_)
    reach = None if differing is None else _unseen(differing, confidence, groups)
    if reach is None:
        return found
    return Estimate(value=found.value, low=min(found.low, -reach), high=max(found.high, reach))


def _bounded(metric: Metric) -> bool:
    least, most = _WITHIN[metric]
    return math.isfinite(most - least)


def _unseen(differing: Bools, confidence: float, groups: Ints | None) -> float | None:
    """The largest share of samples, or of groups, that may differ, where few of those that were seen do; None where enough do."""
    units = differing if groups is None else _any_of(differing, groups)
    if units.sum() >= FEWEST:
        return None
    return paired_drop(np.ones(len(units), np.bool_), ~units, confidence).high


def _with_unseen_share(found: Estimate, right: Bools, groups: Ints) -> Estimate:
    """The same for a share of samples that are right: few groups may have what all others do not show."""
    if found.low is None or found.high is None:
        return found
    low, high = found.low, found.high
    failing, passing = _any_of(~right, groups), _any_of(right, groups)
    if failing.sum() < FEWEST:
        low = min(low, wilson(int((~failing).sum()), len(failing)).low or 0.0)
    if passing.sum() < FEWEST:
        high = max(high, wilson(int(passing.sum()), len(passing)).high or 1.0)
    return Estimate(value=found.value, low=low, high=high)


def _any_of(flags: Bools, groups: Ints) -> Bools:
    """For each group, whether any of its samples is one."""
    return np.asarray(np.bincount(groups, flags) > 0)


def cautious_drop(
    metric: Metric,
    baseline: Predictions,
    model: Predictions,
    truth: Predictions,
    *,
    seed: int,
    groups: Ints | None = None,
) -> float:
    """The drop plus its standard error, to choose by: of many candidates on few samples the best is mostly a lucky one.

    Infinite where the model's output is not finite.
    """
    if len(model.not_finite):
        return math.inf
    before, after = marks(metric, baseline, truth), marks(metric, model, truth)
    if before is None or after is None:
        for said in (baseline, model):
            check_defined(metric, said, truth)
        change = lost(metric, baseline, model, truth)
        found = bootstrap(change, len(baseline), seed=seed, confidence=_ONE_ERROR, groups=groups)
        return found.value if found.high is None else found.high
    gone = before.astype(np.float64) - after.astype(np.float64)
    away = gone - gone.mean()
    error = math.sqrt(float(((away if groups is None else np.bincount(groups, away)) ** 2).sum())) / len(gone)
    return float(gone.mean()) + error


def marks(metric: Metric, said: Predictions, truth: Predictions) -> Bools | Floats | None:
    """What each sample adds to a metric that is a mean over samples; None where it is none.

    Whether the sample is right; of many decisions the share that is right, since those of one sample depend on each other and
    must not be counted as if each were a sample. Where an output is not finite it is wrong.

    Raises:
        BindingMismatch: The metric does not apply, or the decisions are of different shapes.
    """
    check_applies(metric, said)
    check_alike(said, truth)
    match said, truth:
        case Classes(best), Classes(labels):
            found = _among_best(TOPS[metric], said, labels) if metric in TOPS else best == labels
            return None if metric in SCORED or metric == "macro_f1" else _but_for(found, said, truth)
        case Sequences(symbols), Sequences(labels):
            return _but_for(same(symbols, labels), said, truth)
        case Decisions() as decided, Decisions() as wanted if metric in {"accuracy", "agreement", "exact_match"}:
            wrong = counted(multilabel.answered(decided, wanted) ^ wanted.bits)
            return wrong == 0 if decided.each == 1 or metric == "exact_match" else 1 - wrong / decided.each
        case Embeddings(), Embeddings() if metric == "cosine":
            return _cosines(said, truth)
        case _:
            return None


def _among_best(count: int, said: Classes, labels: Ints) -> Bools:
    if said.top is None:
        raise ValueError("there are no best classes")
    return np.concatenate(
        [(part[:, :count] == labels[start : start + len(part), None]).any(1) for start, part in chunks(said.top)]
    )


def _but_for(right: Bools, said: Predictions, truth: Predictions) -> Bools:
    for rows in (said.not_finite, truth.not_finite):
        right[rows] = False
    return right


def _cosines(said: Embeddings, truth: Embeddings) -> Floats:
    if said.vectors is None or truth.vectors is None:
        raise BindingMismatch(
            "cosine compares vectors, and what the output is compared with has none.", hint="Use spearman."
        )
    parts = zip(chunks(said.vectors), chunks(truth.vectors), strict=True)
    return np.concatenate([cosines(one, two) for (_, one), (_, two) in parts])


def statistic(metric: Metric, said: Predictions, truth: Predictions) -> Statistic:
    """A metric of weighted samples; what does not depend on the weights is computed once.

    Raises:
        BindingMismatch: The metric does not apply, or the shapes differ.
    """
    found = marks(metric, said, truth)
    if found is not None:
        return mean(found)
    if metric == "spearman":
        check_applies(metric, truth)
    match said, truth:
        case Classes(), Classes(labels):
            return classification.statistic(metric, said, labels)
        case Decisions(), Decisions():
            return multilabel.statistic(metric, said, truth)
        case Values(), Values():
            return regression.statistic(metric, said, truth)
        case Embeddings(_, found_pairs), Embeddings(_, wanted_pairs) if (
            found_pairs is not None and wanted_pairs is not None
        ):
            return rank_correlation(found_pairs, wanted_pairs)
        case _:
            raise TypeError(f"{metric}: {type(said).__name__} cannot be held against {type(truth).__name__}")


def value(metric: Metric, said: Predictions, truth: Predictions) -> float:
    """A metric of all samples."""
    check_applies(metric, said)
    check_defined(metric, said, truth)
    return statistic(metric, said, truth).value


def right_or_wrong(found: Bools | Floats | None) -> TypeGuard[Bools]:
    """Whether marks say of each sample only that it is right or wrong, so that exact tests on counts of samples apply."""
    return found is not None and found.dtype == np.bool_
