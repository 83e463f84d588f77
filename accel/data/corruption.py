"""Corrupt samples as the world does, to see what a model makes of it."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

CorruptionName = Literal["gaussian_noise", "blur", "brightness", "occlusion", "audio_noise", "missing"]


class Corruption(BaseModel):
    """A kind of damage, and how much of it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    corruption: CorruptionName = Field(
        description="`gaussian_noise`, `blur`, `brightness` and `occlusion` are of images, `audio_noise` of audio, `missing` of tables."
    )
    severity: int = Field(3, ge=1, le=5, description="From 1, hardly seen, to 5, severe.")
