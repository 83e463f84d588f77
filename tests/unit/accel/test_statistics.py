"""Intervals, tests and verdicts of evaluations, against hand-computed values and by simulation."""

from __future__ import annotations

import numpy as np
import pytest

from accel.errors import BindingMismatch, LabelsOutOfRange
from accel.evaluation import metrics
from accel.evaluation.collecting import collector
from accel.evaluation.contract import Contract, Metric
from accel.evaluation.predictions import Classes, Values
from accel.evaluation.resampling import bootstrap, mean
from accel.evaluation.statistics import mcnemar, paired_drop, wilson
from accel.evaluation.truth import check_labels
from accel.evaluation.verdict import judge


def classes(*values: int) -> Classes:
    return Classes(np.array(values, np.int64))


def flags(right: int, wrong: int) -> np.ndarray:
    return np.repeat([True, False], [right, wrong])


def test_wilson_against_its_published_values() -> None:
    # Newcombe (Stat. Med. 17, 1998), table I: 81 of 263 and 0 of 20.
    some = wilson(81, 263)
    assert (round(some.low or 0, 4), round(some.high or 0, 4)) == (0.2553, 0.3662)
    none = wilson(0, 20)
    assert none.low == pytest.approx(0, abs=1e-12)
    assert round(none.high or 0, 4) == 0.1611


def test_mcnemar_is_the_binomial_test() -> None:
    # Twice the chance of at most 2 heads in 12 throws: 2 * (1 + 12 + 66) / 4096.
    assert mcnemar(10, 2) == pytest.approx(2 * 79 / 4096)
    assert mcnemar(2, 10) == mcnemar(10, 2)
    assert mcnemar(0, 0) == 1.0


def test_paired_drop_against_published_values() -> None:
    # Fagerland, Lydersen and Laake (Stat. Med. 33, 2014): 1, 1, 7 and 12 children. Tango -0.517 to -0.026, Bonett and Price -0.508 to
    # -0.013; the interval holds both.
    before, after = (
        np.repeat([True, True, False, False], [1, 1, 7, 12]),
        np.repeat([True, False, True, False], [1, 1, 7, 12]),
    )
    found = paired_drop(before, after)
    assert (round(found.low or 0, 3), round(found.high or 0, 3)) == (-0.517, -0.013)
    mirrored = paired_drop(after, before)
    assert (mirrored.low, mirrored.high) == (pytest.approx(-(found.high or 0)), pytest.approx(-(found.low or 0)))


def test_paired_drop_stays_honest_where_nothing_differs() -> None:
    same = flags(3, 2)
    drop = paired_drop(same, same)
    assert drop.value == 0
    assert (drop.high or 0) > 0.3


def test_paired_drop_covers_the_truth() -> None:
    chance = np.random.default_rng(1)
    covered = 0
    for _ in range(400):
        draw = chance.random(150)
        baseline, model = draw < 0.9, (draw < 0.82) | (draw > 0.97)  # loses 8 %, wins 3 %: the truth is 5 %
        drop = paired_drop(baseline, model)
        covered += (drop.low or 0) <= 0.05 <= (drop.high or 0)
    assert covered / 400 >= 0.93


def test_bootstrap_covers_the_mean() -> None:
    chance = np.random.default_rng(2)
    covered = 0
    for seed in range(150):
        sample = chance.exponential(size=80)
        found = bootstrap(mean(sample), 80, seed=seed)
        covered += (found.low or 0) <= 1 <= (found.high or 0)
    assert covered / 150 >= 0.87


def test_metrics_against_hand_values() -> None:
    labels = classes(0, 0, 1, 1, 2)
    said = classes(0, 1, 1, 1, 0)
    assert metrics.value("accuracy", said, labels) == pytest.approx(3 / 5)
    # F1: class 0 2*1/(2+2), class 1 2*2/(2+3), class 2 0.
    assert metrics.value("macro_f1", said, labels) == pytest.approx((0.5 + 0.8 + 0) / 3)
    values, truth = (Values(np.array(numbers)[:, None]) for numbers in ([1.0, 3.0], [2.0, 5.0]))
    assert metrics.value("mae", values, truth) == pytest.approx(1.5)
    assert metrics.value("rmse", values, truth) == pytest.approx(np.sqrt(2.5))
    assert metrics.value("r2", values, truth) == pytest.approx(1 - 2.5 / 2.25)


def collected(batches: list[np.ndarray]) -> Classes:
    begun = collector("classes", "o")
    for batch in batches:
        begun.add(batch)
    said = begun.predictions()
    assert isinstance(said, Classes)
    return said


def test_predictions_of_every_shape() -> None:
    scores = np.eye(7, dtype=np.float32)
    said = collected([scores[:3], scores[3:]])
    np.testing.assert_array_equal(said.best, range(7))
    assert said.top is not None
    assert metrics.value("top5_accuracy", said, classes(*range(7))) == 1
    one = collected([np.array([[0.2], [0.7]], np.float32)])
    np.testing.assert_array_equal(one.best, [0, 1])
    logit = collected([np.array([-3.0, 0.4], np.float32)])
    np.testing.assert_array_equal(logit.best, [0, 1])
    named = collected([np.array([4, 2])])
    np.testing.assert_array_equal(named.best, [4, 2])
    with pytest.raises(BindingMismatch, match="one row of class scores"):
        collected([np.zeros((2, 3, 4), np.float32)])


