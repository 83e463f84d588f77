"""What training makes small, and which loss goes with which target."""

from __future__ import annotations

from abc import ABC
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from accel.errors import BindingMismatch

if TYPE_CHECKING:
    import numpy as np

Task = Literal["classification", "multi_label", "regression"]
"""One class a sample, several yes/no labels a sample, or numbers."""


class _Loss(BaseModel, ABC):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    tasks: ClassVar[tuple[Task, ...]]
    """What it can be used for."""


class CrossEntropy(_Loss):
    """Cross entropy of the classes' probabilities; of a single score a sample, that of two classes."""

    loss: Literal["cross_entropy"] = "cross_entropy"
    tasks: ClassVar[tuple[Task, ...]] = ("classification",)

    label_smoothing: float = Field(
        0.0, ge=0, lt=1, description="Share of the target that is spread over all classes (Szegedy et al. 2016)."
    )
    class_weights: Literal["balanced"] | tuple[Annotated[float, Field(ge=0)], ...] | None = Field(
        None,
        description="What each class counts: `balanced` for as much in all as any other, or a number for each class.",
        examples=["balanced", [1.0, 3.0]],
    )


class BinaryCrossEntropy(_Loss):
    """Cross entropy of each yes/no label."""

    loss: Literal["binary_cross_entropy"] = "binary_cross_entropy"
    tasks: ClassVar[tuple[Task, ...]] = ("multi_label",)

    label_smoothing: float = Field(0.0, ge=0, lt=1, description="Share by which targets are moved to one half.")
    positive_weights: Literal["balanced"] | tuple[Annotated[float, Field(gt=0)], ...] | None = Field(
        None,
        description="What a yes counts against a no: `balanced` for as much in all, or a number for each label.",
        examples=["balanced", [1.0, 3.0]],
    )


class MeanSquaredError(_Loss):
    """Mean of the squared differences."""

    loss: Literal["mse"] = "mse"
    tasks: ClassVar[tuple[Task, ...]] = ("regression",)


class MeanAbsoluteError(_Loss):
    """Mean of the differences without their sign."""

    loss: Literal["l1"] = "l1"
    tasks: ClassVar[tuple[Task, ...]] = ("regression",)


class Huber(_Loss):
    """Squared where a difference is small, in proportion to it where it is large (Huber 1964)."""

    loss: Literal["huber"] = "huber"
    tasks: ClassVar[tuple[Task, ...]] = ("regression",)

    delta: float = Field(1.0, gt=0, description="Where small ends.")


Loss = Annotated[
    CrossEntropy | BinaryCrossEntropy | MeanSquaredError | MeanAbsoluteError | Huber,
    Field(discriminator="loss"),
]
AnyLoss = CrossEntropy | BinaryCrossEntropy | MeanSquaredError | MeanAbsoluteError | Huber
adapter: TypeAdapter[AnyLoss] = TypeAdapter(Loss)

_STANDARD: dict[Task, AnyLoss] = {
    "classification": CrossEntropy(),
    "multi_label": BinaryCrossEntropy(),
    "regression": MeanSquaredError(),
}


def loss_for(task: Task, asked: AnyLoss | None) -> AnyLoss:
    """The loss that is asked for, else the usual one of a task.

    Raises:
        BindingMismatch: It is none of this task; the message names both.
    """
    if asked is None:
        return _STANDARD[task]
    if task not in asked.tasks:
        fitting = ", ".join(_named(loss) for loss in _STANDARD.values() if task in loss.tasks)
        raise BindingMismatch(
            f"The loss {_named(asked)} is of {' and '.join(asked.tasks)}, and the task is {task}.",
            hint=f"Use {fitting}, leave `loss` out, or name another task.",
        )
    return asked


def check_target(loss: AnyLoss, column: str, dtype: np.dtype[np.generic]) -> None:
    """Refuse a target of a type that a loss does not go with.

    Raises:
        BindingMismatch: The message names the loss and the target's type.
    """
    name = _named(loss)
    if isinstance(loss, CrossEntropy) and dtype.kind not in "iub":
        raise BindingMismatch(
            f"The loss {name} needs whole numbers as classes, and the target {column!r} is of type {dtype}.",
            hint="Encode the classes as 0, 1, 2, ..., or use mse for a target of numbers.",
        )
    if isinstance(loss, BinaryCrossEntropy) and dtype.kind not in "biuf":
        raise BindingMismatch(
            f"The loss {name} needs 0 or 1 for each label, and the target {column!r} is of type {dtype}.",
            hint="Encode no as 0 and yes as 1.",
        )
    if dtype.kind not in "biuf":
        raise BindingMismatch(
            f"The loss {name} needs numbers, and the target {column!r} is of type {dtype}.",
            hint="Name a column of numbers in the binding's `target`.",
        )


def _named(loss: AnyLoss) -> str:
    return loss.loss
