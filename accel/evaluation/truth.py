"""What predictions are compared with."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from accel.data.bind import Bound
from accel.data.binding import CtcGreedy, Threshold
from accel.data.dataset import Dataset
from accel.errors import BadDataset, BindingMismatch, LabelsOutOfRange
from accel.evaluation.contract import Contract, Metric
from accel.evaluation.decoding import packed, row_shape, without_padding
from accel.evaluation.metrics import check_metric, check_values
from accel.evaluation.predictions import (
    NAME_A_DECODER,
    Classes,
    Decisions,
    Predictions,
    Reading,
    Sequences,
    Values,
    kind_of,
)
from accel.runtimes.onnxruntime import Port

Array = npt.NDArray[np.generic]

_ROWS = 256
"""Rows of a target of many decisions that are in memory at a time."""


@dataclass(frozen=True, slots=True)
class Truth:
    """The dataset's labels, or nothing but the baseline's own predictions."""

    labels: Predictions | None
    metrics: tuple[Metric, ...]
    reading: Reading

    def select(self, index: npt.NDArray[np.int64]) -> Truth:
        """What is true of some rows, by their numbers."""
        labels = None if self.labels is None else self.labels.select(index)
        return replace(
            self, labels=labels, metrics=("accuracy",) if "f1" in self.metrics and _all_no(labels) else self.metrics
        )

    def against(self, metric: Metric, baseline: Predictions) -> Predictions:
        """What predictions are held against: the labels, or for the agreement what the baseline said."""
        return baseline if self.labels is None or metric == "agreement" else self.labels

    def check(self, said: Predictions) -> None:
        """Refuse labels that are not of the shape of what the model says.

        Raises:
            BindingMismatch: Names both shapes.
        """
        if isinstance(said, Decisions) and isinstance(self.labels, Decisions) and said.shape != self.labels.shape:
            raise BindingMismatch(
                f"The target has rows of {list(self.labels.shape)}, the output rows of {list(said.shape)}; threshold needs "
                "one label for each number.",
                hint="Axes of size 1 at the end do not count. Check the target, and which output the binding names.",
            )
        if isinstance(said, Values) and isinstance(self.labels, Values):
            check_values(said, self.labels)


def truth_of(dataset: Dataset, bound: Bound, contracts: Sequence[Contract], outputs: Sequence[Port]) -> Truth | None:
    """What models are held against on some rows; None where no metric applies and no contract asks for one.

    Raises:
        BindingMismatch: A contract needs labels and there are none, or its metric or the labels do not go with the output.
        LabelsOutOfRange: The labels are not the model's classes.
    """
    if bound.target is None:
        for contract in contracts:
            if contract.metric != "agreement":
                raise BindingMismatch(
                    f"A contract on {contract.metric} needs labels, and the dataset has no target.",
                    hint='Name it: {"binding": {"target": "<column>"}}, or use the metric agreement.',
                )
        if not contracts and bound.decoder is None:
            return None
        return Truth(None, ("agreement",), bound.decoder or "classes")
    reading: Reading = bound.decoder or ("values" if dataset.summary.task == "regression" else "classes")
    shape = next(port.shape for port in outputs if port.name == bound.output)
    if reading == "classes" and (row_shape((len(bound), *bound.target.shape)) or len(row_shape(shape)) > 1):
        if not contracts:
            return None
        raise BindingMismatch(
            f"{contracts[0].metric} cannot be computed: the labels {['*', *bound.target.shape]} or the output "
            f"{bound.output!r} {['*', *shape[1:]]} have parts of samples, not one class each.",
            hint=NAME_A_DECODER,
        )
    labels = labels_of(bound, reading, _classes_in(reading, shape))
    check_metrics([contract.metric for contract in contracts], reading, labels)
    metric = contracts[0].metric if contracts else _first(labels)
    return Truth(labels, (metric,), reading)


def check_metrics(wanted: Iterable[Metric], reading: Reading, labels: Predictions | None) -> None:
    """Refuse metrics that do not go with how the output is read, or of which the labels tell nothing.

    Raises:
        BindingMismatch: Names the metrics that do.
        BadDataset: F1 is asked for, and nothing is yes.
    """
    for metric in wanted:
        check_metric(metric, kind_of(reading))
        if metric == "f1" and _all_no(labels):
            raise BadDataset(
                f"f1 tells nothing on these {len(labels or ()):,} rows: the target is no everywhere.",
                hint="Use accuracy, or rows where something is yes.",
            )


def _all_no(labels: Predictions | None) -> bool:
    return isinstance(labels, Decisions) and not labels.bits.any()


def _classes_in(reading: Reading, shape: tuple[int | str | None, ...]) -> int | None:
    """Number of classes that an output of a shape has; None where the model does not say."""
    if reading == "classes" and len(shape) > 1 and isinstance(shape[1], int):
        return max(2, shape[1])  # one score tells two classes apart
    if isinstance(reading, CtcGreedy) and len(shape) == 3 and isinstance(shape[2], int):  # noqa: PLR2004
        return shape[2]
    return None


def _first(labels: Predictions) -> Metric:
    """The metric that is compared where none is asked for."""
    return "rmse" if isinstance(labels, Values) else standard_metrics(labels, top=False)[0]


def standard_metrics(labels: Predictions, *, top: bool) -> tuple[Metric, ...]:
    """What is measured where nothing is asked for.

    Args:
        labels: What predictions are held against.
        top: Whether the model has more than five classes.
    """
    match labels:
        case Classes():
            return ("accuracy", "top5_accuracy", "macro_f1") if top else ("accuracy", "macro_f1")
        case Sequences():
            return ("accuracy",)
        case Decisions():  # F1 is of what is yes
            return ("accuracy",) if _all_no(labels) else ("f1", "accuracy")
        case Values():  # R2 compares with the target's spread
            return ("mae", "rmse") if (labels.numbers == labels.numbers[:1]).all() else ("mae", "rmse", "r2")


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
            return Classes(labels.astype(np.int64))
        case "values":
            labels = bound.labels()
            if labels.dtype.kind not in "biuf":
                raise BindingMismatch(f"The target is of type {labels.dtype}; a regression needs numbers.")
            return Values(labels.reshape(len(labels), -1).astype(np.float64))
        case CtcGreedy():
            return _sequences(bound, reading, classes)
        case Threshold():
            return _decisions(bound)


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


def check_labels(labels: Array, classes: int | None, name: str, *, padded: bool = False) -> None:
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
    wrong = labels.astype(np.int64) >= classes
    if not padded:
        wrong |= labels.astype(np.int64) < 0
    if wrong.any():
        rows = int(wrong.reshape(len(labels), -1).any(1).sum())
        raise LabelsOutOfRange(
            f"The label {labels[wrong][0]} is outside the model's {classes} classes (output {name!r}); "
            f"{rows:,} of {len(labels):,} rows are so.",
            hint="Labels count from 0. Check that the dataset belongs to this model, and which output the binding names.",
        )
