"""Metrics of many yes/no decisions a sample."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from accel.evaluation.contract import Metric
from accel.evaluation.decoding import Bits, Bools, Ints, counted
from accel.evaluation.predictions import Decisions, Scores
from accel.evaluation.ranking import Column, macro_area
from accel.evaluation.resampling import AT_ONCE, Floats, Statistic, Weights, each_added_up, ratio
from accel.evaluation.scores import columns as columns_of

_FEW = 1 << 21
"""Decisions that are unpacked at a time."""


def statistic(metric: Metric, said: Decisions, truth: Decisions) -> Statistic:
    """A metric of weighted samples: f1, macro_f1, or auc, which needs scores."""
    match metric:
        case "f1":
            return f1(said, truth)
        case "macro_f1":
            return macro_f1(said, truth)
        case _ if said.scores is not None:
            return label_area(said.scores, truth)
        case _:
            raise ValueError(f"there are no scores for {metric}")


def answered(said: Decisions, truth: Decisions) -> Bits:
    """The decisions as they are counted: where an output is not finite, all of them are wrong."""
    rows = np.union1d(said.not_finite, truth.not_finite)
    if not len(rows):
        return said.bits
    bits = said.bits.copy()
    real = np.packbits(np.ones(said.each, np.bool_))
    bits[rows] = ~truth.bits[rows] & real
    return bits


def f1(said: Decisions, truth: Decisions) -> Statistic:
    """F1 of yes over all decisions: 2 TP / (2 TP + FP + FN)."""
    from sklearn.metrics import f1_score

    bits = answered(said, truth)

    def sums(rows: slice, weights: Weights) -> Floats:
        found, true = bits[rows], truth.bits[rows]
        return each_added_up((counted(found & true), counted(found), counted(true)), weights)

    found = Statistic(math.nan, sums, lambda sums, _: ratio(2 * sums[0], sums[1] + sums[2]), 3)
    (hits, named, true), _ = found.once(len(said))
    # Decisions of one outcome are one sample, as heavy as there are of them: right yes, wrong yes, missed yes.
    heavy = [hits, named - hits, true - hits]
    return replace(found, value=float(f1_score([1, 0, 1], [1, 1, 0], sample_weight=heavy)) if any(heavy) else math.nan)


def macro_f1(said: Decisions, truth: Decisions) -> Statistic:
    """Mean of the F1 of each label; one that is no everywhere is left out."""
    from scipy.sparse import csr_array

    bits, size = answered(said, truth), max(1, _FEW // said.each)
    yes = _yes_of_each_label(truth)
    present = np.flatnonzero(yes)
    if not len(present):
        return Statistic(
            math.nan, lambda _, weights: np.zeros((1, weights.shape[1])), lambda _, total: total * math.nan
        )

    def sums(rows: slice, weights: Weights) -> Floats:
        found, true = (_unpacked(part[rows], said.each)[:, present] for part in (bits, truth.bits))
        parts = (csr_array(part.T, dtype=np.float64) @ weights for part in (found & true, found, true))
        return np.concatenate([np.asarray(part) for part in parts])

    def of(sums: Floats, _: Floats) -> Floats:
        hits, named, truly = sums.reshape(3, len(present), -1)
        each = ratio(2 * hits, truly + named)
        return ratio(np.where(truly > 0, each, 0).sum(0), (truly > 0).sum(0).astype(np.float64))

    found = Statistic(
        math.nan, sums, of, 3 * len(present), min(AT_ONCE, size), work=len(present), rarest=int(yes[present].min())
    )
    return replace(found, value=found.once(len(said))[1])


def label_area(scores: Scores, truth: Decisions) -> Statistic:
    """Mean area under the ROC curve over labels; one that is yes or no everywhere is left out."""

    def columns() -> Iterator[Column]:
        yes = _yes_of_each_label(truth)
        for number, column in columns_of(scores, np.flatnonzero((yes > 0) & (yes < len(truth)))):
            byte, place = divmod(number, 8)
            yield column, (truth.bits[:, byte] & (128 >> place)) > 0

    return macro_area(columns)


def _yes_of_each_label(truth: Decisions) -> Ints:
    """How many samples each label is yes for [labels]."""
    yes, size = np.zeros(truth.each, np.int64), max(1, _FEW // truth.each)
    for start in range(0, len(truth), size):
        yes += _unpacked(truth.bits[start : start + size], truth.each).sum(0)
    return yes


def _unpacked(bits: Bits, each: int) -> Bools:
    return np.unpackbits(bits, axis=1, count=each).astype(np.bool_)
