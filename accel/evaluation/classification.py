"""Metrics of classes that are no mean over samples, or that need the probabilities of all classes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from accel.evaluation.contract import Metric
from accel.evaluation.decoding import Bools, Ints
from accel.evaluation.predictions import Classes, Scores
from accel.evaluation.ranking import Column, macro_area
from accel.evaluation.resampling import AT_ONCE, Floats, Statistic, Weights, added_up, mean, ratio
from accel.evaluation.scores import Probabilities

_BINS = 15
_EDGE = float(np.finfo(np.float64).eps)
"""Probabilities are kept so far from 0 and 1, as scikit-learn does."""


def statistic(metric: Metric, said: Classes, labels: Ints) -> Statistic:
    """A metric of weighted samples.

    Args:
        metric: One that is no mean over samples, or needs scores.
        said: What the model says, with scores where the metric needs them.
        labels: The true class of each sample.
    """
    if metric == "macro_f1":
        return macro_f1(said.best, labels)
    if said.scores is None:
        raise ValueError(f"there are no scores for {metric}")
    match metric:
        case "auc":
            return class_area(said.scores, labels)
        case "log_loss":
            return log_loss(said.scores, labels)
        case _:
            return calibration_error(said, said.scores, labels)


def macro_f1(best: Ints, labels: Ints) -> Statistic:
    """Mean of the F1 of each class that occurs; one that no sample has is left out."""
    occurring, samples = np.unique(labels, return_counts=True)
    classes = len(occurring)

    def sums(rows: slice, weights: Weights) -> Floats:
        """Of each class the hits, the samples that are of it, and those that are said to be."""
        true, said = (np.searchsorted(occurring, numbers[rows]) for numbers in (labels, best))
        said = np.minimum(said, classes - 1)
        known = occurring[said] == best[rows]
        each = ((known & (said == true), true), (np.ones(len(true)), true), (known, said))
        return np.concatenate([added_up(numbers, places, classes, weights) for numbers, places in each])

    def of(sums: Floats, _: Floats) -> Floats:
        hits, truly, named = sums.reshape(3, classes, -1)
        each = ratio(2 * hits, truly + named)
        return ratio(np.where(truly > 0, each, 0).sum(0), (truly > 0).sum(0).astype(np.float64))

    return Statistic(_f1_of_library(best, labels), sums, of, 3 * classes, work=2, rarest=int(samples.min()))


def _f1_of_library(best: Ints, labels: Ints) -> float:
    """scikit-learn's macro F1; samples of one label and one answer are one sample, as heavy as there are of them."""
    from sklearn.metrics import f1_score

    cells: Counter[tuple[int, int]] = Counter()
    for start in range(0, len(labels), AT_ONCE):
        label, answer = (np.asarray(part[start : start + AT_ONCE], np.int64) for part in (labels, best))
        width = int(answer.max()) + 2  # -1 is an answer too
        found, times = np.unique(label * width + answer + 1, return_counts=True)
        pairs = zip((found // width).tolist(), (found % width - 1).tolist(), strict=True)
        cells.update(dict(zip(pairs, times.tolist(), strict=True)))
    true, said = zip(*cells, strict=True)
    return float(
        f1_score(
            true, said, labels=sorted(set(true)), average="macro", sample_weight=list(cells.values()), zero_division=0
        )
    )


def class_area(scores: Scores, labels: Ints) -> Statistic:
    """Area under the ROC curve: of class 1 where there are two classes, else the mean of each class against the rest."""
    known = Probabilities.of(scores)
    of = np.array([1]) if known.classes == 2 else np.unique(labels)  # noqa: PLR2004

    def columns() -> Iterator[Column]:
        for number, column in known.columns(of):
            yield column, labels == number

    return macro_area(columns)


def log_loss(scores: Scores, labels: Ints) -> Statistic:
    """Mean of minus the logarithm of the true class's probability, in nats."""
    from sklearn.metrics import log_loss as of_library

    losses = np.empty(len(labels))
    for start, part in Probabilities.of(scores).chunks():
        losses[start : start + len(part)] = part[np.arange(len(part)), labels[start : start + len(part)]]
    total = 0.0
    for start in range(0, len(labels), AT_ONCE):
        # Whether the true class is there, which it always is, has the same loss as which class is there.
        true = losses[start : start + AT_ONCE]
        total += of_library(np.ones(len(true)), true, labels=[0, 1], normalize=False)
        losses[start : start + AT_ONCE] = -np.log(np.clip(true, _EDGE, 1 - _EDGE))
    return replace(mean(losses), value=total / len(labels))


def calibration_error(said: Classes, scores: Scores, labels: Ints) -> Statistic:
    """Expected calibration error: how far confidence is from the share that is right, over 15 bins of confidence.

    Sources: Naeini et al., AAAI 2015; Guo et al., ICML 2017.
    """
    confidence = np.concatenate([part.max(1) for _, part in Probabilities.of(scores).chunks()])
    return binned_error(confidence, said.best == labels)


def binned_error(confidence: Floats, right: Bools) -> Statistic:
    """Expected calibration error of confidences [samples] from 0 to 1; a bin holds its upper bound."""
    bins = np.empty(len(confidence), np.int32)
    for start in range(0, len(bins), AT_ONCE):
        here = slice(start, start + AT_ONCE)
        bins[here] = np.clip(np.ceil(confidence[here] * _BINS) - 1, 0, _BINS - 1)
    gaps = confidence - right
    found = Statistic(
        0.0,
        lambda rows, weights: added_up(gaps[rows], bins[rows], _BINS, weights),
        lambda sums, total: ratio(np.abs(sums).sum(0), total),
        _BINS,
    )
    return replace(found, value=found.once(len(bins))[1])
