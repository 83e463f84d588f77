"""Metrics of order: the area under the ROC curve and Spearman's correlation.

Of few samples each draw is ranked anew. Of many, what each sample adds to the metric is computed once, and a draw's metric is the
mean of that, which is how DeLong et al. (Biometrics 44, 1988) compare areas; both are the same but for what shrinks with the samples.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt

from accel.evaluation.decoding import Bools
from accel.evaluation.resampling import AT_ONCE, Floats, Statistic, Weights, ratio

_FEW = 500_000
"""Scores in all up to which each draw's areas are computed anew, and scikit-learn is asked for those of all samples."""
_FEW_RANKS = 50_000
"""The same for correlations of ranks."""

Column = tuple[Floats, Bools]
"""Scores [samples], and whether each is one of a yes."""


def _linear(value: float, adds: npt.NDArray[np.floating], rarest: int | None = None) -> Statistic:
    """A metric of many samples, by what each adds to it [samples], 0 in the mean."""
    return Statistic(
        value,
        lambda rows, weights: (adds[rows].astype(np.float64) @ weights)[None],
        lambda sums, total: value + ratio(sums[0], total),
        rarest=rarest,
    )


def macro_area(columns: Callable[[], Iterator[Column]]) -> Statistic:
    """Mean area under the ROC curve over columns of scores; those of yes alone or of no alone are left out.

    Args:
        columns: Yields scores [samples] and whether each is one of a yes, class by class.
    """
    from sklearn.metrics import roc_auc_score

    kept = _few(columns)
    if kept is None:
        return linear_area(columns)
    areas = [area(scores, yes) for scores, yes in kept]

    def weighted(_: slice, weights: Weights) -> Floats:
        found = [one(weights) for one in areas]
        known = np.isfinite(found)
        return ratio(np.nansum(found, 0), known.sum(0).astype(np.float64))[None]

    value = float(np.mean([roc_auc_score(yes, scores) for scores, yes in kept])) if kept else math.nan
    rarest = min((_rarest(yes) for _, yes in kept), default=None)
    return Statistic(value, weighted, _as_it_is, at_once=None, work=max(1, len(areas)), rarest=rarest)


def _few(columns: Callable[[], Iterator[Column]]) -> list[Column] | None:
    """The columns that have an area; None where they are too large to be kept."""
    kept: list[Column] = []
    for scores, yes in columns():
        if (len(kept) + 1) * len(scores) > _FEW:
            return None
        if yes.any() and not yes.all():
            kept.append((scores, yes))
    return kept


def _as_it_is(sums: Floats, _: Floats) -> Floats:
    return np.asarray(sums[0])


def _rarest(yes: Bools) -> int:
    return min(int(yes.sum()), len(yes) - int(yes.sum()))


def area(scores: Floats, yes: Bools) -> Callable[[Weights], Floats]:
    """The area under the ROC curve of weighted samples: the chance that a yes scores above a no, ties counting half.

    Between two scores that a yes has it does not matter where a no lies, so that the weights of all of these are summed at once.
    """
    from scipy.sparse import csr_array

    places, each = np.unique(scores[yes], return_inverse=True)
    below = np.searchsorted(places, scores[~yes])
    level = places[np.minimum(below, len(places) - 1)] == scores[~yes]
    n, yes_rows, no_rows = len(scores), np.flatnonzero(yes), np.flatnonzero(~yes)
    of_yes = csr_array((np.ones(len(yes_rows)), (each, yes_rows)), shape=(len(places), n))
    of_no = csr_array((np.ones(len(no_rows)), (2 * below + level, no_rows)), shape=(2 * len(places) + 1, n))

    def weighted(weights: Weights) -> Floats:
        yeses, noes = of_yes @ weights, of_no @ weights
        ties = noes[1::2]
        beaten = np.cumsum(noes[:-1:2] + ties, axis=0) - ties / 2
        return ratio(np.einsum("ij,ij->j", yeses, beaten), yeses.sum(0) * noes.sum(0))

    return weighted


