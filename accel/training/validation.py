"""What a training is judged by: the labels of its validation part, or what a teacher says where there are none."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from accel.data.bind import Bound
from accel.data.binding import Threshold
from accel.errors import BadDataset, BindingMismatch
from accel.evaluation import metrics
from accel.evaluation.collecting import collector
from accel.evaluation.contract import Contract, Metric
from accel.evaluation.predictions import NAME_A_DECODER, Classes, Predictions, Reading, Values
from accel.evaluation.truth import Truth, check_metrics, truth_of
from accel.evaluation.undefined import undefined
from accel.training.batches import Array, Part
from accel.training.judging import Judge
from accel.training.objective import Objective
from accel.training.start import Start
from accel.training.teacher import Teacher, answers_for


@dataclass(frozen=True, slots=True)
class Lesson:
    """What a teacher says of the validation part."""

    said: Predictions
    labels: Array
    """As targets of a loss [rows, ...]."""


def judge_of(
    start: Start,
    metric: Metric | None,
    objective: Objective,
    lesson: Lesson | None,
    *,
    batch_size: int,
    workspace: Path,
    part: Part,
) -> Judge | None:
    """Who judges; None where nothing is held out.

    Args:
        start: The training.
        metric: What is asked for; by the task if None.
        objective: The loss, which is judged by too, without smoothing and weights.
        lesson: What the teacher says, where there are no labels.
        batch_size: Rows of a batch.
        workspace: Folder for predictions while they are collected.
        part: Which process this is.

    Raises:
        BindingMismatch: The metric or the labels do not go with the output.
        LabelsOutOfRange: A label is none of the model's classes.
    """
    bound = start.parts.validation
    if bound is None:
        return None
    truth = _by_labels(start, bound, metric) if bound.target is not None else _by_lesson(start, bound, metric, lesson)
    labels = None if bound.target is not None or lesson is None else lesson.labels
    return Judge(bound, truth, labels, objective.plain(), batch_size, workspace, part)


def _by_labels(start: Start, bound: Bound, metric: Metric | None) -> Truth:
    contracts = [] if metric is None else [Contract(metric=metric)]
    truth = truth_of(start.dataset, bound, contracts, start.outputs)
    if truth is None or truth.labels is None:
        raise BindingMismatch(
            f"The output {bound.output!r} cannot be held against the labels: one class, or one number, a sample is needed.",
            hint=NAME_A_DECODER,
        )
    if len(truth.labels.not_finite):
        raise BadDataset(
            f"The target is not finite for {len(truth.labels.not_finite):,} of {len(truth.labels):,} samples.",
            hint="Leave out rows whose target is no number.",
        )
    return truth


def _by_lesson(start: Start, bound: Bound, metric: Metric | None, lesson: Lesson | None) -> Truth:
    if lesson is None:
        raise BadDataset(
            f"The split {start.parts.validated_on!r} has no target to judge by.",
            hint="Name another split in `validation`, or a share of the rows that are trained on.",
        )
    reading = reading_of(start, bound)
    chosen: Metric = metric or ("rmse" if isinstance(lesson.said, Values) else "agreement")
    check_metrics([chosen], reading, lesson.said)
    return Truth(lesson.said, (chosen,), reading, bound.groups())


def reading_of(start: Start, bound: Bound) -> Reading:
    """How the output is read."""
    return bound.decoder or ("values" if start.task == "regression" else "classes")


def lesson_of(start: Start, teacher: Teacher, batch_size: int) -> Lesson | None:
    """What a teacher says of the validation part; None where there is none."""
    bound = start.parts.validation
    if bound is None:
        return None
    found = collector(reading_of(start, bound), teacher.output, scores=False)
    targets: list[Array] = []
    for answer in answers_for(teacher, bound, batch_size):
        found.add(answer)
        if start.task == "regression":
            targets.append(answer.reshape(len(answer), -1).astype(np.float32))
        elif isinstance(bound.decoder, Threshold):
            targets.append(np.greater_equal(answer.reshape(len(answer), -1), bound.decoder.at))
    said = found.predictions()
    return Lesson(said, said.best if isinstance(said, Classes) else np.concatenate(targets))


def metric_of(truth: Truth, said: Predictions) -> float | None:
    """A metric of what was said; None where it is no number, or nothing is known to be true."""
    if truth.labels is None or undefined(truth.metrics[0], said, truth.labels):
        return None
    return metrics.value(truth.metrics[0], said, truth.labels)
