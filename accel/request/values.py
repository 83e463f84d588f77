"""What requests have in common: files, names, limits."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from accel.data.spec import DatasetSpec
from accel.sandbox import Limits


class Value(BaseModel):
    """What requests are made of."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


FileName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-][A-Za-z0-9._-]{0,127}$")]
"""A name that a file in the workspace can have."""


class ModelFile(Value):
    """An ONNX file and the name that reports use for it."""

    model_id: str
    path: Path
    predictions: Path | None = Field(None, description="What it said of the same split in an earlier evaluation.")
    tuned_on: tuple[str, ...] = Field((), description="Splits of the dataset that choices about it were made by.")


class DatasetFile(Value):
    """A dataset's file, and how it is to be understood."""

    path: Path
    spec: DatasetSpec = DatasetSpec()


class Request(Value):
    """What every request has."""

    workspace: Path = Field(Path(), description="Empty folder that the engine may write to; its working directory.")
    limits: Limits = Limits()
    seed: int = Field(0, ge=0, description="Seed of everything that draws at random.")


def check_baseline(baseline_id: str, models: tuple[ModelFile, ...]) -> None:
    """Refuse a baseline that is none of some models.

    Raises:
        ValueError: It is not.
    """
    if baseline_id not in {model.model_id for model in models}:
        raise ValueError("baseline_id must be the name of one of the models")
