"""Metrics of sequences and of many decisions a sample, against hand-computed values."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from accel.data.binding import CtcGreedy, Threshold
from accel.errors import BadDataset, BindingMismatch
from accel.evaluation import metrics
from accel.evaluation.collecting import collector
from accel.evaluation.contract import Contract, Metric
from accel.evaluation.decoding import packed, row_shape
from accel.evaluation.predictions import Classes, Decisions, Embeddings, Predictions, Sequences, Values
from accel.evaluation.statistics import wilson
from accel.evaluation.verdict import judge

PADDED = Sequences(np.array([[1, 2, -1], [3, -1, -1], [-1, -1, -1]], np.int32))


def decisions(yes: np.ndarray) -> Decisions:
    return Decisions(packed(yes), row_shape(yes.shape))


def collected(decoder: CtcGreedy | Threshold, batches: list[np.ndarray]) -> Predictions:
    begun = collector(decoder, "o")
    for batch in batches:
        begun.add(batch)
    return begun.predictions()


def test_a_sequence_is_right_as_a_whole() -> None:
    said = Sequences(np.array([[1, 2], [3, 3], [-1, -1]], np.int32))
    assert metrics.value("accuracy", said, PADDED) == pytest.approx(2 / 3)
    assert metrics.estimate("accuracy", said, PADDED, seed=0) == wilson(2, 3)
    lost = metrics.drop("accuracy", PADDED, said, PADDED, seed=0)
    assert lost.value == pytest.approx(1 / 3)
    assert metrics.drop("agreement", PADDED, said, PADDED, seed=0) == lost


def test_batches_may_differ_in_steps() -> None:
    paths = ([[1, 1, 0, 1]], [[2, 0, 0, 3, 3, 0, 2], [0, 0, 0, 0, 0, 0, 0]])
    said = collected(CtcGreedy(), [np.eye(4, dtype=np.float32)[np.array(path)] for path in paths])
    assert isinstance(said, Sequences)
    np.testing.assert_array_equal(said.symbols, [[1, 1, -1], [2, 3, 2], [-1, -1, -1]])
    np.testing.assert_array_equal(said.select(np.array([0, 2])).symbols, said.symbols[[0, 2]])


def test_f1_is_of_all_decisions() -> None:
    truth = decisions(np.array([[1, 1, 0, 0], [0, 0, 0, 1]]) > 0)
    said = decisions(np.array([[1, 0, 1, 0], [0, 0, 0, 1]]) > 0)
    assert metrics.value("f1", said, truth) == pytest.approx(2 * 2 / (2 * 2 + 1 + 1))
    assert metrics.value("accuracy", said, truth) == pytest.approx(6 / 8)
    np.testing.assert_allclose(metrics.marks("accuracy", said, truth), [0.5, 1.0])
    # Of the first sample alone, counted twice: one of two found, one too many.
    assert metrics.statistic("f1", said, truth).weighted(np.array([[2.0], [0.0]])) == pytest.approx(0.5)
    assert metrics.drop("f1", truth, said, truth, seed=0).value == pytest.approx(1 / 3)


@given(st.integers(0, 2**32 - 1), st.sampled_from(["f1", "accuracy"]))
def test_repeating_the_decisions_of_a_sample_makes_nothing_surer(seed: int, metric: Metric) -> None:
    """Decisions of one sample depend on each other: ten copies of each must not narrow an interval."""
    truth, first, second = np.random.default_rng(seed).random((3, 12, 3)) < 0.5
    truth[0, 0] = True
    once = [decisions(yes) for yes in (truth, first, second)]
    often = [decisions(np.repeat(yes, 10, 1)) for yes in (truth, first, second)]
    for found, other in (
        (metrics.estimate(metric, once[1], once[0], seed=1), metrics.estimate(metric, often[1], often[0], seed=1)),
        (metrics.drop(metric, *once[1:], once[0], seed=1), metrics.drop(metric, *often[1:], often[0], seed=1)),
    ):
        assert (found.value, found.low, found.high) == pytest.approx((other.value, other.low, other.high))


def test_the_interval_of_f1_covers_the_truth() -> None:
    """Samples that are good or bad as a whole: an interval over single decisions would be far too narrow."""
    chance, covered = np.random.default_rng(4), 0
    for seed in range(100):
        good = chance.random((80, 1)) < 0.7
        truth = chance.random((80, 50)) < 0.5
        said = np.where(good, truth, ~truth)
        found = metrics.estimate("f1", decisions(said), decisions(truth), seed=seed)
        covered += (found.low or 0) <= 0.7 <= (found.high or 0)
    assert covered >= 88


def test_one_decision_a_sample_is_counted_exactly() -> None:
    said = collected(Threshold(at=0.5), [np.array([[0.5], [0.49]], np.float32), np.array([[0.9]], np.float32)])
    truth = decisions(np.array([True, True, True]))
    assert isinstance(said, Decisions)
    assert (said.shape, said.each) == ((), 1)
    assert metrics.estimate("accuracy", said, truth, seed=0) == wilson(2, 3)


def test_logits_and_whole_numbers_have_their_bound_too() -> None:
    said = collected(Threshold(at=0), [np.array([[-1, 0, 3]], np.int64)])
    assert isinstance(said, Decisions)
    np.testing.assert_array_equal(said.bits, packed(np.array([[False, True, True]])))


@pytest.mark.parametrize(
    ("metric", "said", "possible"),
    [
        *((m, PADDED, "accuracy, agreement") for m in ("top5_accuracy", "macro_f1", "f1", "mae", "rmse", "r2")),
        *(
            (m, decisions(np.ones((3, 2), bool)), "f1, macro_f1, exact_match, accuracy, auc, agreement")
            for m in ("top5_accuracy", "ece", "r2")
        ),
        ("f1", Classes(np.zeros(3, np.int64)), "accuracy, top2_accuracy, .*auc, log_loss, ece, agreement"),
        ("accuracy", Values(np.zeros((3, 1))), "mae, rmse, r2, spearman"),
        ("accuracy", Embeddings(np.ones((3, 2), np.float32)), "spearman, cosine"),
    ],
)
def test_a_metric_that_does_not_apply_is_refused(metric: Metric, said: Predictions, possible: str) -> None:
    for work in (metrics.value, lambda *three: metrics.estimate(*three, seed=0)):
        with pytest.raises(BindingMismatch, match=f"^{metric} does not apply") as caught:
            work(metric, said, said)
        assert re.search(f"Use {possible}[.]", caught.value.hint)
        assert ("threshold" in caught.value.hint) == (metric == "f1")


def test_shapes_that_cannot_be_read_are_named() -> None:
    scores = np.zeros((2, 3, 4), np.float32)
    for decoder, batches, says in (
        (CtcGreedy(), [scores[0]], r"\[3, 4\]; ctc_greedy reads scores \[samples, steps, classes\]"),
        (CtcGreedy(blank=4), [scores], "4 classes a step, so that there is no class 4"),
        (CtcGreedy(trim=(1, 9)), [scores], "no class 9"),
        (Threshold(), [scores, scores[:, :2]], r"rows of \[2, 4\] after rows of \[3, 4\]"),
        (Threshold(), [scores[:, :0]], r"rows of \[0, 4\]"),
    ):
        with pytest.raises(BindingMismatch, match=says):
            collected(decoder, batches)
    with pytest.raises(BindingMismatch, match=r"rows of \[2\].*rows of \[3\]"):
        metrics.value("f1", decisions(np.ones((4, 2), bool)), decisions(np.ones((4, 3), bool)))


def test_f1_of_nothing_is_no_number() -> None:
    nothing = decisions(np.zeros((4, 2), bool))
    with pytest.raises(BadDataset, match="nothing is yes"):
        metrics.estimate("f1", nothing, nothing, seed=0)
    assert metrics.value("accuracy", nothing, nothing) == 1


@pytest.mark.parametrize(("flipped", "outcome"), [(0, "met"), (8, "inconclusive"), (40, "not_met")])
def test_verdicts_on_many_decisions(flipped: int, outcome: str) -> None:
    """Of 800 samples some have half of their decisions wrong; a bound of half a point is 8 of them."""
    truth = np.random.default_rng(0).random((800, 10)) < 0.5
    said = truth.copy()
    said[:flipped, :5] ^= True
    contract = Contract(metric="accuracy", max_drop=0.005)
    verdict = judge(contract, decisions(truth), decisions(said), decisions(truth), seed=0)
    assert verdict.outcome == outcome, verdict.explanation
    assert outcome != "inconclusive" or (verdict.samples_needed or 801) > 800


@pytest.mark.parametrize("samples", [1, 3, 40])
@pytest.mark.parametrize("metric", ["accuracy", "f1", "agreement"])
def test_few_samples_without_a_difference_are_no_proof(samples: int, metric: Metric) -> None:
    truth = decisions(np.random.default_rng(0).random((samples, 88)) < 0.5)
    verdict = judge(Contract(metric=metric, max_drop=0.01), truth, truth, truth, seed=0)
    assert verdict.outcome == "inconclusive", verdict.explanation
