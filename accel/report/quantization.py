"""What quantization did to a model, layer by layer."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from accel.report.values import Value


class LayerReport(Value):
    """One layer after quantization. What is unknown is None."""

    name: str
    operator: str
    weight_bits: int | None = Field(description="None where the layer was left in float.")
    activation_bits: int | None = Field(None, description="None where activations stay float until the model runs.")
    granularity: Literal["tensor", "channel", "block"] | None = None
    weight_scale: tuple[float, float] | None = Field(None, description="Smallest and largest scale of the weight.")
    activation_scale: float | None = None
    activation_zero_point: int | None = None
    weight_snr_db: float | None = Field(None, description="Signal-to-noise ratio of the weight in decibels.")
    output_snr_db: float | None = Field(
        None, description="Signal-to-noise ratio of the layer's output on float inputs, in decibels."
    )
    saturation: float | None = Field(None, description="Share of the activation's values outside its range.")
    kernel: str | None = Field(None, description="What the runtime computes the layer with, from its optimised graph.")
    portability: Literal["safe", "safe_on_data", "at_risk"] | None = Field(
        None, description="Whether 16-bit sums of processors without VNNI can saturate here."
    )
    portability_reason: str = Field("", description="What that is known from.")
    saturated_share: float | None = Field(
        None, description="Share of the sums of products with a pair that saturates there, on the samples."
    )
    saturation_error: float | None = Field(
        None, description="Largest change of an output by that, relative to the layer's largest output."
    )
    note: str = Field("", description="Why the layer is as it is, where that was not asked for.")


class Settling(Value):
    """How far scales moved since half as many samples, relative to themselves."""

    samples: int
    median_change: float
    largest_change: float


class CalibrationReport(Value):
    """How ranges were measured."""

    method: str
    samples: int = Field(description="Samples that were used.")
    settled: bool = Field(description="Whether it stopped early because the scales no longer moved.")
    curve: tuple[Settling, ...] = ()


class Finding(Value):
    """Something about the calibration samples that a person should know."""

    code: str
    severity: Literal["info", "warning"]
    message: str
    hint: str = ""


class PortabilityReport(Value):
    """What each layer does on processors without VNNI, where sums of two products saturate at 16 bits."""

    safe: int = Field(description="Layers that cannot saturate, whatever comes in.")
    safe_on_data: int = Field(description="Layers that did not saturate on the calibration samples.")
    at_risk: tuple[str, ...] = Field(description="Layers that saturated on the calibration samples.")
    changed: tuple[str, ...] = Field((), description="Layers that `portable` changed so that they are safe.")


class CandidateReport(Value):
    """A choice that was tried on rows set apart."""

    in_float: tuple[str, ...] = Field(description="Layers that stayed in float.")
    loss: float = Field(description="Loss of the contract's metric, or noise over signal of the outputs.")


class QuantizationReport(Value):
    """What a quantizing step did."""

    layers: tuple[LayerReport, ...]
    calibration: CalibrationReport | None = None
    findings: tuple[Finding, ...] = ()
    portability: PortabilityReport | None = None
    tried: tuple[CandidateReport, ...] = Field(
        (), description="Choices of layers in float, in the order of the search."
    )
    fallback: tuple[str, ...] = Field(
        (),
        description="Layers to `exclude` for a safer result than this one: those in float, and the next most sensitive.",
    )

    @property
    def differs(self) -> bool:
        """Whether some input may give something else on processors without VNNI."""
        return self.portability is not None and bool(self.portability.at_risk or self.portability.safe_on_data)
