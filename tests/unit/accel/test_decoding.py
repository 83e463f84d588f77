"""The decoders' arithmetic, against the same in plain Python."""

from __future__ import annotations

import itertools

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from accel.evaluation.decoding import PADDING, best_path, counted, packed, row_shape, same, widened, without_padding

CLASSES = 4


def collapsed(path: list[int], blank: int, trim: tuple[int, ...] = ()) -> list[int]:
    """A path without repetitions, then without blanks, then without what is trimmed from its ends."""
    kept = [symbol for symbol, _ in itertools.groupby(path) if symbol != blank]
    while kept and kept[0] in trim:
        kept.pop(0)
    while kept and kept[-1] in trim:
        kept.pop()
    return kept


def read(symbols: np.ndarray) -> list[list[int]]:
    """The sequences without their padding."""
    rows = [[symbol for symbol in row if symbol != PADDING] for row in symbols.tolist()]
    for row, kept in zip(symbols.tolist(), rows, strict=True):
        assert row[: len(kept)] == kept, "padding stands at the end only"
    return rows


symbols = st.integers(0, CLASSES - 1)
trims = st.lists(symbols, max_size=2).map(tuple)


@st.composite
def paths(draw: st.DrawFn) -> list[list[int]]:
    """Paths of one length, in which symbols are often repeated."""
    steps = draw(st.integers(0, 12))
    return draw(st.lists(st.lists(symbols, min_size=steps, max_size=steps), min_size=1, max_size=5))


@given(paths(), symbols, trims)
def test_the_best_path_is_collapsed(rows: list[list[int]], blank: int, trim: tuple[int, ...]) -> None:
    best = np.array(rows, np.int64).reshape(len(rows), -1)
    scores = np.eye(CLASSES, dtype=np.float32)[best] + np.random.default_rng(0).random((*best.shape, 1))
    assert read(best_path(scores, blank, trim)) == [collapsed(row, blank, trim) for row in rows]


@given(st.lists(st.lists(st.integers(-3, 3), min_size=5, max_size=5), min_size=1, max_size=4), symbols)
def test_targets_lose_their_padding_and_keep_their_repetitions(rows: list[list[int]], blank: int) -> None:
    expected = [[symbol for symbol in row if symbol >= 0 and symbol != blank] for row in rows]
    assert read(without_padding(np.array(rows), blank)) == expected


def test_a_target_is_trimmed_as_the_output_is() -> None:
    labels = np.array([[3, 1, 3, 2, 3, 0], [3, 3, 0, 0, 0, 0]], np.uint16)
    assert read(without_padding(labels, 0, (3,))) == [[1, 3, 2], []]


@given(
    st.lists(st.lists(symbols, max_size=6), min_size=1, max_size=6),
    st.lists(st.lists(symbols, max_size=6), min_size=1, max_size=6),
)
def test_sequences_of_different_widths_are_joined_and_compared(first: list[list[int]], second: list[list[int]]) -> None:
    def apart(rows: list[list[int]]) -> np.ndarray:
        """Each row as a batch of its own, widened to the longest."""
        width = max(map(len, rows))
        return np.concatenate([widened(np.array([row], np.int32).reshape(1, -1), width) for row in rows])

    assert read(apart(first)) == first
    rows = min(len(first), len(second))
    expected = [a == b for a, b in zip(first[:rows], second[:rows], strict=True)]
    np.testing.assert_array_equal(same(apart(first)[:rows], apart(second)[:rows]), expected)


@given(st.integers(1, 4), st.integers(1, 21), st.integers(0, 2**32 - 1))
def test_bits_count_as_the_decisions_do(rows: int, each: int, seed: int) -> None:
    first, second = np.random.default_rng(seed).random((2, rows, each, 3)) > 0.5
    np.testing.assert_array_equal(counted(packed(first)), first.sum((1, 2)))
    np.testing.assert_array_equal(counted(packed(first) ^ packed(second)), (first != second).sum((1, 2)))


def test_axes_of_size_1_at_the_end_do_not_count() -> None:
    assert [row_shape(shape) for shape in ((5,), (5, 1), (5, 1, 3), (5, 3, 1, 1))] == [(), (), (1, 3), (3,)]