def linear_area(columns: Callable[[], Iterator[Column]]) -> Statistic:
    """The same of many samples."""
    areas, rarest, adds = [], [], None
    for scores, yes in columns():
        if not yes.any() or yes.all():
            continue
        of_yes, of_no = scores[yes], scores[~yes]
        of_yes.sort()
        of_no.sort()
        share, beaten = np.empty(len(scores), np.float32), 0.0
        for here in _parts(len(scores)):
            part, is_yes = scores[here], yes[here]
            above, below = _shares_below(of_no, part[is_yes]), _shares_below(of_yes, part[~is_yes])
            share[here][is_yes], share[here][~is_yes] = above, 1 - below
            beaten += float(above.sum())
        areas.append(beaten / len(of_yes))
        rarest.append(min(len(of_yes), len(of_no)))
        adds = np.zeros(len(scores), np.float32) if adds is None else adds
        of_each = len(scores) / len(of_no), len(scores) / len(of_yes)
        for here in _parts(len(scores)):
            adds[here] += (share[here] - areas[-1]) * np.where(yes[here], of_each[1], of_each[0])
    if adds is None:
        raise ValueError("no column is of both")
    adds /= len(areas)
    return _linear(float(np.mean(areas)), adds, min(rarest))


def _parts(samples: int) -> Iterator[slice]:
    return (slice(start, min(start + AT_ONCE, samples)) for start in range(0, samples, AT_ONCE))


def _shares_below(ordered: Floats, scores: Floats) -> Floats:
    """Share of some numbers that lie below each score, those that are level counting half."""
    both = np.searchsorted(ordered, scores, "left") + np.searchsorted(ordered, scores, "right")
    return np.asarray(both / (2 * len(ordered)))


def rank_correlation(first: Floats, second: Floats) -> Statistic:
    """Spearman's correlation of two series [samples]; those that are level share their mean rank."""
    from scipy.stats import spearmanr

    if len(first) > _FEW_RANKS:
        return linear_rank_correlation(first, second)
    ranks = _ranks(first), _ranks(second)

    def weighted(_: slice, weights: Weights) -> Floats:
        one, two = (ranked(weights) for ranked in ranks)
        middle = (weights.sum(0) + 1) / 2
        one, two = one - middle, two - middle
        spreads = [np.einsum("ij,ij,ij->j", weights, part, part) for part in (one, two)]
        return ratio(np.einsum("ij,ij,ij->j", weights, one, two), np.sqrt(spreads[0] * spreads[1]))[None]

    constant = (first == first[:1]).all() or (second == second[:1]).all()
    value = math.nan if constant else float(spearmanr(first, second).statistic)
    return Statistic(value, weighted, _as_it_is, at_once=None, work=4)


def _ranks(numbers: Floats) -> Callable[[Weights], Floats]:
    """The rank [samples, draws] of each sample among as many copies of each as its weight says."""
    from scipy.sparse import csr_array

    places, each = np.unique(numbers, return_inverse=True)
    at = csr_array((np.ones(len(each)), (each, np.arange(len(each)))), shape=(len(places), len(each)))

    def ranked(weights: Weights) -> Floats:
        here = at @ weights
        return np.asarray((np.cumsum(here, axis=0) - (here - 1) / 2)[each])

    return ranked


def linear_rank_correlation(first: Floats, second: Floats) -> Statistic:
    """The same of many samples: the influence of each on the correlation of both series' shares below, and on their spreads."""
    of_one, of_two = (_Order(numbers).shares_below() - 0.5 for numbers in (first, second))
    together, *spreads = (float(a @ b) / len(first) for a, b in ((of_one, of_two), (of_one, of_one), (of_two, of_two)))
    size = math.sqrt(spreads[0] * spreads[1])
    value = together / size if size > 0 else math.nan
    adds = of_one * of_two / size
    for numbers, own, other, spread in ((first, of_one, of_two, spreads[0]), (second, of_two, of_one, spreads[1])):
        adds -= value / (2 * spread) * own**2
        order = _Order(numbers)
        # A sample moves the shares of all that lie above it, in what is together and, twice, in the spread.
        adds += order.mean_above(other) / size
        adds -= order.mean_above(own) * (value / spread)
    return _linear(value, adds)


class _Order:
    """Numbers [samples] in their order."""

    def __init__(self, numbers: Floats) -> None:
        self._numbers = numbers
        self._order = np.argsort(numbers)
        self._ordered = numbers[self._order]

    def shares_below(self) -> Floats:
        """Of each number, the share of all that lies below, level ones counting half."""
        return np.concatenate(
            [_shares_below(self._ordered, self._numbers[here]) for here in _parts(len(self._numbers))]
        )

    def mean_above(self, of: Floats) -> Floats:
        """For each number, the sum of ``of`` over those that lie above, level ones counting half, over the number of all."""
        sums = np.concatenate([[0.0], np.cumsum(of[self._order])])
        found = np.empty(len(of))
        for here in _parts(len(of)):
            ends = (sums[np.searchsorted(self._ordered, self._numbers[here], side)] for side in ("left", "right"))
            found[here] = sums[-1] - sum(ends) / 2
        return found / len(of)
