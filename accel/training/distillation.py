"""Learning from a teacher: what may be asked for."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class FeaturePair(BaseModel):
    """An inner value of the student that is pulled towards one of the teacher.

    Where they differ in one axis, the student's goes through a linear layer that is trained along and left behind in the end
    (Romero et al., FitNets, ICLR 2015).
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    teacher: str = Field(min_length=1, description="Name of the value in the teacher's graph.")
    student: str = Field(min_length=1, description="Name of the value in the student's graph.")
    weight: float = Field(
        1.0,
        gt=0,
        description="What it counts against the rest of the loss, per share of the teacher's mean square that is missed.",
    )


class Distillation(BaseModel):
    """A student learns what a teacher says about each input, not only the label (Hinton et al. 2015, arXiv 1503.02531).

    The teacher sees the inputs as they are changed by the augmentation. Without labels the teacher's answers are all there is.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    temperature: float = Field(
        4.0,
        ge=1,
        le=100,
        description="What scores are divided by before they become probabilities, so that small ones count too; not for regression.",
    )
    share: float = Field(
        0.7,
        ge=0,
        le=1,
        description="Share of the teacher's answers in the loss; the rest is of the labels. 1 where there are none.",
    )
    features: tuple[FeaturePair, ...] = Field((), max_length=64, description="Inner values that are matched as well.")
