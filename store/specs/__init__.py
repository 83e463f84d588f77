"""What a caller can ask for: one spec for each kind of job."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, TypeAdapter

from store.specs.base import Spec
from store.specs.benchmarking import BenchmarkSpec
from store.specs.compressing import CompressSpec, needs_data
from store.specs.evaluating import EvaluateSpec
from store.specs.training import TrainSpec

JobSpec = CompressSpec | EvaluateSpec | BenchmarkSpec | TrainSpec
adapter: TypeAdapter[JobSpec] = TypeAdapter(Annotated[JobSpec, Field(discriminator="kind")])

__all__ = ["BenchmarkSpec", "CompressSpec", "EvaluateSpec", "JobSpec", "Spec", "TrainSpec", "adapter", "needs_data"]
