"""What the engine can be asked: one JSON document on standard input, discriminated by ``kind``.

Paths, not ids: the engine knows no database. ``model_id`` values are names that the caller chose; reports use them.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, TypeAdapter

from accel.request.benchmarking import BenchmarkRequest
from accel.request.compressing import CompressRequest
from accel.request.describing import DescribeHostRequest, InspectDatasetRequest, InspectModelRequest
from accel.request.evaluating import EvaluateRequest
from accel.request.training import Rendezvous, TrainRequest
from accel.request.values import DatasetFile, FileName, ModelFile, Request, Value

EngineRequest = (
    InspectModelRequest
    | InspectDatasetRequest
    | DescribeHostRequest
    | CompressRequest
    | EvaluateRequest
    | BenchmarkRequest
    | TrainRequest
)
adapter: TypeAdapter[EngineRequest] = TypeAdapter(Annotated[EngineRequest, Field(discriminator="kind")])

__all__ = [
    "BenchmarkRequest",
    "CompressRequest",
    "DatasetFile",
    "DescribeHostRequest",
    "EngineRequest",
    "EvaluateRequest",
    "FileName",
    "InspectDatasetRequest",
    "InspectModelRequest",
    "ModelFile",
    "Rendezvous",
    "Request",
    "TrainRequest",
    "Value",
    "adapter",
]
