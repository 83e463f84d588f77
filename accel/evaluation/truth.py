"""What predictions are compared with."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from accel.data.bind import Bound
from accel.data.binding import CtcGreedy, Embedding, Threshold
from accel.data.dataset import Dataset
from accel.errors import BindingMismatch, LabelsOutOfRange
from accel.evaluation.contract import Contract, Metric
from accel.evaluation.decoding import Ints, packed, row_shape, without_padding
from accel.evaluation.predictions import (
    NAME_A_DECODER,
    Classes,
    Decisions,
    Embeddings,
    Predictions,
    Reading,
    Sequences,
    Values,
    check_alike,
    kind_of,
)
from accel.evaluation.undefined import SCORED, check_labels_tell, check_metric, lacking, tells, undefined
from accel.runtimes.sessions import Port

Array = npt.NDArray[np.generic]

_ROWS = 256
"""Rows of a target of many decisions that are in memory at a time."""


@dataclass(frozen=True, slots=True)
class Truth:
    """The dataset's labels, or nothing but the baseline's own predictions."""

    labels: Predictions | None
    metrics: tuple[Metric, ...]
    reading: Reading

    groups: Ints | None = None
    """Number of each row's group; None where each is for itself."""
    scored: bool = False
    """Whether a contract needs the scores themselves, not only what is best."""

    def select(self, index: Ints) -> Truth:
        """What is true of some rows, by their numbers."""
        labels = None if self.labels is None else self.labels.select(index)
        told = tuple(metric for metric in self.metrics if labels is None or tells(metric, labels))
        groups = None if self.groups is None else np.unique(self.groups[index], return_inverse=True)[1]
        return replace(self, labels=labels, metrics=told or ("accuracy",), groups=groups)

    def against(self, metric: Metric, baseline: Predictions) -> Predictions:
        """What predictions are held against: the labels, or what the baseline said, as for the agreement."""
        if self.labels is None or metric == "agreement":
            return baseline
        scores_of_pairs = isinstance(self.labels, Embeddings) and self.labels.vectors is None
        return baseline if metric == "cosine" and scores_of_pairs else self.labels

    def check(self, said: Predictions) -> None:
        """Refuse predictions that the labels do not go with.

        Raises:
            BindingMismatch: Names the shapes of both.
            LabelsOutOfRange: A label is none of the model's classes.
        """
        if self.labels is None:
            return
        check_alike(said, self.labels)
        if isinstance(said, Classes) and said.scores is not None and isinstance(self.labels, Classes):
            check_labels(self.labels.best, max(2, said.scores.shape[1]))


def truth_of(dataset: Dataset, bound: Bound, contracts: Sequence[Contract], outputs: Sequence[Port]) -> Truth | None:
    """What models are held against on some rows; None where no metric applies and no contract asks for one.

    Raises:
        BindingMismatch: A contract needs labels and there are none, or its metric or the labels do not go with the output.
        LabelsOutOfRange: The labels are not the model's classes.
    """
    groups, scored = bound.groups(), any(contract.metric in SCORED for contract in contracts)
    if bound.target is None:
        free: Metric = "cosine" if isinstance(bound.decoder, Embedding) else "agreement"
        for contract in contracts:
            if contract.metric != free:
                raise BindingMismatch(
                    f"A contract on {contract.metric} needs labels, and the dataset has no target.",
                    hint=f'Name it: {{"binding": {{"target": "<column>"}}}}, or use the metric {free}.',
                )
        if not contracts and bound.decoder is None:
            return None
        return Truth(None, (free,), bound.decoder or "classes", groups)
    reading: Reading = bound.decoder or ("values" if dataset.summary.task == "regression" else "classes")
    port = next(port for port in outputs if port.name == bound.output)
    shape = port.shape
    if reading == "classes" and (row_shape((len(bound), *bound.target.shape)) or len(row_shape(shape)) > 1):
        if not contracts:
            return None
        raise BindingMismatch(
            f"{contracts[0].metric} cannot be computed: the labels {['*', *bound.target.shape]} or the output "
            f"{bound.output!r} {['*', *shape[1:]]} have parts of samples, not one class each.",
            hint=NAME_A_DECODER,
        )
    labels = labels_of(bound, reading, classes_in(reading, shape, port.dtype))
    check_metrics([contract.metric for contract in contracts], reading, labels)
    metric = contracts[0].metric if contracts else next(m for m in _STANDARD[type(labels)] if tells(m, labels))
    return Truth(labels, (metric,), reading, groups, scored)


