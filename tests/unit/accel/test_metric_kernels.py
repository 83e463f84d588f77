"""The arithmetic of weighted metrics is scikit-learn's, for whatever weights and ties."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import spearmanr
from sklearn import metrics as library

from accel.evaluation import classification, multilabel, ranking, regression
from accel.evaluation.contract import Metric
from accel.evaluation.decoding import packed
from accel.evaluation.predictions import Decisions, Values
from accel.evaluation.resampling import Statistic, bootstrap, mean
from accel.evaluation.scores import Probabilities

seeds = st.integers(0, 2**32 - 1)


def weights_of(chance: np.random.Generator, n: int) -> np.ndarray:
    """Every sample once, and two draws; the first sample of the draws is there whatever happens."""
    weights = np.stack([np.ones(n), *chance.integers(0, 4, (2, n))], 1).astype(float)
    weights[0] += 1
    weights[0, 0] = 1
    return weights


def agree(found: Statistic, weights: np.ndarray, expected: list[float]) -> None:
    np.testing.assert_allclose(found.weighted(weights), expected, atol=1e-9, rtol=1e-9)
    assert found.value == pytest.approx(expected[0], abs=1e-9)


def tied(chance: np.random.Generator, *shape: int) -> np.ndarray:
    """Numbers of which many are the same, as a quantized output has them."""
    return np.round(chance.standard_normal(shape), int(chance.integers(0, 3)))


@given(seeds, st.integers(4, 60))
def test_the_area_of_two_classes(seed: int, n: int) -> None:
    chance = np.random.default_rng(seed)
    yes, scores, weights = chance.random(n) < 0.4, tied(chance, n), weights_of(chance, n)
    yes[:2], weights[:2] = [True, False], 1
    found = ranking.macro_area(lambda: iter([(scores, yes)]))
    agree(found, weights, [library.roc_auc_score(yes, scores, sample_weight=drawn) for drawn in weights.T])


@given(seeds, st.integers(6, 60), st.integers(3, 6))
def test_the_mean_area_of_each_class_against_the_rest(seed: int, n: int, classes: int) -> None:
    chance = np.random.default_rng(seed)
    labels, scores = chance.integers(0, classes, n), tied(chance, n, classes).astype(np.float32)
    labels[:2] = [0, 1]
    shares, weights = dict(Probabilities.of(scores).columns(np.arange(classes))), weights_of(chance, n)
    expected = []
    for drawn in weights.T:
        here = np.unique(labels[drawn > 0])
        if len(here) < 2:
            expected.append(np.nan)
            continue
        each = [library.roc_auc_score(labels == label, shares[label], sample_weight=drawn) for label in here]
        expected.append(float(np.mean(each)))
    agree(classification.class_area(scores, labels), weights, expected)


@given(seeds)
def test_areas_of_very_many_scores_are_the_same(seed: int) -> None:
    chance = np.random.default_rng(seed)
    labels, scores = chance.integers(0, 4, 300), tied(chance, 300, 4) + np.eye(4)[chance.integers(0, 4, 300)]

    def columns() -> object:
        return ((scores[:, number], labels == number) for number in range(4))

    exact, linear = ranking.macro_area(columns), ranking.linear_area(columns)
    assert linear.value == pytest.approx(exact.value, abs=1e-12)
    ends = [bootstrap(found, 300, seed=1) for found in (exact, linear)]
    assert [ends[1].low, ends[1].high] == pytest.approx([ends[0].low, ends[0].high], abs=0.012)


@given(seeds, st.integers(3, 60), st.integers(2, 6))
def test_macro_f1_of_classes_that_occur(seed: int, n: int, classes: int) -> None:
    chance = np.random.default_rng(seed)
    labels, best = chance.integers(0, classes, n), chance.integers(-1, classes + 1, n)
    weights = weights_of(chance, n)
    expected = [
        library.f1_score(
            labels, best, labels=np.unique(labels[drawn > 0]), average="macro", sample_weight=drawn, zero_division=0
        )
        for drawn in weights.T
    ]
    agree(classification.macro_f1(best, labels), weights, expected)


@given(seeds, st.integers(1, 60), st.integers(1, 6), st.booleans())
def test_log_loss_of_logits_and_of_probabilities(seed: int, n: int, width: int, given_as_shares: bool) -> None:
    chance = np.random.default_rng(seed)
    logits = 3 * chance.standard_normal((n, width)).astype(np.float32)
    logits[0, 0] = -4
    both = np.concatenate([np.zeros((n, 1)), logits], 1) if width == 1 else logits.astype(np.float64)
    shares = np.exp(both) / np.exp(both).sum(1, keepdims=True)
    labels, weights = chance.integers(0, shares.shape[1], n), weights_of(chance, n)
    scores = shares[:, -width:].astype(np.float32) if given_as_shares else logits
    found = classification.log_loss(scores, labels)
    expected = [
        library.log_loss(labels, shares, sample_weight=drawn, labels=np.arange(shares.shape[1])) for drawn in weights.T
    ]
    np.testing.assert_allclose(found.weighted(weights), expected, rtol=1e-4, atol=1e-6)
    assert found.value == pytest.approx(float(found.weighted(np.ones((n, 1)))[0]), abs=1e-9)


@given(seeds, st.integers(3, 40), st.integers(1, 11))
def test_f1_of_decisions(seed: int, n: int, each: int) -> None:
    chance = np.random.default_rng(seed)
    true, said = chance.random((2, n, each)) < 0.4
    true[0, 0] = True
    weights = weights_of(chance, n)
    found, wanted = (Decisions(packed(yes), (each,)) for yes in (said, true))
    spread = [np.repeat(drawn, each) for drawn in weights.T]
    agree(
        multilabel.f1(found, wanted),
        weights,
        [library.f1_score(true.ravel(), said.ravel(), sample_weight=drawn) for drawn in spread],
    )
    expected = []
    for drawn in weights.T:
        labels = np.flatnonzero(true[drawn > 0].any(0))
        each_label = [
            library.f1_score(true[:, label], said[:, label], sample_weight=drawn, zero_division=0) for label in labels
        ]
        expected.append(float(np.mean(each_label)))
    agree(multilabel.macro_f1(found, wanted), weights, expected)


@given(seeds, st.integers(4, 40), st.integers(1, 9))
def test_the_mean_area_of_labels(seed: int, n: int, each: int) -> None:
    chance = np.random.default_rng(seed)
    true, scores = chance.random((n, each)) < 0.4, tied(chance, n, each)
    true[:2, 0] = [True, False]
    weights = weights_of(chance, n)
    weights[:2] = 1
    said = Decisions(packed(scores > 0), (each,), scores.astype(np.float32))
    expected = []
    for drawn in weights.T:
        here = true[drawn > 0]
        labels = np.flatnonzero(here.any(0) & ~here.all(0))
        areas = [library.roc_auc_score(true[:, label], said.scores[:, label], sample_weight=drawn) for label in labels]
        expected.append(float(np.mean(areas)))
    agree(multilabel.label_area(said.scores, Decisions(packed(true), (each,))), weights, expected)


@given(seeds, st.integers(3, 40), st.integers(1, 4))
def test_errors_of_values(seed: int, n: int, width: int) -> None:
    chance = np.random.default_rng(seed)
    true, said = 5 + chance.standard_normal((2, n, width))
    weights = weights_of(chance, n)
    weights[:2] = 1
    functions = {
        "mae": library.mean_absolute_error,
        "rmse": lambda *both, sample_weight: np.sqrt(
            library.mean_squared_error(*both, sample_weight=sample_weight, multioutput="uniform_average")
        ),
        "r2": lambda *both, sample_weight: library.r2_score(
            *both, sample_weight=sample_weight, multioutput="variance_weighted"
        ),
    }
    metric: Metric
    for metric, function in functions.items():
        found = regression.statistic(metric, Values(said), Values(true))
        agree(found, weights, [function(true, said, sample_weight=drawn) for drawn in weights.T])


@given(seeds, st.integers(4, 40))
def test_spearman_of_samples_that_count_more_than_once(seed: int, n: int) -> None:
    chance = np.random.default_rng(seed)
    first, second = chance.integers(0, 6, (2, n)).astype(float)
    first[:2], second[:2] = [0, 9], [-1, 9]
    weights = weights_of(chance, n)
    weights[:2] = 1
    repeated = [np.repeat(np.stack([first, second]), drawn.astype(int), axis=1) for drawn in weights.T]
    found = ranking.rank_correlation(first, second)
    agree(found, weights, [float(spearmanr(*pair).statistic) for pair in repeated])


def test_calibration_error_against_hand_values() -> None:
    confidence, right = np.array([0.3, 0.3, 0.95, 1.0, 0.2]), np.array([False, True, True, False, False])
    # Bins of 1/15: (0.266, 0.333] has 0.3 twice and half right; (0.933, 1] has 0.95 and 1 and half right; 0.2 ends (0.133, 0.2].
    expected = (2 * abs(0.3 - 0.5) + 2 * abs(0.975 - 0.5) + 0.2) / 5
    found = classification.binned_error(confidence, right)
    assert found.value == pytest.approx(expected)
    weights = np.array([[2.0], [0], [0], [1], [0]])
    assert found.weighted(weights)[0] == pytest.approx((2 * 0.3 + 1) / 3)


@given(seeds, st.integers(1, 60))
def test_a_calibrated_model_has_no_error_and_a_boastful_one_has_its_boast(seed: int, n: int) -> None:
    chance = np.random.default_rng(seed)
    right = chance.random(n) < 0.5
    sure = classification.binned_error(np.ones(n), right)
    assert sure.value == pytest.approx(1 - right.mean())
    assert classification.binned_error(np.full(n, right.mean()), right).value == pytest.approx(0, abs=1e-12)


@settings(max_examples=20)
@given(seeds, st.integers(10, 200))
def test_a_share_has_its_interval_whatever_the_groups_are_called(seed: int, n: int) -> None:
    chance = np.random.default_rng(seed)
    right = chance.random(n) < 0.7
    alone, renamed = (bootstrap(mean(right), n, seed=3, groups=groups) for groups in (None, np.arange(n)))
    assert alone == renamed


@given(seeds)
def test_rank_correlations_of_many_samples_are_the_same(seed: int) -> None:
    chance = np.random.default_rng(seed)
    first = tied(chance, 400)
    second = np.round(first + chance.standard_normal(400), 1)
    exact, linear = ranking.rank_correlation(first, second), ranking.linear_rank_correlation(first, second)
    assert linear.value == pytest.approx(exact.value, abs=1e-12)
    assert linear.once(400)[1] == pytest.approx(exact.value, abs=1e-9)
    ends = [bootstrap(found, 400, seed=1) for found in (exact, linear)]
    assert [ends[1].low, ends[1].high] == pytest.approx([ends[0].low, ends[0].high], abs=0.02)


def test_sums_are_the_same_however_many_samples_are_taken_at_a_time() -> None:
    chance = np.random.default_rng(0)
    labels = chance.integers(0, 5, 3000)
    best = np.where(chance.random(3000) < 0.7, labels, chance.integers(-1, 5, 3000))
    whole = classification.macro_f1(best, labels)
    few = replace(whole, at_once=97)
    assert few.once(3000)[1] == pytest.approx(whole.value, abs=1e-12)
    one, other = bootstrap(few, 3000, seed=0), bootstrap(whole, 3000, seed=0)
    assert [one.low, one.high] == pytest.approx([other.low, other.high], abs=1e-12)


def test_draws_of_very_many_samples_are_as_wide_as_those_of_few() -> None:
    """Above 50,000 samples how often each counts is drawn by itself."""
    numbers = np.random.default_rng(0).standard_normal(60_000)
    found = bootstrap(mean(numbers), len(numbers), seed=0)
    half = 1.96 * numbers.std() / np.sqrt(len(numbers))
    assert found.low is not None
    assert found.high is not None
    assert (found.high - found.low) / (2 * half) == pytest.approx(1, abs=0.1)
    assert found.value == pytest.approx((found.low + found.high) / 2, abs=half / 4)
