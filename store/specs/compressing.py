"""What a compress job is asked."""

from __future__ import annotations

from typing import Literal
from uuid import UUID

from pydantic import Field

from accel.data.binding import Binding
from accel.evaluation.contract import Contract
from accel.runtimes.names import DEFAULT, RuntimeName, device_queue
from accel.technique import Technique
from accel.techniques import AnyTechnique
from store.specs.base import Spec


class CompressSpec(Spec):
    """Apply a recipe to a model."""

    kind: Literal["compress"] = "compress"
    model_id: UUID
    dataset_id: UUID | None = Field(None, description="For techniques that calibrate, and to compare accuracies.")
    binding: Binding | None = None
    steps: tuple[AnyTechnique, ...] = Field(min_length=1, max_length=16, description="The recipe, in order.")
    contract: Contract | None = Field(None, description="Bound on the loss of quality; the report has the verdict.")
    runtime: RuntimeName = Field(DEFAULT, description="Where every result is proved.")

    @property
    def queue(self) -> str:
        """The queue whose workers can do it."""
        return device_queue(self.runtime)


def needs_data(steps: tuple[Technique, ...]) -> list[int]:
    """Places of the steps that cannot do without a dataset."""
    return [place for place, step in enumerate(steps) if step.needs_data]
