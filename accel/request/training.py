"""Train a model."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from accel.data.binding import Binding
from accel.evaluation.contract import Metric
from accel.report.training import Target
from accel.request.values import DatasetFile, FileName, ModelFile, Request, Value
from accel.training.architectures import AnyArchitecture
from accel.training.augmentation import Augmentation
from accel.training.distillation import Distillation
from accel.training.losses import Loss, Task
from accel.training.optimizers import AdamW, Optimizer
from accel.training.schedules import Cosine, Schedule
from accel.training.settings import TrainingSettings


class Rendezvous(Value):
    """Where the hosts of a training meet. Each runs the same request; all end with the same model."""

    endpoint: str = Field(
        pattern=r"^[A-Za-z0-9_.:\[\]-]+:[0-9]{1,5}$",
        description="Name and port of one of the hosts, which the others can reach.",
        examples=["10.0.0.5:29400"],
    )
    hosts: int = Field(ge=1, le=1024, description="How many there are.")
    name: str = Field(
        "accel", pattern=r"^[A-Za-z0-9_-]{1,64}$", description="Tells this training from others at the endpoint."
    )
    address: str | None = Field(None, description="What the other hosts call this one; found out if left out.")


class TrainRequest(Request):
    """Train a model: an uploaded one further, or a new one of an architecture. Its seed is that of its settings."""

    kind: Literal["train"] = "train"
    model: ModelFile | None = Field(None, description="What is trained further.")
    architecture: AnyArchitecture | None = Field(None, description="What is trained from scratch.")
    dataset: DatasetFile
    split: str = Field("train", description="Split whose rows are trained on.")
    binding: Binding | None = None
    task: Task | None = Field(
        None, description="What the target is; by its type and the binding's decoder, if left out."
    )
    settings: TrainingSettings = TrainingSettings()
    optimizer: Optimizer = AdamW()
    schedule: Schedule = Cosine()
    loss: Loss | None = Field(None, description="By the task, if left out.")
    augmentation: tuple[Augmentation, ...] = Field((), max_length=16)
    distillation: Distillation | None = None
    teacher: ModelFile | None = Field(None, description="What a student learns from; distillation only.")
    metric: Metric | None = Field(None, description="What the best weights are chosen by; by the task, if left out.")
    target: Target | None = Field(None, description="Measure the time until the metric is so good.")
    frozen: tuple[str, ...] = Field(
        (),
        max_length=1000,
        description="Weights that stay as they are: names, or patterns where * and ? stand for parts of one.",
    )
    result_id: FileName = Field("trained", description="Name of the model that comes of it.")
    checkpoint: Path | None = Field(None, description="State of an earlier attempt to go on from.")
    checkpoint_seconds: float = Field(
        60.0, ge=0, description="Longest time between two states that are kept, while steps go on."
    )
    finish: bool = Field(
        False,
        description="Train no further: the best weights of the checkpoint become the model, such as after a cancel.",
    )
    rendezvous: Rendezvous | None = None

    @model_validator(mode="after")
    def _has_one_beginning(self) -> TrainRequest:
        if (self.model is None) == (self.architecture is None):
            raise ValueError("give either a model, to train it further, or an architecture, to train a new one")
        return self

    @model_validator(mode="after")
    def _has_its_teacher(self) -> TrainRequest:
        if (self.teacher is None) != (self.distillation is None):
            raise ValueError("distillation and teacher belong together: give both or neither")
        return self

    @model_validator(mode="after")
    def _aims_at_its_metric(self) -> TrainRequest:
        if self.target is not None and self.metric is not None and self.target.metric != self.metric:
            raise ValueError("the target's metric and `metric` must be the same, if both are given")
        if self.target is not None and self.settings.validation == 0:
            raise ValueError("a target needs a validation part")
        return self

    @model_validator(mode="after")
    def _finishes_something(self) -> TrainRequest:
        if self.finish and self.checkpoint is None:
            raise ValueError("finish needs a checkpoint")
        return self

    @property
    def together(self) -> bool:
        """Whether several processes share out the work."""
        return self.settings.processes > 1 or self.rendezvous is not None
