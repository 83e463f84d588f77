"""The loss of a batch, sample by sample, so that it adds up to the same however a batch is shared out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from accel.data.bind import Bound
from accel.errors import BadDataset, BindingMismatch, LabelsOutOfRange
from accel.graph.torch_graph.node import Value
from accel.training.batches import Array, Batch
from accel.training.heads import Head
from accel.training.losses import (
    AnyLoss,
    BinaryCrossEntropy,
    CrossEntropy,
    Huber,
    MeanAbsoluteError,
    MeanSquaredError,
)

_ROWS = 65_536
"""Rows of a target that are in memory at a time."""
_NAMED = 5


@dataclass(frozen=True, slots=True)
class Objective:
    """The loss against targets, read at one place of the graph."""

    loss: AnyLoss
    head: Head
    weights: Tensor | None = None
    """What each class counts [classes], or a yes of each label [labels]."""

    def plain(self) -> Objective:
        """The same without smoothing and weights, to judge by."""
        loss = self.loss
        if isinstance(loss, CrossEntropy):
            loss = CrossEntropy()
        elif isinstance(loss, BinaryCrossEntropy):
            loss = BinaryCrossEntropy()
        return replace(self, loss=loss, weights=None)

    def total(self, values: dict[str, Value], batch: Batch, device: torch.device) -> Tensor:
        """The sum of the samples' losses.

        Args:
            values: What the model gave for the batch.
            batch: The batch.
            device: Where the values are.
        """
        if batch.targets is None:
            raise ValueError("a loss needs targets")
        found = self.each(values, as_tensor(batch.targets, device)).sum()
        if batch.blend is None or batch.blend.targets is None:
            return found
        other = self.each(values, as_tensor(batch.blend.targets, device)).sum()
        return found * batch.blend.share + other * (1 - batch.blend.share)

    def each(self, values: dict[str, Value], targets: Tensor) -> Tensor:
        """The loss of each sample [rows].

        Raises:
            BindingMismatch: The targets do not have the shape of what the model gives; names both.
        """
        rows, loss = len(targets), self.loss
        match loss:
            case CrossEntropy():
                return _classes(self.head.scores(values, rows), targets.reshape(rows), loss, self.weights)
            case BinaryCrossEntropy():
                decisions, wanted = self.head.decisions(values, rows), targets.reshape(rows, -1)
                self._check(decisions, wanted)
                return _labels(decisions, (wanted > 0).float(), loss, self.weights).mean(1)
            case _:
                found, wanted = self.head.scores(values, rows), targets.reshape(rows, -1).float()
                self._check(found, wanted)
                return _differences(found, wanted, loss).mean(1)

    def _check(self, found: Tensor, wanted: Tensor) -> None:
        if found.shape != wanted.shape:
            raise BindingMismatch(
                f"The target has {wanted.shape[1]:,} values a sample, and {self.head.name!r} has {found.shape[1]:,}.",
                hint="Both need as many. Check the target, and which output the binding names.",
            )


def _classes(scores: Tensor, labels: Tensor, loss: CrossEntropy, weights: Tensor | None) -> Tensor:
    if scores.shape[1] > 1:
        return functional.cross_entropy(
            scores, labels.long(), weight=weights, reduction="none", label_smoothing=loss.label_smoothing
        )
    yes = labels.float()
    smooth = yes * (1 - loss.label_smoothing) + loss.label_smoothing / 2
    found = functional.binary_cross_entropy_with_logits(scores[:, 0], smooth, reduction="none")
    return found if weights is None else found * weights[labels.long()]


def _labels(scores: Tensor, yes: Tensor, loss: BinaryCrossEntropy, weights: Tensor | None) -> Tensor:
    smooth = yes * (1 - loss.label_smoothing) + loss.label_smoothing / 2
    return functional.binary_cross_entropy_with_logits(scores, smooth, reduction="none", pos_weight=weights)


def _differences(found: Tensor, wanted: Tensor, loss: AnyLoss) -> Tensor:
    match loss:
        case MeanSquaredError():
            return functional.mse_loss(found, wanted, reduction="none")
        case MeanAbsoluteError():
            return functional.l1_loss(found, wanted, reduction="none")
        case Huber(delta=delta):
            return functional.huber_loss(found, wanted, reduction="none", delta=delta)
        case _:
            raise TypeError(f"{loss.loss} is no loss of differences")


def as_tensor(array: Array, device: torch.device) -> Tensor:
    """An array as a tensor; its memory is shared where it may be written."""
    return torch.from_numpy(array if array.flags.writeable else array.copy()).to(device)


def as_tensors(arrays: Mapping[str, Array], device: torch.device) -> dict[str, Tensor]:
    """Arrays by name as tensors."""
    return {name: as_tensor(array, device) for name, array in arrays.items()}


def check_finite(bound: Bound, column: str) -> None:
    """Refuse a target that is no finite number somewhere.

    Raises:
        BadDataset: It is not; names the column and the first such row.
    """
    if bound.target is None or bound.target.dtype.kind != "f":
        return
    for start in range(0, len(bound), _ROWS):
        part = bound.labels(start, start + _ROWS)
        broken = np.flatnonzero(~np.isfinite(part.reshape(len(part), -1)).all(1))
        if len(broken):
            raise BadDataset(
                f"The target {column!r} is not finite in row {start + int(broken[0]):,} of those that are trained on.",
                hint="Leave out rows whose target is no number.",
            )


def weights_of(loss: AnyLoss, bound: Bound, width: int) -> tuple[Tensor | None, tuple[str, ...]]:
    """What each class or label counts, and remarks for the report.

    Args:
        loss: The loss.
        bound: The rows that are trained on.
        width: Numbers that the model gives for a sample.

    Raises:
        BindingMismatch: There are not as many weights as classes or labels.
        LabelsOutOfRange: A class that must be weighed by its rows has none, or a label is none of the classes.
    """
    match loss:
        case CrossEntropy(class_weights=given):
            return _class_weights(given, _counts(bound, max(2, width)))
        case BinaryCrossEntropy(positive_weights=given) if given is not None:
            return _positive_weights(given, bound, width), ()
        case _:
            return None, ()


def _class_weights(given: object, counts: np.ndarray) -> tuple[Tensor | None, tuple[str, ...]]:
    absent = np.flatnonzero(counts == 0)
    names = ", ".join(map(str, absent[:_NAMED].tolist())) + (", ..." if len(absent) > _NAMED else "")
    if given is None:
        lacking = f"{len(absent):,} of {len(counts):,} classes have no row to train on, and cannot be learned: {names}."
        return None, (lacking,) if len(absent) else ()
    if given == "balanced":
        if len(absent):
            raise LabelsOutOfRange(
                f"Balanced class weights need rows of every class, and {len(absent):,} of {len(counts):,} classes have none: {names}.",
                hint="Give a number for each class, leave class_weights out, or use a dataset with rows of every class.",
            )
        return torch.tensor(counts.sum() / (len(counts) * counts), dtype=torch.float32), ()
    numbers = np.asarray(given, np.float64)
    if len(numbers) != len(counts):
        raise BindingMismatch(
            f"class_weights has {len(numbers):,} numbers, and the model has {len(counts):,} classes.",
            hint="Give one for each class.",
        )
    return torch.tensor(numbers, dtype=torch.float32), ()


def _positive_weights(given: object, bound: Bound, width: int) -> Tensor:
    if given == "balanced":
        yes, rows = np.zeros(width), len(bound)
        for start in range(0, rows, _ROWS):
            yes += np.greater(bound.labels(start, start + _ROWS).reshape(-1, width), 0).sum(0)
        if (yes == 0).any():
            raise LabelsOutOfRange(
                f"Balanced positive weights need a yes of every label, and label {int((yes == 0).argmax())} has none.",
                hint="Give a number for each label, or leave positive_weights out.",
            )
        return torch.tensor((rows - yes) / yes, dtype=torch.float32).clamp_min(1e-3)
    numbers = np.asarray(given, np.float64)
    if len(numbers) != width:
        raise BindingMismatch(
            f"positive_weights has {len(numbers):,} numbers, and the model has {width:,} labels.",
            hint="Give one for each label.",
        )
    return torch.tensor(numbers, dtype=torch.float32)


def _counts(bound: Bound, classes: int) -> np.ndarray:
    """Rows of each class [classes].

    Raises:
        LabelsOutOfRange: A label is none of them.
    """
    found = np.zeros(classes, np.int64)
    for start in range(0, len(bound), _ROWS):
        labels = bound.labels(start, start + _ROWS).reshape(-1).astype(np.int64)
        wrong = (labels < 0) | (labels >= classes)
        if wrong.any():
            raise LabelsOutOfRange(
                f"The label {labels[wrong][0]} is outside the model's {classes} classes.",
                hint="Labels count from 0. Check that the dataset belongs to this model, and which output the binding names.",
            )
        found += np.bincount(labels, minlength=classes)
    return found
