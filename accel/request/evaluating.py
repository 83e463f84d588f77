"""Measure quality."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from accel.data.binding import Binding
from accel.data.corruption import Corruption
from accel.evaluation.contract import Contract, Metric
from accel.request.values import DatasetFile, ModelFile, Request, check_baseline


class EvaluateRequest(Request):
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
        check_baseline(self.baseline_id, self.models)
        if len({model.model_id for model in self.models}) < len(self.models):
            raise ValueError("each model needs a model_id of its own")
        return self
