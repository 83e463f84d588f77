"""Changes of the inputs that leave their meaning, drawn anew for every row in every epoch."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter


class _Augmentation(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Flip(_Augmentation):
    """Mirror images."""

    augmentation: Literal["flip"] = "flip"
    direction: Literal["horizontal", "vertical"] = "horizontal"
    probability: float = Field(0.5, gt=0, le=1, description="Share of the rows.")


class Crop(_Augmentation):
    """Move images by some pixels: they are padded at every side, and cut to their size at a place drawn at random."""

    augmentation: Literal["crop"] = "crop"
    padding: int = Field(4, ge=1, le=512, description="Pixels at every side.")
    fill: Literal["edge", "reflect", "zero"] = Field("edge", description="What is beyond the edge.")


class Cutout(_Augmentation):
    """Cover a square of each image with its mean (DeVries and Taylor 2017)."""

    augmentation: Literal["cutout"] = "cutout"
    side: float = Field(0.25, gt=0, lt=1, description="Side of the square, as a share of the image's smaller side.")
    probability: float = Field(1.0, gt=0, le=1, description="Share of the rows.")


class Mixup(_Augmentation):
    """Blend each row with another of its batch, and their targets alike (Zhang et al. 2018)."""

    augmentation: Literal["mixup"] = "mixup"
    alpha: float = Field(0.2, gt=0, description="Both parameters of the Beta distribution that shares are drawn from.")


class Noise(_Augmentation):
    """Add normal noise to each row: audio, or any other numbers."""

    augmentation: Literal["noise"] = "noise"
    snr_db: tuple[float, float] = Field(
        (15.0, 40.0), description="Power of a row over that of its noise, in decibels, drawn between these two."
    )
    probability: float = Field(1.0, gt=0, le=1, description="Share of the rows.")


class Shift(_Augmentation):
    """Move audio, or another sequence, along its last axis; what comes free is filled with zeros."""

    augmentation: Literal["shift"] = "shift"
    share: float = Field(0.1, gt=0, lt=1, description="Largest way, as a share of the length.")


Augmentation = Annotated[
    Flip | Crop | Cutout | Mixup | Noise | Shift,
    Field(discriminator="augmentation"),
]
AnyAugmentation = Flip | Crop | Cutout | Mixup | Noise | Shift
adapter: TypeAdapter[AnyAugmentation] = TypeAdapter(Augmentation)
