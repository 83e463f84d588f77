"""How far models are apart, sample by sample, against the plainest code that computes the same."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import special

from accel.evaluation.divergence import answer, distances, divergence, edit_distances, kl_divergences, output_noise
from accel.evaluation.predictions import Classes, Decisions, Embeddings, Sequences, Values

WORDS = st.lists(st.lists(st.integers(1, 3), max_size=6), min_size=1, max_size=8)


def sequences(words: list[list[int]], width: int) -> np.ndarray:
    return np.array([word + [-1] * (width - len(word)) for word in words], np.int32).reshape(len(words), width)


def levenshtein(one: list[int], two: list[int]) -> int:
    if not one or not two:
        return len(one) + len(two)
    return min(
        levenshtein(one[1:], two) + 1, levenshtein(one, two[1:]) + 1, levenshtein(one[1:], two[1:]) + (one[0] != two[0])
    )


@given(WORDS, st.integers(0, 99))
def test_edit_distance(words: list[list[int]], seed: int) -> None:
    chance = np.random.default_rng(seed)
    others = [[int(symbol) for symbol in chance.integers(1, 4, chance.integers(0, 6))] for _ in words]
    found = edit_distances(sequences(words, 7), sequences(others, 5))
    assert found.tolist() == [levenshtein(one, two) for one, two in zip(words, others, strict=True)]


@pytest.mark.parametrize("given_as", ["logits", "probabilities", "one logit"])
def test_kl_divergence(given_as: str) -> None:
    chance = np.random.default_rng(0)
    logits, others = chance.normal(0, 4, (2, 500, 1 if given_as == "one logit" else 6)).astype(np.float32)
    if given_as == "one logit":
        p, q = (
            np.stack([1 - special.expit(x[:, 0]), special.expit(x[:, 0])], 1)
            for x in (others.astype(float), logits.astype(float))
        )
    else:
        p, q = special.softmax(others.astype(float), 1), special.softmax(logits.astype(float), 1)
    if given_as == "probabilities":
        logits, others = q.astype(np.float32), p.astype(np.float32)
    expected = special.rel_entr(p, q).sum(1)
    np.testing.assert_allclose(kl_divergences(logits, others), expected, rtol=1e-3, atol=1e-5)
    assert (kl_divergences(logits, logits) == 0).all()


def test_a_probability_of_0_is_not_infinitely_far_away() -> None:
    p, q = np.float32([[0.5, 0.5], [1, 0]]), np.float32([[1, 0], [1, 0]])
    assert kl_divergences(q, p).tolist() == [pytest.approx(0.5 * np.log(0.5) + 0.5 * np.log(0.5e12), rel=1e-6), 0]


def test_noise_of_outputs() -> None:
    chance = np.random.default_rng(1)
    reference = chance.standard_normal((3000, 40)).astype(np.float32)
    output = reference + 0.1 * chance.standard_normal(reference.shape).astype(np.float32)
    found = output_noise("y", output[:2500], reference)
    difference = (output[:2500] - reference[:2500]).astype(float)
    assert found.samples == 2500
    assert found.snr_db == pytest.approx(20, abs=0.1)
    assert found.max_abs_difference == pytest.approx(np.abs(difference).max())
    assert found.cosine == pytest.approx(1 / np.sqrt(1.01), abs=1e-3)
    same = output_noise("y", reference, reference)
    assert (same.snr_db, same.max_abs_difference, same.cosine) == (None, 0, pytest.approx(1))
    output[7, 3] = np.nan
    output[8, 0] = np.inf
    broken = output_noise("y", output[:2500], reference)
    assert broken.snr_db == pytest.approx(20, abs=0.1)
    assert broken.max_abs_difference < 1
    one = output_noise("y", np.zeros(5, np.float16), np.ones(5, np.float32))
    assert (one.snr_db, one.max_abs_difference, one.cosine) == (0, 1, None)


def test_the_worst_samples_come_first() -> None:
    chance = np.random.default_rng(2)
    scores = chance.normal(0, 1, (200, 4)).astype(np.float32)
    others = scores.copy()
    others[:80] += chance.normal(0, 1, (80, 4)).astype(np.float32)
    others[5] = np.nan
    baseline = Classes(scores.argmax(1), scores=scores)
    said = Classes(others.argmax(1), scores=others, not_finite=np.array([5]))
    labels = Classes(np.arange(200) % 4)
    found = divergence(said, baseline, labels, {}, {}, seed=0)
    kl = kl_divergences(others, scores)
    kl[5] = np.inf
    assert found.ordered_by == "kl_divergence"
    assert [sample.row for sample in found.worst] == np.argsort(-kl, kind="stable")[:50].tolist()
    broken, first = found.worst[:2]
    assert (broken.row, broken.difference) == (5, None), "what is no number is the worst"
    assert (first.label, first.baseline, first.model) == (
        first.row % 4,
        int(baseline.best[first.row]),
        int(said.best[first.row]),
    )
    assert found.kl_divergence is not None
    assert found.kl_divergence.value == pytest.approx(np.delete(kl, 5).mean())
    assert found.agreement is not None
    assert found.agreement.value == pytest.approx((said.best == baseline.best).mean(), abs=0.006)
    same = divergence(baseline, baseline, None, {}, {}, seed=0)
    assert same.worst == ()
    assert same.kl_divergence is not None
    assert same.kl_divergence.value == 0


def test_every_kind_has_its_distance() -> None:
    cases = [
        (Classes(np.array([1, 2])), Classes(np.array([1, 3])), [0, 1], None),
        (Values(np.array([[1.0, 5], [2, 2]])), Values(np.array([[1.0, 2], [2, 2]])), [3, 0], "abs_difference"),
        (Decisions(np.uint8([[3], [8]]), (8,)), Decisions(np.uint8([[0], [8]]), (8,)), [2, 0], "decisions"),
        (Sequences(np.int32([[1, 2]])), Sequences(np.int32([[2, -1]])), [1], "edit_distance"),
        (Embeddings(np.float32([[1, 0]])), Embeddings(np.float32([[0, 2]])), [1], "cosine_distance"),
        (Embeddings(None, np.array([0.5])), Embeddings(None, np.array([0.25])), [0.25], "abs_difference"),
    ]
    for said, baseline, far, measure in cases:
        found, name = distances(said, baseline)
        assert found is not None
        assert (found.tolist(), name) == (pytest.approx(far), measure)
    assert distances(Values(np.zeros((2, 1))), Values(np.zeros((2, 2)))) == (None, None)
    broken, _ = distances(Values(np.zeros((2, 1)), np.array([1])), Values(np.zeros((2, 1))))
    assert broken is not None
    assert np.isnan(broken).tolist() == [False, True]


def test_answers_can_be_read() -> None:
    assert answer(Classes(np.array([3])), 0) == 3
    assert answer(Values(np.array([[1.25]])), 0) == 1.25
    assert answer(Values(np.array([[np.nan]])), 0) is None
    assert answer(Values(np.array([[1.0, 2.5]])), 0) == "1 2.5"
    assert answer(Values(np.zeros((1, 40))), 0) == " ".join(["0"] * 16) + " ..."
    assert answer(Sequences(np.int32([[4, 5, -1]])), 0) == "4 5"
    assert answer(Decisions(np.uint8([[128]]), ()), 0) == 1
    assert answer(Decisions(np.uint8([[3]]), (8,)), 0) == "2 of 8 yes"
    assert answer(Embeddings(np.zeros((1, 4), np.float32)), 0) is None
    assert answer(Embeddings(None, np.array([0.5])), 0) == 0.5
