"""Integer weights, activations quantized while running."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from accel.technique import Technique

if TYPE_CHECKING:
    import onnx_ir

    from accel.context import Context


class QuantizeDynamic(Technique):
    """Store the weights of matrix products in 8 bits and quantize activations while running. Needs no data.

    Good for transformers and fully connected networks. Convolutions are left alone unless asked for: quantized this way
    they run several times slower on processors.
    """

    technique: Literal["quantize_dynamic"] = "quantize_dynamic"
    per_channel: bool = Field(True, description="One scale for each output channel instead of one for the tensor.")
    convolutions: bool = Field(False, description="Quantize Conv too: a smaller file, but mostly a slower model.")
    reduce_range: bool = Field(
        False, description="Weights in 7 bits, for x86 processors without VNNI, where 8-bit products can saturate."
    )

    def apply(self, model: onnx_ir.Model, context: Context) -> onnx_ir.Model:
        """Quantize by ONNX Runtime's dynamic quantizer."""
        from accel.numerics.quantizer import quantize_dynamic

        operators = ["MatMul", "Gemm", "Attention", "LSTM", "EmbedLayerNormalization"]
        return quantize_dynamic(
            model,
            context,
            operators=[*operators, "Conv"] if self.convolutions else operators,
            per_channel=self.per_channel,
            reduce_range=self.reduce_range,
        )
