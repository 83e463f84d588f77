"""Which classes lost what between two models."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from accel.evaluation.predictions import Classes
from accel.report import ClassChange

_LISTED = 100
_NAMED = 10


def class_changes(
    said: Classes, baseline: Classes, labels: Classes, names: Sequence[str] | None
) -> tuple[ClassChange, ...]:
    """Classes whose recall changed, the largest loss first; at most 100.

    Args:
        said: What the model says.
        baseline: What the baseline says of the same samples.
        labels: What is true.
        names: Of the classes, by their numbers.
    """
    truth = np.asarray(labels.best)
    before, after = np.asarray(baseline.best) == truth, np.asarray(said.best) == truth
    width = int(truth.max(initial=-1)) + 1
    samples, right_before, right_after, lost, won = (
        np.bincount(truth[chosen], minlength=width)
        for chosen in (truth >= 0, before, after, before & ~after, after & ~before)
    )
    changed = np.flatnonzero(right_before != right_after)
    loss = (right_before[changed] - right_after[changed]) / samples[changed]
    order = changed[np.lexsort((changed, -lost[changed], -loss))]
    return tuple(
        ClassChange(
            label=int(label),
            name=_name(int(label), names),
            samples=int(samples[label]),
            baseline_recall=float(right_before[label] / samples[label]),
            model_recall=float(right_after[label] / samples[label]),
            lost=int(lost[label]),
            won=int(won[label]),
        )
        for label in order[:_LISTED]
    )


def absent_classes(labels: Classes, classes: int | None, split: str, names: Sequence[str] | None) -> str | None:
    """A note on classes of which a split has no sample; None where it has one of each, or their number is not known.

    Args:
        labels: What is true.
        classes: Number of classes.
        split: Name of the split.
        names: Of the classes, by their numbers.
    """
    if classes is None:
        return None
    absent = np.setdiff1d(np.arange(classes), np.asarray(labels.best))
    if not len(absent):
        return None
    said = [f"{label} ({name})" if (name := _name(int(label), names)) else f"{label}" for label in absent[:_NAMED]]
    more = f" and {len(absent) - _NAMED:,} more" if len(absent) > _NAMED else ""
    what = "class" if len(absent) == 1 else "classes"
    return (
        f"The split {split!r} has no sample of the {what} {', '.join(said)}{more}: metrics say nothing about "
        f"{'it' if len(absent) == 1 else 'them'}."
    )


def _name(label: int, names: Sequence[str] | None) -> str | None:
    return names[label] if names is not None and label < len(names) else None