def check_metrics(wanted: Iterable[Metric], reading: Reading, labels: Predictions | None) -> None:
    """Refuse metrics that do not go with how the output is read, or of which the labels tell nothing.

    Raises:
        BindingMismatch: Names the metrics that do.
        BadDataset: The labels are all the same, where the metric compares samples that differ.
    """
    for metric in wanted:
        check_metric(metric, kind_of(reading))
        check_labels_tell(metric, labels)


def classes_in(
    reading: Reading, shape: Sequence[int | str | None], dtype: np.dtype[np.generic] | None = None
) -> int | None:
    """Number of classes that an output of a shape has; None where it has none, or the model does not say.

    Args:
        reading: How the output is read.
        shape: Its shape with the samples, of a batch or of a port.
        dtype: Its element type: one whole number a sample names a class, whichever there are.
    """
    sizes = [size for size in shape[1:] if isinstance(size, int)]
    if reading == "classes" and len(sizes) == len(shape) - 1:
        width = math.prod(sizes)
        named = width == 1 and dtype is not None and dtype.kind in "iub"
        return None if named else max(2, width)  # one score tells two classes apart
    if isinstance(reading, CtcGreedy) and len(shape) == 3 and isinstance(shape[2], int):  # noqa: PLR2004
        return shape[2]
    return None


_STANDARD: dict[type[Predictions], tuple[Metric, ...]] = {
    Classes: ("accuracy", "top5_accuracy", "macro_f1", "auc", "log_loss", "ece"),
    Sequences: ("accuracy",),
    Decisions: ("f1", "macro_f1", "accuracy", "exact_match", "auc"),
    Values: ("rmse", "mae", "r2", "spearman"),
    Embeddings: ("spearman", "cosine"),
}
"""What is measured where nothing is asked for, as far as it applies; the first is the one that is compared."""


def standard_metrics(labels: Predictions, said: Predictions) -> tuple[Metric, ...]:
    """What is measured where nothing is asked for.

    Args:
        labels: What predictions are held against.
        said: What the baseline says.
    """
    of_labels = not isinstance(said, Decisions) or len(said.shape) == 1
    return tuple(
        metric
        for metric in _STANDARD[type(labels)]
        if tells(metric, labels)
        and lacking(metric, said) is None
        # Of one decision a sample they are the same as f1 and accuracy, and of many without labels too strict.
        and (of_labels or metric not in {"macro_f1", "exact_match"})
        and not (metric == "cosine" and isinstance(said, Embeddings) and said.pairs is not None)
        and undefined(metric, said, labels) is None
    )


def labels_of(bound: Bound, reading: Reading, classes: int | None) -> Predictions:
    """The target of every row, in the form of predictions.

    Args:
        bound: Rows with a target.
        reading: How the output is read that it is compared with.
        classes: Number of classes that the output has; None where that is not known.

    Raises:
        BindingMismatch: The target does not have the shape or type that it needs.
        LabelsOutOfRange: The labels are not the model's classes.
    """
    match reading:
        case "classes":
            labels = bound.labels()
            if row_shape(labels.shape):
                raise BindingMismatch(
                    f"The labels have the shape {list(labels.shape)}; one a sample is needed.", hint=NAME_A_DECODER
                )
            labels = labels.reshape(-1)
            check_labels(labels, classes, bound.output)
            return Classes(labels.astype(np.int64, copy=False))
        case "values":
            labels = bound.labels()
            if labels.dtype.kind not in "biuf":
                raise BindingMismatch(f"The target is of type {labels.dtype}; a regression needs numbers.")
            numbers = labels.reshape(len(labels), -1).astype(np.float64, copy=False)
            return Values(numbers, np.flatnonzero(~np.isfinite(numbers).all(1)))
        case CtcGreedy():
            return _sequences(bound, reading, classes)
        case Threshold():
            return _decisions(bound)
        case Embedding():
            return _embeddings(bound, pairs=reading.second is not None)