def test_labels_without_a_class_are_counted() -> None:
    with pytest.raises(LabelsOutOfRange, match=r"label 9 is outside the model's 4 classes.*2 of 3"):
        check_labels(np.array([1, 9, -1]), 4, "o")
    with pytest.raises(LabelsOutOfRange, match="whole numbers"):
        check_labels(np.array(["cat"]), 4, "o")


@pytest.mark.parametrize(
    ("lost", "won", "n", "outcome"),
    [(2, 2, 5000, "met"), (400, 0, 5000, "not_met"), (0, 0, 20, "inconclusive"), (60, 15, 5000, "inconclusive")],
)
def test_verdicts(lost: int, won: int, n: int, outcome: str) -> None:
    labels, baseline, model = (np.zeros(n, np.int64) for _ in range(3))
    model[:lost] = 1
    baseline[n - won :] = 1
    verdict = judge(Contract(max_drop=0.01), Classes(baseline), Classes(model), Classes(labels), seed=0)
    assert verdict.outcome == outcome, verdict.explanation
    assert (verdict.samples_needed is not None) == (outcome == "inconclusive")
    assert outcome != "inconclusive" or (verdict.samples_needed or 0) > n


def test_a_choice_by_few_samples_leaves_a_standard_error_to_spare() -> None:
    labels, baseline, model = (np.zeros(100, np.int64) for _ in range(3))

    def cautious() -> float:
        return metrics.cautious_drop("accuracy", Classes(baseline), Classes(model), Classes(labels), seed=0)

    assert cautious() == 0
    model[0] = baseline[1] = 1  # one lost and one won: no drop, but not known to be none
    assert cautious() == pytest.approx(np.sqrt(2) / 100)
    chance = np.random.default_rng(0)
    truth, noise = chance.standard_normal(400), chance.standard_normal((2, 400))
    numbers = [Values((truth + 0.1 * part)[:, None]) for part in noise]
    values = Values(truth[:, None])
    found = metrics.drop("rmse", *numbers, values, seed=0)
    assert found.high is not None
    assert found.value < metrics.cautious_drop("rmse", *numbers, values, seed=0) < found.high


def test_errors_rise_where_accuracies_drop() -> None:
    chance = np.random.default_rng(0)
    truth = Values(chance.standard_normal((300, 1)))
    good, bad = (Values(truth.numbers + noise * chance.standard_normal((300, 1))) for noise in (0.1, 0.5))
    drop = metrics.drop("rmse", good, bad, truth, seed=0)
    assert drop.value > 0.3
    assert (drop.low or 0) > 0.2
    contract = Contract(metric="rmse", max_drop=0.1)
    assert judge(contract, good, bad, truth, seed=0).outcome == "not_met"


@pytest.mark.parametrize("metric", ["auc", "macro_f1"])
def test_few_samples_that_are_all_ranked_right_prove_little(metric: Metric) -> None:
    """Two models whose scores differ everywhere and whose order is the same lose nothing in any draw."""
    labels = np.arange(14) % 2
    one, two = (
        Classes(labels, scores=np.stack([-gap, gap], 1).astype(np.float32))
        for gap in (labels - 0.5, 3 * labels - 1.25 + np.linspace(0, 0.1, 14))
    )
    truth = Classes(labels)
    alone = metrics.estimate(metric, one, truth, seed=0)
    assert (alone.value, alone.high) == (1, 1)
    assert (alone.low or 1) < 0.85
    verdict = judge(Contract(metric=metric, max_drop=0.05), one, two, truth, seed=0)
    assert verdict.outcome == "inconclusive", verdict.explanation


def test_a_gain_is_called_one() -> None:
    truth, half = Classes(np.ones(400, np.int64)), Classes(np.arange(400) % 2)
    verdict = judge(Contract(), half, truth, truth, seed=0)
    assert verdict.outcome == "met"
    assert "sure that it gains at least 4" in verdict.explanation, verdict.explanation


def test_no_interval_goes_beyond_what_a_metric_can_be() -> None:
    chance = np.random.default_rng(0)
    labels = np.arange(60) % 2
    scores = labels + 0.45 * chance.standard_normal(60)
    said = Classes((scores > 0.5).astype(np.int64), scores=np.stack([-scores, scores], 1).astype(np.float32))
    found = metrics.estimate("auc", said, Classes(labels), seed=0)
    assert found.value > 0.9
    assert found.high == 1
    close = Values(labels[:, None] + np.where(np.arange(60) == 7, 0.5, 0)[:, None])
    assert metrics.estimate("rmse", close, Values(labels[:, None].astype(float)), seed=0).low == 0
