"""Which classes lost what, counted one sample at a time."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from accel.evaluation.changes import absent_classes, class_changes
from accel.evaluation.predictions import Classes

SAMPLES = st.lists(st.tuples(*[st.integers(0, 4)] * 3), min_size=1, max_size=60)


@given(SAMPLES)
def test_changes_of_recall(samples: list[tuple[int, int, int]]) -> None:
    truth, before, after = (Classes(np.array(column)) for column in zip(*samples, strict=True))
    found = class_changes(after, before, truth, ["a", "b"])
    expected = {}
    for label in range(5):
        of = [(b == label, a == label) for y, b, a in samples if y == label]
        lost, won = sum(b and not a for b, a in of), sum(a and not b for b, a in of)
        if lost != won:
            expected[label] = (len(of), sum(b for b, _ in of) / len(of), sum(a for _, a in of) / len(of), lost, won)
    assert {c.label: (c.samples, c.baseline_recall, c.model_recall, c.lost, c.won) for c in found} == expected
    losses = [change.baseline_recall - change.model_recall for change in found]
    assert losses == sorted(losses, reverse=True)
    assert [change.name for change in found] == [["a", "b", None, None, None][change.label] for change in found]


def test_a_hundred_classes_at_most() -> None:
    truth = Classes(np.repeat(np.arange(150), 2))
    after = Classes(np.where(np.arange(300) % 2, truth.best, -1))
    found = class_changes(after, truth, truth, None)
    assert [change.label for change in found] == list(range(100))


def test_classes_that_are_not_there() -> None:
    labels = Classes(np.array([0, 2]))
    assert absent_classes(labels, None, "test", None) is None
    assert absent_classes(Classes(np.arange(3)), 3, "test", None) is None
    assert (absent_classes(labels, 3, "test", ["a", "b"]) or "").startswith(
        "The split 'test' has no sample of the class 1 (b): metrics say nothing about it."
    )
    assert "and 988 more" in (absent_classes(labels, 1000, "test", None) or "")
