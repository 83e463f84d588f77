"""`met` is answered in at most one of twenty datasets whose true drop lies just outside the bound.

Datasets are simulated; for right and wrong, the verdict depends on two counts only, so that thousands of datasets are judged by
each pair of counts once.
"""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from accel.evaluation.contract import Contract, Metric
from accel.evaluation.predictions import Classes, Predictions, Values
from accel.evaluation.statistics import wilson
from accel.evaluation.verdict import judge

DATASETS = 4_000
OUTSIDE = 1.0001
SURE = 0.99
"""The simulation has an error too: what is refuted must be so with this confidence."""


def right(flags: np.ndarray) -> Classes:
    return Classes(flags.astype(np.int64))


def met(contract: Contract, baseline: Predictions, model: Predictions, truth: Predictions, **more: object) -> bool:
    return judge(contract, baseline, model, truth, seed=0, **more).outcome == "met"  # type: ignore[arg-type]


def share_met(n: int, flips: float, drop: float, bound: float) -> float:
    """Share of datasets of right and wrong answers that are met, of which the model loses ``drop`` more than it wins."""
    shares = [(flips + drop) / 2, (flips - drop) / 2]
    drawn = np.random.default_rng(0).multinomial(n, [*shares, 1 - sum(shares)], DATASETS)
    truth, kept = right(np.ones(n)), 0
    for (lost, won), times in Counter(map(tuple, drawn[:, :2].tolist())).items():
        baseline, model = np.ones(n), np.ones(n)
        model[:lost], baseline[n - won :] = 0, 0
        kept += times * met(Contract(max_drop=bound), right(baseline), right(model), truth)
    return kept / DATASETS


@pytest.mark.parametrize(
    ("n", "flips"), [(300, 0.03), (1_000, 0.0101), (1_000, 0.015), (1_000, 0.03), (1_000, 0.1), (5_000, 0.0101)]
)
def test_right_and_wrong(n: int, flips: float) -> None:
    found = share_met(n, flips, OUTSIDE * 0.01, 0.01)
    assert (wilson(round(found * DATASETS), DATASETS, SURE).low or 0) <= 0.05, f"met in {found:.1%}"


def test_five_thousand_samples_are_enough_where_nothing_is_lost() -> None:
    assert share_met(5_000, 0.03, 0.0, 0.01) >= 0.9


@pytest.mark.parametrize(("groups", "size", "hit"), [(150, 8, 0.3), (300, 4, 0.1), (60, 10, 1.0)])
def test_groups(groups: int, size: int, hit: float) -> None:
    """In a share of the groups many samples are lost together; a bound of two points is just missed."""
    chance, datasets, kept, naive = np.random.default_rng(1), 400, 0, 0
    numbers, truth = np.repeat(np.arange(groups), size), right(np.ones(groups * size))
    for _ in range(datasets):
        rate = (chance.random(groups) < hit) * OUTSIDE * 0.02 / hit
        rate = np.minimum(rate * chance.exponential(size=groups), 1) if hit == 1 else rate
        model = right(chance.random(groups * size) >= np.repeat(rate, size))
        kept += met(Contract(max_drop=0.02), truth, model, truth, groups=numbers)
        naive += met(Contract(max_drop=0.02), truth, model, truth)
    assert (wilson(kept, datasets, SURE).low or 0) <= 0.05, f"met in {kept / datasets:.1%}"
    assert kept <= naive, "a verdict that takes each row for a sample is surer than it may be"


def regressed(chance: np.random.Generator, n: int) -> tuple[Predictions, ...]:
    """Errors are normal, those of the model wider by the drop."""
    truth, first, own = chance.standard_normal((3, n))
    second = (1 + OUTSIDE * 0.05) * (0.95 * first + np.sqrt(1 - 0.95**2) * own)
    return tuple(Values(numbers[:, None]) for numbers in (truth + first, truth + second, truth))


def ranked(chance: np.random.Generator, n: int) -> tuple[Predictions, ...]:
    """Scores are normal in each class, apart by what gives areas of 0.9 and 0.89."""
    labels = (chance.random(n) < 0.4).astype(np.int64)
    first, own = chance.standard_normal((2, n))
    second = 0.95 * first + np.sqrt(1 - 0.95**2) * own
    logits = [first + 1.812388 * labels, second + 1.734569 * labels]  # sqrt(2) times the normal quantile of the area
    said = [Classes((x > 0).astype(np.int64), scores=np.stack([np.zeros(n), x], 1).astype(np.float32)) for x in logits]
    return (*said, Classes(labels))


@pytest.mark.parametrize(("metric", "bound", "draw"), [("rmse", 0.05, regressed), ("auc", 0.01, ranked)])
@pytest.mark.slow
def test_metrics_that_are_drawn(metric: Metric, bound: float, draw: object) -> None:
    chance, datasets = np.random.default_rng(2), 300
    contract = Contract(metric=metric, max_drop=bound)
    kept = sum(met(contract, *draw(chance, 400)) for _ in range(datasets))  # type: ignore[operator]
    assert (wilson(kept, datasets, SURE).low or 0) <= 0.05, f"met in {kept / datasets:.1%}"
