"""What a caller can ask for: one spec for each kind of job."""

from __future__ import annotations

from typing import Annotated, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, model_validator

from accel.data.binding import Binding
from accel.evaluation.contract import Contract, Metric
from accel.runtimes.names import DEFAULT, RuntimeName, device_queue
from accel.technique import Technique
from accel.techniques import AnyTechnique
from store.text import all_storable

Count = Annotated[int, Field(strict=True)]
ModelIds = Annotated[tuple[UUID, ...], Field(min_length=1, max_length=32, description="Models, each once.")]


class _Spec(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    seed: Count = Field(0, ge=0, lt=2**32, description="Seed of everything that draws at random.")
    deadline_seconds: Count = Field(3600, ge=5, le=604_800, description="Longest time from its start to its end.")

    @model_validator(mode="after")
    def _storable(self) -> _Spec:
        all_storable(self.model_dump(mode="json"))
        return self


class CompressSpec(_Spec):
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


class EvaluateSpec(_Spec):
    """Measure the quality of models on a dataset."""

    kind: Literal["evaluate"] = "evaluate"
    model_ids: ModelIds
    dataset_id: UUID
    split: str = Field("test", min_length=1, max_length=64)
    binding: Binding | None = None
    metrics: tuple[Metric, ...] | None = Field(None, min_length=1, description="Those of the task if left out.")
    runtime: RuntimeName = DEFAULT
    contract: Contract | None = None
    baseline_id: UUID | None = Field(None, description="One of model_ids; the first if left out.")
    batch_size: Count = Field(32, ge=1, le=4096)

    @property
    def queue(self) -> str:
        """The queue whose workers can do it."""
        return device_queue(self.runtime)

    @model_validator(mode="after")
    def _consistent(self) -> EvaluateSpec:
        _check_models(self.model_ids, self.baseline_id)
        return self


class BenchmarkSpec(_Spec):
    """Measure the speed of models."""

    kind: Literal["benchmark"] = "benchmark"
    model_ids: ModelIds
    baseline_id: UUID | None = Field(None, description="One of model_ids; the first if left out.")
    runtimes: tuple[RuntimeName, ...] | None = Field(
        None, min_length=1, max_length=8, description="Every runtime of the worker if left out."
    )
    batch_sizes: tuple[Annotated[Count, Field(ge=1, le=4096)], ...] = Field((1,), min_length=1, max_length=8)
    threads: tuple[Annotated[Count, Field(ge=1, le=256)], ...] = Field((1,), min_length=1, max_length=8)
    scenario: Literal["single_stream"] = Field("single_stream", description="One call after the other.")
    rounds: Count = Field(20, ge=2, le=1000, description="Rounds; in each every model is measured once, in turn.")
    seconds_per_round: float = Field(0.05, gt=0, le=60, description="How long each model is measured in a round.")
    shapes: dict[str, tuple[Annotated[Count, Field(ge=1, le=65_536)], ...]] = Field(
        default_factory=dict, max_length=32, description="Shapes of inputs with open dimensions besides the batch."
    )

    @property
    def queue(self) -> str:
        """The queue whose workers can do it."""
        return next((q for q in map(device_queue, self.runtimes or ()) if q != "cpu"), "cpu")

    @model_validator(mode="after")
    def _consistent(self) -> BenchmarkSpec:
        _check_models(self.model_ids, self.baseline_id)
        return self


JobSpec = CompressSpec | EvaluateSpec | BenchmarkSpec
adapter: TypeAdapter[JobSpec] = TypeAdapter(Annotated[JobSpec, Field(discriminator="kind")])


def needs_data(steps: tuple[Technique, ...]) -> list[int]:
    """Places of the steps that cannot do without a dataset."""
    return [place for place, step in enumerate(steps) if step.needs_data]


def _check_models(model_ids: tuple[UUID, ...], baseline_id: UUID | None) -> None:
    if len(set(model_ids)) < len(model_ids):
        raise ValueError("model_ids names a model twice")
    if baseline_id is not None and baseline_id not in model_ids:
        raise ValueError("baseline_id is none of model_ids")
