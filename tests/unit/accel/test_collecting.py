"""What is made of outputs, batch by batch: scores that stay in files, and rows that are not finite."""

from __future__ import annotations

import gc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import special

from accel.data.binding import ColumnInput, CtcGreedy, Embedding, Threshold
from accel.errors import BindingMismatch
from accel.evaluation import metrics
from accel.evaluation.collecting import collector
from accel.evaluation.decoding import packed
from accel.evaluation.predictions import Classes, Decisions, Embeddings, Predictions, Reading, Sequences, Values
from accel.evaluation.scores import Probabilities, all_probabilities

F32 = np.float32
PAIRS = Embedding(second={"x": ColumnInput(column="b")})


def collected(reading: Reading, *batches: np.ndarray, spool: Path | None = None, **more: bool) -> Predictions:
    begun = collector(reading, "o", spool, **more)
    for batch in batches:
        begun.add(batch)
    return begun.predictions()


def softmax(logits: np.ndarray) -> np.ndarray:
    return special.softmax(logits.astype(np.float64), axis=1)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.uint8])
def test_scores_in_a_file_are_those_in_memory(tmp_path: Path, dtype: type) -> None:
    parts = [(np.random.default_rng(seed).random((5, 12)) * 200).astype(dtype) for seed in range(3)]
    mapped = collected("classes", *parts, spool=tmp_path)
    held = collected("classes", *parts, scores=True)
    assert isinstance(mapped, Classes)
    assert isinstance(held, Classes)
    assert mapped.scores is not None
    assert held.scores is not None
    assert isinstance(mapped.scores, np.memmap)
    assert not mapped.scores.flags.writeable
    np.testing.assert_array_equal(mapped.scores, np.concatenate(parts).astype(F32))
    np.testing.assert_array_equal(held.scores, mapped.scores)
    assert mapped.top is not None
    assert all(isinstance(array, np.memmap) for array in (mapped.best, mapped.top))
    assert sum(file.stat().st_size for file in tmp_path.iterdir()) == sum(
        array.nbytes for array in (mapped.best, mapped.top, mapped.scores)
    )
    some = mapped.select(np.array([14, 0]))
    del mapped
    gc.collect()
    assert some.scores is not None
    np.testing.assert_array_equal(some.scores, held.scores[[14, 0]])


def test_scores_are_kept_only_where_they_are_wanted() -> None:
    assert collected("classes", np.eye(3, dtype=F32)).scores is None
    assert collected(Threshold(), np.eye(3, dtype=F32)).scores is None
    assert collected("classes", np.array([1, 2]), scores=True).scores is None, "a name is no score"
    wide = collected(Threshold(), np.ones((2, 1001), F32), scores=True)
    assert isinstance(wide, Decisions)
    assert wide.scores is None, "more than are kept of a sample"


@pytest.mark.parametrize(("classes", "best"), [(2, None), (3, 2), (7, 6), (30, 10)])
def test_the_best_classes_come_first_and_of_equals_the_lower_number(classes: int, best: int | None) -> None:
    rows = np.random.default_rng(0).integers(0, 4, (50, classes)).astype(F32)
    said = collected("classes", rows)
    assert isinstance(said, Classes)
    order = np.argsort(-rows, axis=1, kind="stable")
    np.testing.assert_array_equal(said.best, order[:, 0])
    if best is None:
        assert said.top is None
    else:
        np.testing.assert_array_equal(said.top, order[:, :best])


def test_top_k_is_of_models_with_more_classes_than_that() -> None:
    rows = np.random.default_rng(0).random((40, 6)).astype(F32)
    labels = Classes(np.random.default_rng(1).integers(0, 6, 40))
    said = collected("classes", rows)
    order = np.argsort(-rows, axis=1)
    for metric, count in (("top2_accuracy", 2), ("top3_accuracy", 3), ("top5_accuracy", 5)):
        expected = (order[:, :count] == labels.best[:, None]).any(1).mean()
        assert metrics.value(metric, said, labels) == pytest.approx(expected)  # type: ignore[arg-type]
    with pytest.raises(BindingMismatch, match="no more than 10 classes"):
        metrics.value("top10_accuracy", said, labels)


@pytest.mark.parametrize("wrong", [np.nan, np.inf])
def test_a_row_that_is_not_finite_is_wrong(wrong: float) -> None:
    rows = np.random.default_rng(0).random((6, 4)).astype(F32)
    labels = Classes(rows.argmax(1))
    rows[4, 1] = wrong
    said = collected("classes", rows[:3], rows[3:], scores=True)
    assert isinstance(said, Classes)
    assert said.not_finite.tolist() == [4]
    assert said.best[4] == -1
    assert said.top is not None
    assert said.top[4].tolist() == [-1] * 3
    assert said.select(np.array([5, 4])).not_finite.tolist() == [1]
    assert metrics.value("accuracy", said, labels) == pytest.approx(5 / 6)
    assert metrics.value("top2_accuracy", said, labels) == pytest.approx(5 / 6)
    assert metrics.value("agreement", said, said) == pytest.approx(5 / 6), "what is no answer agrees with nothing"
    one = collected("classes", np.array([0.2, wrong, 0.8], F32))
    assert isinstance(one, Classes)
    assert one.best.tolist() == [0, -1, 1]


