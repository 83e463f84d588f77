"""What came of trainings, and how they went."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from accel.data.binding import Binding
from accel.evaluation.contract import Metric
from accel.report.environment import Environment
from accel.report.values import Estimate, Value

StopReason = Literal["epochs", "budget", "early_stopping", "target", "cancelled", "diverged"]
"""``epochs``: all of them were done. ``budget``: the time was up. ``early_stopping``: nothing got better any more.
``target``: the metric that was aimed at was reached. ``cancelled``: somebody asked for it. ``diverged``: the loss was no longer
finite, and the best weights of before were asked for."""


class EpochPoint(Value):
    """How a training stood at the end of an epoch; the first one is before any step."""

    epochs: float = Field(description="Passes over the rows so far; no whole number where the time was up in between.")
    seconds: float = Field(description="Time since the start, over all attempts, with judging.")
    train_loss: float | None = Field(description="Mean loss of the epoch's rows; None before the first step.")
    validation_loss: float | None = Field(
        None, description="Mean loss of the rows that are judged by, without smoothing and weights."
    )
    metric: float | None = Field(None, description="The metric on them; None where it is no number.")
    learning_rate: float = Field(description="At the end of the epoch.")
    samples_per_second: float | None = Field(None, description="Rows that were trained on, over the time of the steps.")
    best: bool = Field(False, description="Whether it was the best until then.")


class Target(Value):
    """A value of a metric that is aimed at."""

    metric: Metric = "accuracy"
    value: float
    stop: bool = Field(False, description="End when it is reached.")


class TimeToTarget(Value):
    """How long it took to be as good as wanted."""

    target: Target
    reached: bool
    epochs: float | None = Field(None, description="Passes over the rows; None where it was not reached.")
    seconds: float | None = None


class Distilled(Value):
    """What a teacher was for a student."""

    teacher: str = Field(description="Its name.")
    runtime: Literal["onnxruntime", "torch"] = Field(description="What the teacher ran in, the faster of the two.")
    onnxruntime_ms: float | None = Field(description="Time of a batch in ONNX Runtime; None where it cannot run there.")
    torch_ms: float | None = Field(description="Time of a batch in PyTorch; None where it cannot run there.")
    labels: bool = Field(description="Whether the dataset's labels were learned from as well.")
    teacher_metric: float | None = Field(description="The teacher's own metric on the rows that are judged by.")
    features: tuple[str, ...] = Field((), description="Pairs of inner values that were matched.")


class TrainReport(Value):
    """What came of a training."""

    kind: Literal["train"] = "train"
    model_id: str
    parent_id: str | None = Field(None, description="The model that it began with; None where it began with chance.")
    task: Literal["classification", "multi_label", "regression"]
    binding: Binding = Field(
        description="How the dataset's columns become inputs; an evaluation on this dataset needs the same."
    )
    trained_on: str = Field(description="Split whose rows were trained on.")
    validated_on: str | None = Field(description="Split of the rows that the best weights were chosen by.")
    train_rows: int
    validation_rows: int
    parameters_trained: int
    curve: tuple[EpochPoint, ...]
    best_epochs: float | None = Field(description="Where the weights of the result come from; None for the last ones.")
    stopped_because: StopReason
    epochs: float = Field(description="Passes over the rows that were made.")
    steps: int
    seconds: float
    samples_per_second: float | None
    metric: Metric | None
    value: Estimate | None = Field(
        description="The metric of the result in ONNX Runtime on the rows that are judged by. The weights were chosen by these rows, so "
        "that another split tells better."
    )
    started_from: float | None = Field(None, description="The metric before any step.")
    target: TimeToTarget | None = None
    distilled: Distilled | None = None
    max_abs_difference: float | None = Field(
        None, description="Between the result in PyTorch and in ONNX Runtime on the rows that were compared."
    )
    size_bytes: int
    peak_memory_bytes: int
    processes: int
    attempts: int = Field(description="How often it was begun or gone on with.")
    settings: dict[str, object] = Field(description="The request: settings, optimizer, schedule, loss and the rest.")
    environment: Environment
    notes: tuple[str, ...] = ()


class ComparedRun(Value):
    """One of several trainings."""

    model_id: str
    label: str = Field(description="What tells it from the others.")
    parameters_trained: int
    best: float | None = Field(description="The best value of the metric.")
    best_epochs: float | None
    epochs: float
    seconds: float
    samples_per_second: float | None
    target: TimeToTarget | None
    speedup: float | None = Field(
        None,
        description="How many times as fast as the first run it reached the target; None where one of them did not.",
    )
    curve: tuple[EpochPoint, ...]


class CompareRunsReport(Value):
    """Several trainings beside each other."""

    kind: Literal["compare_runs"] = "compare_runs"
    metric: Metric
    target: Target | None
    runs: tuple[ComparedRun, ...]
    fastest: str | None = Field(description="The one that reached the target first; None where none did.")
    notes: tuple[str, ...] = ()
