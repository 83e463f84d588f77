"""Store weights in 16 bits, and compute in 16."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from accel.technique import Technique

if TYPE_CHECKING:
    import onnx_ir

    from accel.context import Context
    from accel.graph.half import Halved

_NAMED = 5
"""Constants that the notes name."""


class ConvertFloat16(Technique):
    """Store weights and compute in 16-bit floating point: half the size, hardly any loss.

    GPUs and some accelerators gain speed. Processors compute such a file in 32 bits with conversions in between, and
    are seldom faster and often slower: for them, `compute: float32` stores the weights in 16 bits and converts them
    once, when the file is loaded. Operators whose results leave the range of 16 bits stay in 32, and so do weights that
    16 bits cannot hold.
    """

    technique: Literal["convert_float16"] = "convert_float16"
    compute: Literal["float16", "float32"] = Field(
        "float16",
        description="What the model computes in. float32 makes a file of half the size that runs as fast as before.",
    )
    keep_io_types: bool = Field(True, description="Inputs and outputs stay float32, so that callers need no change.")

    def apply(self, model: onnx_ir.Model, context: Context) -> onnx_ir.Model:
        """Convert a copy, operator by operator."""
        from accel.graph.half import halve
        from accel.graph.narrow import lifted, narrow
        from accel.graph.prepare import refuse_quantized

        refuse_quantized(model)
        copy = lifted(model)
        if self.compute == "float32":
            notes = narrow(copy, "float16").notes()
        else:
            notes = _notes(halve(copy, keep_io_types=self.keep_io_types))
        for note in notes:
            context.note(note)
        return copy


def _notes(halved: Halved) -> list[str]:
    from accel.graph.half import LARGEST

    notes = (
        []
        if halved.half
        else ["Nothing computes in float16: no operator was found that can and whose types are known."]
    )
    if halved.kept:
        kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(halved.kept.items()))
        notes.append(
            f"{halved.half} operators compute in float16; these stay in float32, since values may leave its range "
            f"or they have no float16: {kinds}."
        )
    for name, node, largest in halved.outside[:_NAMED]:
        why = f"reaches {largest:.4g}, beyond {LARGEST:.0f}" if largest > LARGEST else f"is {largest:.4g} at most"
        notes.append(f"{node} stays in float32: its constant {name!r} {why}, which float16 does not hold.")
    if len(halved.outside) > _NAMED:
        notes.append(f"The same goes for {len(halved.outside) - _NAMED} other constants.")
    notes.append("Processors without 16-bit arithmetic compute this file in float32; measure before you expect speed.")
    return notes
