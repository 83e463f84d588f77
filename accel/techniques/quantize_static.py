"""Integer weights and activations, with ranges measured on data."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from accel.technique import Technique

if TYPE_CHECKING:
    import onnx_ir

    from accel.context import Context


class QuantizeStatic(Technique):
    """Store weights and compute in 8 bits, with the ranges of activations measured on samples of the dataset.

    A quarter of the size, and mostly the fastest file on processors. Activations are unsigned and only convolutions and
    matrix products are quantized: such files load in every runtime and are fast on x86-64.
    """

    technique: Literal["quantize_static"] = "quantize_static"
    needs_data: ClassVar[bool] = True

    samples: int = Field(100, ge=1, le=100_000, description="Rows of the dataset to measure ranges on.")
    calibration: Literal["minmax", "percentile"] = Field(
        "minmax",
        description="How a range is chosen: the extremes that were seen, or 99.999 % of the values (which keeps all "
        "activations in memory: use few samples).",
    )
    per_channel: bool = Field(True, description="One scale for each output channel instead of one for the tensor.")
    reduce_range: bool = Field(
        False, description="Weights in 7 bits, for x86 processors without VNNI, where 8-bit products can saturate."
    )
    exclude: tuple[str, ...] = Field(
        (), description="Nodes to leave in float, by name; * and ? stand for parts of a name.", max_length=1000
    )

    def apply(self, model: onnx_ir.Model, context: Context) -> onnx_ir.Model:
        """Calibrate and quantize by ONNX Runtime's QDQ quantizer."""
        from accel.numerics.quantizer import quantize_static

        return quantize_static(
            model,
            context,
            operators=["Conv", "MatMul", "Gemm"],
            exclude=self.exclude,
            calibration=context.calibration("quantize_static"),
            samples=self.samples,
            method=self.calibration,
            per_channel=self.per_channel,
            reduce_range=self.reduce_range,
        )
