"""What the engine can be asked: one JSON document on standard input, discriminated by ``kind``.

Paths, not ids: the engine knows no database. ``model_id`` values are names that the caller chose; reports use them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, TypeAdapter, model_validator

from accel.data.binding import Binding
from accel.data.corruption import Corruption
from accel.data.spec import DatasetSpec
from accel.evaluation.contract import Contract, Metric
from accel.report import Scenario
from accel.sandbox import Limits
from accel.techniques import AnyTechnique


class _Value(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


FileName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-][A-Za-z0-9._-]{0,127}$")]
"""A name that a file in the workspace can have."""


class ModelFile(_Value):
    """An ONNX file and the name that reports use for it."""

    model_id: str
    path: Path
    predictions: Path | None = Field(None, description="What it said of the same split in an earlier evaluation.")
    tuned_on: tuple[str, ...] = Field((), description="Splits of the dataset that choices about it were made by.")


class DatasetFile(_Value):
    """A dataset's file, and how it is to be understood."""

    path: Path
    spec: DatasetSpec = DatasetSpec()


class _Request(_Value):
    workspace: Path = Field(Path(), description="Empty folder that the engine may write to; its working directory.")
    limits: Limits = Limits()
    seed: int = Field(0, ge=0, description="Seed of everything that draws at random.")


class InspectModelRequest(_Request):
    """Check an uploaded file and describe the model in it."""

    kind: Literal["inspect_model"] = "inspect_model"
    model: Path


class InspectDatasetRequest(_Request):
    """Check an uploaded file and describe the dataset in it."""

    kind: Literal["inspect_dataset"] = "inspect_dataset"
    dataset: DatasetFile


class DescribeHostRequest(_Request):
    """Say which runtimes this host has, and how well it can confine the engine."""

    kind: Literal["describe_host"] = "describe_host"


class CompressRequest(_Request):
    """Apply a recipe to a model, and compare the result with it."""

    kind: Literal["compress"] = "compress"
    model: ModelFile
    dataset: DatasetFile | None = None
    binding: Binding | None = None
    steps: tuple[AnyTechnique, ...] = Field(min_length=1)
    result_ids: tuple[FileName, ...] = Field(description="Name of the model that each step makes; as many as steps.")
    contract: Contract | None = None
    runtime: str = "onnxruntime:cpu"
    measure_speed: bool = Field(True, description="Take a short look at the speed of a quantized result.")

    @model_validator(mode="after")
    def _names_each_result(self) -> CompressRequest:
        if len(set(self.result_ids)) != len(self.steps) or len(self.result_ids) != len(self.steps):
            raise ValueError("result_ids needs one name, each another, for each of the steps")
        return self


class EvaluateRequest(_Request):
    """Measure the quality of models on one split of a dataset."""

    kind: Literal["evaluate"] = "evaluate"
    models: tuple[ModelFile, ...] = Field(min_length=1)
    baseline_id: str
    dataset: DatasetFile
    split: str = "test"
    binding: Binding | None = None
    metrics: tuple[Metric, ...] | None = None
    runtime: str = "onnxruntime:cpu"
    batch_size: int = Field(32, ge=1)
    contract: Contract | None = None
    corruptions: tuple[Corruption, ...] = ()

    @model_validator(mode="after")
    def _has_its_baseline(self) -> EvaluateRequest:
        _check_baseline(self.baseline_id, self.models)
        if len({model.model_id for model in self.models}) < len(self.models):
            raise ValueError("each model needs a model_id of its own")
        return self


class BenchmarkRequest(_Request):
    """Measure the speed of models, each in a process of its own, rounds interleaved."""

    kind: Literal["benchmark"] = "benchmark"
    models: tuple[ModelFile, ...] = Field(min_length=1)
    baseline_id: str
    runtimes: tuple[str, ...] | None = None
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
        _check_baseline(self.baseline_id, self.models)
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


def _check_baseline(baseline_id: str, models: tuple[ModelFile, ...]) -> None:
    if baseline_id not in {model.model_id for model in models}:
        raise ValueError("baseline_id must be the name of one of the models")


EngineRequest = (
    InspectModelRequest
    | InspectDatasetRequest
    | DescribeHostRequest
    | CompressRequest
    | EvaluateRequest
    | BenchmarkRequest
)
adapter: TypeAdapter[EngineRequest] = TypeAdapter(Annotated[EngineRequest, Field(discriminator="kind")])
