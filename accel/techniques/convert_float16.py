"""Store weights in 16 bits."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from accel.technique import Technique

if TYPE_CHECKING:
    import onnx
    import onnx_ir

    from accel.context import Context


class ConvertFloat16(Technique):
    """Store weights and compute in 16-bit floating point: half the size, hardly any loss.

    Processors compute such a file in 32 bits with conversions in between, so that it is smaller there but seldom faster;
    GPUs and some accelerators gain. Operators that overflow in 16 bits stay in 32.
    """

    technique: Literal["convert_float16"] = "convert_float16"
    keep_io_types: bool = Field(True, description="Inputs and outputs stay float32, so that callers need no change.")

    def apply(self, model: onnx_ir.Model, context: Context) -> onnx_ir.Model:
        """Convert by ONNX Runtime's converter, which knows the operators that are unsafe in 16 bits."""
        import onnx_ir
        from onnxruntime.transformers.float16 import convert_float_to_float16

        from accel.errors import TechniqueFailed

        try:
            proto: onnx.ModelProto = convert_float_to_float16(
                onnx_ir.to_proto(model), keep_io_types=self.keep_io_types, disable_shape_infer=False
            )
        except (ValueError, TypeError, KeyError, RuntimeError) as error:
            raise TechniqueFailed(f"The model cannot be converted to float16: {str(error)[:300]}") from error
        converted = onnx_ir.from_proto(proto)
        converted.graph.sort()  # the converter puts its casts last
        context.note(
            "Processors without 16-bit arithmetic compute this file in float32; measure before you expect speed."
        )
        return converted