def test_a_class_that_is_ruled_out_is_no_broken_row() -> None:
    """As masks and logarithms of probabilities have it."""
    said = collected("classes", np.array([[0, -np.inf, 1], [-np.inf] * 3], F32), scores=True)
    assert isinstance(said, Classes)
    assert said.not_finite.tolist() == [1]
    assert metrics.value("log_loss", said.select(np.array([0])), Classes(np.array([2]))) == pytest.approx(
        np.log(1 + np.exp(-1))
    )


def test_sequences_values_and_vectors_that_are_not_finite() -> None:
    scores = np.eye(4, dtype=F32)[np.array([[1, 2, 3], [1, 1, 2]])]
    labels = collected(CtcGreedy(), scores)
    scores[1, 2, 0] = np.nan
    said = collected(CtcGreedy(), scores)
    assert isinstance(said, Sequences)
    assert said.not_finite.tolist() == [1]
    assert metrics.value("accuracy", said, labels) == 0.5
    assert metrics.value("agreement", said, said) == 0.5

    values = collected("values", np.array([[1.0], [np.inf], [2.0]]))
    assert isinstance(values, Values)
    assert values.not_finite.tolist() == [1]

    vectors = collected(Embedding(), np.array([[1, 0], [np.nan, 1]], F32))
    assert isinstance(vectors, Embeddings)
    assert vectors.not_finite.tolist() == [1]


def test_all_decisions_of_a_row_that_is_not_finite_are_wrong() -> None:
    truth = np.array([[1, 0, 1], [0, 0, 1], [1, 1, 1]]) > 0
    rows = truth.astype(F32)
    rows[1, 0] = np.nan
    said, labels = collected(Threshold(), rows), Decisions(packed(truth), (3,))
    assert said.not_finite.tolist() == [1]
    assert metrics.value("accuracy", said, labels) == pytest.approx(2 / 3)
    assert metrics.value("exact_match", said, labels) == pytest.approx(2 / 3)
    assert metrics.value("f1", said, labels) == pytest.approx(2 * 5 / (2 * 5 + 2 + 1))
    assert metrics.value("agreement", said, said) == pytest.approx(2 / 3)


def test_pairs_are_compared_by_their_cosine() -> None:
    one, two = np.random.default_rng(0).standard_normal((2, 6, 5)).astype(F32)
    two[3] = 0
    begun = collector(PAIRS, "o")
    begun.add(one[:4], two[:4])
    begun.add(one[4:, :, None, None], two[4:, :, None, None])
    said = begun.predictions()
    assert isinstance(said, Embeddings)
    lengths = np.linalg.norm(one, axis=1) * np.linalg.norm(two, axis=1)
    np.testing.assert_allclose(
        said.pairs, np.divide((one * two).sum(1), lengths, where=lengths > 0, out=np.zeros(6, F32)), atol=1e-6
    )
    assert said.vectors is not None
    np.testing.assert_array_equal(said.vectors, one)
    with pytest.raises(BindingMismatch, match="one vector"):
        collected(Embedding(), np.ones((2, 3, 4), F32))
    with pytest.raises(BindingMismatch, match=r"vectors of 5 numbers.*vectors of 4"):
        metrics.value("cosine", said, Embeddings(one[:, :4]))
    with pytest.raises(BindingMismatch, match="no pairs"):
        metrics.value("spearman", said, Embeddings(one))


@given(st.integers(0, 2**32 - 1), st.integers(1, 40), st.integers(2, 6))
def test_probabilities_of_logits_and_of_probabilities(seed: int, n: int, classes: int) -> None:
    logits = 4 * np.random.default_rng(seed).standard_normal((n, classes)).astype(F32)
    logits[0, 0] = -9
    expected = softmax(logits)
    for scores, given_as in ((logits, False), (expected.astype(F32), True), (np.round(expected * 255) / 255, True)):
        known = Probabilities.of(np.asarray(scores, F32))
        assert known.given == given_as
        found = np.concatenate([part for _, part in known.chunks()])
        np.testing.assert_allclose(
            found, expected, atol=1e-5 if scores is not scores.round(2) and not given_as else 0.01
        )
        np.testing.assert_allclose(found.sum(1), 1)
        for number, column in known.columns(np.arange(classes)):
            np.testing.assert_allclose(column, found[:, number], rtol=1e-9, atol=1e-12)


def test_what_is_given_is_decided_by_all_rows() -> None:
    shares = np.full((1000, 3), 1 / 3, F32)
    assert all_probabilities(shares)
    shares[7] = np.nan
    assert all_probabilities(shares), "what is not finite says nothing"
    shares[500] = [1.5, -0.25, -0.25]
    assert not all_probabilities(shares)
    assert not all_probabilities(np.full((4, 3), 0.9, F32))
    assert all_probabilities(np.array([[0.2], [0.9]], F32))
    assert not all_probabilities(np.array([[0.2], [1.9]], F32))
