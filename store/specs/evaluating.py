"""What an evaluate job is asked."""

from __future__ import annotations

from typing import Annotated, Literal
from uuid import UUID

from pydantic import Field

from accel.data.binding import Binding
from accel.data.corruption import Corruption
from accel.evaluation.contract import Contract, Metric
from accel.runtimes.names import DEFAULT, RuntimeName, device_queue
from store.specs.base import Count, EachOnce, ModelIds, Spec


class EvaluateSpec(Spec):
    """Measure the quality of models on a dataset."""

    kind: Literal["evaluate"] = "evaluate"
    model_ids: ModelIds
    dataset_id: UUID
    split: str = Field("test", min_length=1, max_length=64)
    binding: Binding | None = None
    metrics: Annotated[tuple[Metric, ...], EachOnce] | None = Field(
        None, min_length=1, description="Those of the task if left out."
    )
    runtime: RuntimeName = DEFAULT
    contract: Contract | None = None
    baseline_id: UUID | None = Field(
        None,
        description="What the others are compared with: one of model_ids (the first if left out), or another model that was "
        "evaluated on this split before.",
    )
    batch_size: Count = Field(32, ge=1, le=4096)
    corruptions: Annotated[tuple[Corruption, ...], EachOnce] = Field(
        (),
        max_length=12,
        description="Repeat the comparison on corrupted inputs.",
        examples=[[{"corruption": "blur", "severity": 3}]],
    )
    reuse: bool = Field(
        True,
        description="Take the predictions that an earlier evaluation kept of the same model, split, binding and runtime, instead "
        "of running the model again.",
    )

    @property
    def queue(self) -> str:
        """The queue whose workers can do it."""
        return device_queue(self.runtime)
