"""Metrics of values."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from accel.errors import BindingMismatch
from accel.evaluation.contract import Metric
from accel.evaluation.predictions import Values
from accel.evaluation.ranking import rank_correlation
from accel.evaluation.resampling import AT_ONCE, Floats, Statistic, Weights, each_added_up, mean, ratio

_NOTHING = 1e-12
"""Share of a sum of squares that is left by rounding where all values are the same."""
_FEW = 1 << 20
"""Values that are taken in at a time."""
_AS_MUCH = 16
"""Sums of values that cost as much as a look at each sample."""


def statistic(metric: Metric, said: Values, truth: Values) -> Statistic:
    """A metric of values, over all values of all samples; a sample has as many as it has.

    Raises:
        BindingMismatch: A correlation of ranks is asked for where a sample has many values.
    """
    from sklearn.metrics import mean_absolute_error, mean_squared_error

    match metric:
        case "mae":
            value, each = _errors(mean_absolute_error, np.abs, said, truth)
            return replace(mean(each), value=value)
        case "rmse":
            value, each = _errors(mean_squared_error, np.square, said, truth)
            squared = mean(each)
            return replace(squared, value=math.sqrt(value), of=lambda sums, total: np.sqrt(squared.of(sums, total)))
        case "r2":
            return _explained(said.numbers, truth.numbers)
        case _:
            if truth.numbers.shape[1] != 1:
                raise BindingMismatch(
                    f"{metric} ranks samples by one value each, and a sample has {truth.numbers.shape[1]:,}.",
                    hint="Use rmse, mae or r2.",
                )
            return rank_correlation(said.numbers[:, 0], truth.numbers[:, 0])


def _errors(
    library: Callable[..., float], of: Callable[[Floats], Floats], said: Values, truth: Values
) -> tuple[float, Floats]:
    """A mean error as scikit-learn computes it, and the mean of each sample's [samples]."""
    size, n = max(1, _FEW // truth.numbers.shape[1]), len(truth)
    total, each = 0.0, np.empty(n)
    for start in range(0, n, size):
        one, two = truth.numbers[start : start + size], said.numbers[start : start + size]
        total += library(one, two) * len(one)
        each[start : start + size] = of(two - one).mean(1)
    return total / n, each


def _explained(said: Floats, truth: Floats) -> Statistic:
    """Share of the target's variance that is explained, of all values together; equal to scikit-learn's, variance_weighted."""
    middle, values = truth.mean(0), truth.shape[1]

    def sums(rows: slice, weights: Weights) -> Floats:
        centred = truth[rows] - middle
        squared, spread = ((said[rows] - truth[rows]) ** 2).sum(1), (centred**2).sum(1)
        return each_added_up((squared, spread, *centred.T), weights)

    def of(sums: Floats, total: Floats) -> Floats:
        squared, spread, shift = sums[0], sums[1], sums[2:]
        around = spread - ratio((shift**2).sum(0), total)
        around[around <= _NOTHING * spread] = 0
        return 1 - ratio(squared, around)

    found = Statistic(math.nan, sums, of, 2 + values, min(AT_ONCE, max(1, _FEW // values)), work=1 + values // _AS_MUCH)
    return replace(found, value=found.once(len(truth))[1])
