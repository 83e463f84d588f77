"""What the specs of all kinds have in common."""

from __future__ import annotations

from typing import Annotated, TypeVar
from uuid import UUID

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from store.text import all_storable

T = TypeVar("T")

Count = Annotated[int, Field(strict=True)]


def _each_once(values: tuple[T, ...]) -> tuple[T, ...]:
    """Refuse what is named twice.

    Raises:
        ValueError: Names the first such.
    """
    for place, value in enumerate(values):
        if value in values[:place]:
            shown = " ".join(map(str, value.model_dump().values())) if isinstance(value, BaseModel) else value
            raise ValueError(f"{shown} is named twice")
    return values


EachOnce = AfterValidator(_each_once)
ModelIds = Annotated[tuple[UUID, ...], EachOnce, Field(min_length=1, max_length=32, description="Models, each once.")]


class Spec(BaseModel):
    """What every kind of job is asked with."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    seed: Count = Field(0, ge=0, lt=2**32, description="Seed of everything that draws at random.")
    deadline_seconds: Count = Field(3600, ge=5, le=604_800, description="Longest time from its start to its end.")

    @property
    def keeps_on_cancel(self) -> bool:
        """Whether what there is of a result when the job is cancelled is wanted."""
        return False

    @model_validator(mode="after")
    def _storable(self) -> Spec:
        all_storable(self.model_dump(mode="json"))
        return self
