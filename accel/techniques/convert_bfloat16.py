"""Store weights in 16 bits with the range of 32."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from accel.technique import Technique

if TYPE_CHECKING:
    import onnx_ir

    from accel.context import Context

_CAST_OPSET = 13
"""Since when Cast knows bfloat16."""


class ConvertBfloat16(Technique):
    """Store weights as bfloat16: half the size, the range of float32, and about three decimal digits.

    The model computes in float32 as before, since ONNX Runtime's processor kernels have no arithmetic in bfloat16:
    weights are converted once, when the file is loaded, so that speed and memory are those of the original. It cost
    networks up to 2 points of accuracy where float16, which rounds eight times finer, cost none: take bfloat16 where
    weights leave the range of float16, or where the hardware computes in it.
    """

    technique: Literal["convert_bfloat16"] = "convert_bfloat16"

    def apply(self, model: onnx_ir.Model, context: Context) -> onnx_ir.Model:
        """Replace each weight of a copy by a bfloat16 one and a Cast."""
        from accel.graph.narrow import lifted, narrow
        from accel.graph.prepare import prepare, refuse_quantized

        refuse_quantized(model)
        if model.opset_imports.get("", 0) < _CAST_OPSET:
            ready, notes = prepare(model, context.workspace, opset=_CAST_OPSET)
        else:
            ready, notes = lifted(model), []
        for note in (*notes, *narrow(ready, "bfloat16").notes()):
            context.note(note)
        return ready
