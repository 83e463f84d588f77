"""What a training job is asked."""

from __future__ import annotations

from typing import Literal
from uuid import UUID

from pydantic import Field, ValidationInfo, field_validator

from accel.data.binding import Binding
from accel.evaluation.contract import Metric
from accel.report.training import Target
from accel.training.architectures import AnyArchitecture
from accel.training.augmentation import Augmentation
from accel.training.distillation import Distillation
from accel.training.losses import Loss, Task
from accel.training.optimizers import AdamW, Optimizer
from accel.training.schedules import Cosine, Schedule
from accel.training.settings import TrainingSettings
from store.specs.base import Count, Spec


class TrainSpec(TrainingSettings, Spec):
    """Train a model: an uploaded one further, or a new one of an architecture."""

    kind: Literal["train"] = "train"
    dataset_id: UUID
    split: str = Field("train", min_length=1, max_length=64, description="Split whose rows are trained on.")
    binding: Binding | None = None
    model_id: UUID | None = Field(None, description="What is trained further.")
    architecture: AnyArchitecture | None = Field(
        None,
        validate_default=True,
        description="What is trained from scratch; one of `model_id` and this is needed.",
    )
    name: str | None = Field(
        None, min_length=1, max_length=200, description="Name of the model that comes of it; made up if left out."
    )
    task: Task | None = Field(
        None, description="What the target is; by its type and the binding's decoder, if left out."
    )
    optimizer: Optimizer = AdamW()
    schedule: Schedule = Cosine()
    loss: Loss | None = Field(None, description="By the task, if left out.")
    augmentation: tuple[Augmentation, ...] = Field((), max_length=16, description="Changes of the rows, drawn anew.")
    teacher_id: UUID | None = Field(None, description="A model to learn from; `distillation` says how.")
    distillation: Distillation | None = Field(
        None, description="How to learn from `teacher_id`; from its soft targets, if left out."
    )
    metric: Metric | None = Field(None, description="What the best weights are chosen by; by the task, if left out.")
    target: Target | None = Field(None, description="Measure the time until the metric is so good.")
    frozen: tuple[str, ...] = Field(
        (),
        max_length=1000,
        description="Weights that stay as they are: names, or patterns where * and ? stand for parts of one.",
    )
    on_cancel: Literal["discard", "keep_best"] = Field(
        "discard", description="Whether the best weights until then become a model when the job is cancelled."
    )
    deadline_seconds: Count = Field(
        86_400, ge=5, le=604_800, description="Longest time of an attempt from its start to its end."
    )

    @property
    def queue(self) -> str:
        """The queue whose workers can do it."""
        return self.device

    @property
    def keeps_on_cancel(self) -> bool:
        """Whether the best weights are wanted when the job is cancelled."""
        return self.on_cancel == "keep_best"

    @property
    def settings(self) -> TrainingSettings:
        """How the model is trained, apart from what is trained on what."""
        return TrainingSettings(**{name: getattr(self, name) for name in TrainingSettings.model_fields})

    # Each is checked at the field that has to change, which the answer then points to; fields before it are known.

    @field_validator("architecture")
    @classmethod
    def _has_one_beginning(cls, architecture: AnyArchitecture | None, info: ValidationInfo) -> AnyArchitecture | None:
        if "model_id" in info.data and (info.data["model_id"] is None) == (architecture is None):
            raise ValueError("give either model_id, to train a model further, or an architecture, to train a new one")
        return architecture

    @field_validator("distillation")
    @classmethod
    def _has_its_teacher(cls, distillation: Distillation | None, info: ValidationInfo) -> Distillation | None:
        if distillation is not None and info.data.get("teacher_id", distillation) is None:
            raise ValueError("distillation needs teacher_id, the model to learn from")
        return distillation
