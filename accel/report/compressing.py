"""What a recipe made of a model."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from accel.evaluation.contract import Metric, Verdict
from accel.report.environment import Environment
from accel.report.quantization import QuantizationReport
from accel.report.values import Estimate, Value


class Comparison(Value):
    """A model beside its parent, both run in the same runtime on the same inputs."""

    runtime: str
    inputs: Literal["dataset", "random"]
    samples: int
    size_ratio: float = Field(description="Bytes of the result over bytes of the parent.")
    max_abs_difference: float
    snr_db: float | None = Field(description="Signal-to-noise of the outputs; None where they are equal.")
    agreement: float | None = Field(
        None,
        description="Share of samples with the same top class, or with a decoder in the binding the same sequence or decisions.",
    )
    metric: Metric | None = None
    parent_metric: Estimate | None = None
    result_metric: Estimate | None = None
    drop: Estimate | None = None
    speedup: Estimate | None = Field(
        None,
        description="How many times as fast as the original the final result is, from a short look at one thread; a "
        "benchmark job tells it exactly. None where nothing was quantized.",
    )
    warnings: tuple[str, ...] = ()


class Emulation(Value):
    """A result with exact sums, as processors with VNNI compute them, beside the same file with sums of two products that saturate at 16 bits."""

    samples: int
    agreement: float | None = Field(None, description="As in a comparison.")
    snr_db: float | None = Field(None, description="Signal-to-noise of the outputs; None where they are equal.")
    metric: Metric | None = None
    result_metric: Estimate | None = Field(None, description="Of the result with exact sums.")
    emulated_metric: Estimate | None = Field(None, description="Of the result with saturation.")
    drop: Estimate | None = Field(None, description="What saturation costs; above 0 is worse.")


class StepReport(Value):
    """What one step of a recipe did."""

    technique: str
    parameters: dict[str, object]
    model_id: str
    parent_id: str
    size_bytes: int
    seconds: float
    peak_memory_bytes: int
    comparison: Comparison
    quantization: QuantizationReport | None = None
    emulation: Emulation | None = Field(
        None,
        description="What processors without VNNI make of the result. None where no input makes a difference, and where that "
        "was not looked at.",
    )
    verdict: Verdict | None = Field(None, description="On the contract of this step, if it has one.")
    notes: tuple[str, ...] = ()


class SplitsUsed(Value):
    """Which split of the dataset gave the rows for which purpose; None where none were wanted."""

    calibrated_on: str | None
    chosen_by: str | None = Field(description="Where a technique chose between results by their quality.")
    judged_on: str


class CompressReport(Value):
    """What a recipe made of a model."""

    kind: Literal["compress"] = "compress"
    steps: tuple[StepReport, ...]
    splits: SplitsUsed | None = Field(None, description="None where there was no dataset.")
    comparison: Comparison = Field(description="The last result beside the model that the recipe began with.")
    verdict: Verdict | None = None
    environment: Environment
