"""What a benchmark job is asked."""

from __future__ import annotations

from typing import Annotated, Literal
from uuid import UUID

from pydantic import Field, ValidationInfo, field_validator

from accel.report import Scenario
from accel.runtimes.names import RuntimeName, device_queue
from store.specs.base import Count, EachOnce, ModelIds, Spec


class BenchmarkSpec(Spec):
    """Measure the speed of models."""

    kind: Literal["benchmark"] = "benchmark"
    model_ids: ModelIds
    baseline_id: UUID | None = Field(None, description="One of model_ids; the first if left out.")
    runtimes: Annotated[tuple[RuntimeName, ...], EachOnce] | None = Field(
        None,
        min_length=1,
        max_length=8,
        description="Every runtime of the worker that is ONNX Runtime's if left out; those of PyTorch are measured where they are "
        "named.",
    )
    batch_sizes: Annotated[tuple[Annotated[Count, Field(ge=1, le=4096)], ...], EachOnce] = Field(
        (1,), min_length=1, max_length=8
    )
    threads: Annotated[tuple[Annotated[Count, Field(ge=1, le=256)], ...], EachOnce] = Field(
        (1,), min_length=1, max_length=8
    )
    scenario: Scenario = Field(
        "single_stream",
        description="`single_stream`: one call after the other. `multi_stream`: queries of several samples. `server`: requests at "
        "random instants, and the highest rate whose p99 keeps `bound_ms`. `offline`: samples per second, whatever the latency.",
    )
    instances: Annotated[tuple[Annotated[Count, Field(ge=1, le=64)], ...], EachOnce] = Field(
        (1,), min_length=1, max_length=8, description="Processes that work at the same time; offline only."
    )
    streams: Count = Field(8, ge=2, le=256, description="Samples of one query; multi_stream only.")
    bound_ms: float | None = Field(
        None,
        gt=0,
        le=600_000,
        validate_default=True,
        description="Bound on the 99th percentile; the server scenario needs it.",
    )
    precision: float = Field(
        0.02,
        ge=0.001,
        le=0.5,
        description="Measure until the 95 % intervals are plus or minus this share, or the budget is spent.",
    )
    budget_seconds: float = Field(60, ge=1, le=86_400, description="Longest time for one setting.")
    starts: Count | None = Field(
        None,
        ge=1,
        le=200,
        description="Process starts of each model, instead of as many as the precision needs. With one or two, intervals leave out what "
        "differs from start to start.",
    )
    rounds: Count = Field(
        10, ge=2, le=1000, description="Rounds of each start; in each every model is measured once, in turn."
    )
    seconds_per_round: float = Field(0.05, gt=0, le=60, description="How long each model is measured in a round.")
    shapes: dict[str, tuple[Annotated[Count, Field(ge=1, le=65_536)], ...]] = Field(
        default_factory=dict, max_length=32, description="Shapes of inputs with open dimensions besides the batch."
    )
    profile: bool = Field(True, description="Run each model under the runtime's profiler after it was measured.")
    preflight: bool = Field(
        False,
        description="Predict within seconds what the models would gain here, from graphs and the processor; time nothing.",
    )

    @property
    def queue(self) -> str:
        """The queue whose workers can do it."""
        return next((q for q in map(device_queue, self.runtimes or ()) if q != "cpu"), "cpu")

    # Each is checked at the field that has to change, which the answer then points to; fields before it are known.

    @field_validator("baseline_id")
    @classmethod
    def _is_among_the_models(cls, baseline_id: UUID | None, info: ValidationInfo) -> UUID | None:
        if baseline_id is not None and baseline_id not in info.data.get("model_ids", (baseline_id,)):
            raise ValueError("baseline_id is none of model_ids: a benchmark measures both in turn")
        return baseline_id

    @field_validator("instances")
    @classmethod
    def _are_of_offline(cls, instances: tuple[int, ...], info: ValidationInfo) -> tuple[int, ...]:
        if instances != (1,) and info.data.get("scenario", "offline") != "offline":
            raise ValueError(f"instances belong to the offline scenario, not to {info.data['scenario']}")
        return instances

    @field_validator("bound_ms")
    @classmethod
    def _is_of_server(cls, bound_ms: float | None, info: ValidationInfo) -> float | None:
        scenario = info.data.get("scenario")
        if scenario == "server" and bound_ms is None:
            raise ValueError("the server scenario needs bound_ms, the bound on the 99th percentile")
        if bound_ms is not None and scenario not in {"server", None}:
            raise ValueError(f"bound_ms belongs to the server scenario, not to {scenario}")
        return bound_ms
