"""Compress a model."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from accel.data.binding import Binding
from accel.evaluation.contract import Contract
from accel.request.values import DatasetFile, FileName, ModelFile, Request
from accel.techniques import AnyTechnique


class CompressRequest(Request):
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
