"""Measure speed."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from accel.report import Scenario
from accel.request.values import ModelFile, Request, check_baseline


class BenchmarkRequest(Request):
    """Measure the speed of models, each in a process of its own, rounds interleaved."""

    kind: Literal["benchmark"] = "benchmark"
    models: tuple[ModelFile, ...] = Field(min_length=1)
    baseline_id: str
    runtimes: tuple[str, ...] | None = Field(None, description="All of ONNX Runtime's if left out.")
    batch_sizes: tuple[int, ...] = (1,)
    threads: tuple[int, ...] = (1,)
    scenario: Scenario = "single_stream"
    instances: tuple[int, ...] = Field((1,), description="Processes that work at the same time; offline only.")
    streams: int = Field(8, ge=2, description="Samples of one query; multi_stream only.")
    bound_ms: float | None = Field(None, gt=0, description="Bound on the 99th percentile; server only.")
    precision: float = Field(
        0.02, gt=0, description="Half the width of the intervals that is narrow enough, as a share."
    )
    budget_seconds: float = Field(60.0, gt=0, description="Longest time for one setting.")
    starts: int | None = Field(None, ge=1, description="Process starts of each candidate; by precision if left out.")
    rounds: int = Field(10, ge=2, description="Rounds of each start.")
    seconds_per_round: float = Field(0.05, gt=0)
    shapes: dict[str, tuple[int, ...]] = Field(default_factory=dict)
    profile: bool = True
    preflight: bool = Field(False, description="Predict from the graph and the processor instead of measuring.")

    @model_validator(mode="after")
    def _has_its_baseline(self) -> BenchmarkRequest:
        check_baseline(self.baseline_id, self.models)
        return self

    @model_validator(mode="after")
    def _fits_its_scenario(self) -> BenchmarkRequest:
        if (self.scenario == "server") != (self.bound_ms is not None):
            raise ValueError("bound_ms belongs to the server scenario, which needs it")
        if self.scenario != "offline" and self.instances != (1,):
            raise ValueError("instances belong to the offline scenario")
        if self.scenario == "multi_stream" and self.batch_sizes != (1,):
            raise ValueError(
                "batch_sizes do not belong to the multi_stream scenario: a query has as many samples as streams"
            )
        return self