def _sequences(bound: Bound, decoder: CtcGreedy, classes: int | None) -> Sequences:
    labels = bound.labels()
    if labels.ndim != 2:  # noqa: PLR2004
        raise BindingMismatch(
            f"The target has the shape {list(labels.shape)} of {labels.dtype}; ctc_greedy compares with sequences "
            "[samples, length] of whole numbers.",
            hint=f"Write each sequence as the numbers of its classes, and fill the rows up with {decoder.blank} or -1.",
        )
    check_labels(labels, classes, bound.output, padded=True)
    return Sequences(without_padding(labels, decoder.blank, decoder.trim))


def _embeddings(bound: Bound, *, pairs: bool) -> Embeddings:
    labels = bound.labels()
    row = row_shape(labels.shape)
    if labels.dtype.kind not in "biuf" or len(row) != (0 if pairs else 1):
        raise BindingMismatch(
            f"The target has the shape {list(labels.shape)} of {labels.dtype}; embedding compares "
            + ("pairs with one score each." if pairs else "with one vector [samples, numbers] of each sample."),
            hint="Name the column in the binding's `target`, and the second of each pair in the decoder's `second`.",
        )
    rows = labels.reshape(len(labels), -1)
    broken = np.flatnonzero(~np.isfinite(rows).all(1))
    return (
        Embeddings(None, rows[:, 0].astype(np.float64), broken)
        if pairs
        else Embeddings(rows.astype(np.float32, copy=False), None, broken)
    )


def _decisions(bound: Bound) -> Decisions:
    parts = []
    for start in range(0, len(bound), _ROWS):
        labels = bound.labels(start, start + _ROWS)
        if labels.dtype.kind not in "biuf" or (labels.dtype.kind == "f" and np.isnan(labels).any()):
            raise LabelsOutOfRange(
                f"The target is of type {labels.dtype}{' and holds what is no number' * (labels.dtype.kind == 'f')}; "
                "threshold needs 0 or 1 for each decision.",
                hint="Encode no as 0 and yes as 1.",
            )
        parts.append(packed(np.greater(labels, 0)))
    return Decisions(np.concatenate(parts), row_shape(labels.shape))


def check_labels(labels: Array, classes: int | None, name: str | None = None, *, padded: bool = False) -> None:
    """Refuse labels that the model has no class for.

    Args:
        labels: [samples] or [samples, length].
        classes: Number of classes; None where that is not known.
        name: Name of the output, for messages.
        padded: Whether numbers below 0 are padding.

    Raises:
        LabelsOutOfRange: Names the first such label and how many rows have one.
    """
    if labels.dtype.kind not in "iub":
        raise LabelsOutOfRange(
            f"The labels are of type {labels.dtype}; whole numbers from 0 are needed.",
            hint="Encode the classes as 0, 1, 2, ..."
            + ("" if padded else ", or set the task to regression in the dataset's spec."),
        )
    if classes is None:
        return
    wrong = labels.astype(np.int64, copy=False) >= classes
    if not padded:
        wrong |= labels.astype(np.int64, copy=False) < 0
    if wrong.any():
        rows = int(wrong.reshape(len(labels), -1).any(1).sum())
        raise LabelsOutOfRange(
            f"The label {labels[wrong][0]} is outside the model's {classes} classes{f' (output {name!r})' if name else ''}; "
            f"{rows:,} of {len(labels):,} rows are so.",
            hint="Labels count from 0. Check that the dataset belongs to this model, and which output the binding names.",
        )
