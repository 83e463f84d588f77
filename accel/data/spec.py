"""How a dataset's file is to be understood."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

_ROUNDING = 1e-6


class Splits(BaseModel):
    """Cut one table into splits, by drawing rows."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    fractions: dict[str, float] = Field(
        min_length=1,
        description="Share of the rows for each split; the shares add up to 1.",
        examples=[{"train": 0.8, "test": 0.2}],
    )
    seed: int = Field(0, ge=0)
    stratify: str | None = Field(None, description="Column whose values each split gets in equal shares.")

    @model_validator(mode="after")
    def _adds_up(self) -> Splits:
        if any(share <= 0 for share in self.fractions.values()) or abs(sum(self.fractions.values()) - 1) > _ROUNDING:
            raise ValueError("fractions must be above 0 and add up to 1")
        return self


class DatasetSpec(BaseModel):
    """What the columns mean. Each part may be left out where it can be inferred."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    task: Literal["classification", "regression"] | None = None
    target: str | None = Field(None, description="Column that holds the labels.")
    splits: Splits | None = None
