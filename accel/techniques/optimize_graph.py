"""Simplify the graph without changing what it computes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from accel.technique import Technique

if TYPE_CHECKING:
    import onnx_ir

    from accel.context import Context


class OptimizeGraph(Technique):
    """Fold constants and batch norms, and remove what no output needs. Results stay the same up to rounding.

    Only standard ONNX operators come out, so that the file runs in every runtime.
    """

    technique: Literal["optimize_graph"] = "optimize_graph"

    def apply(self, model: onnx_ir.Model, context: Context) -> onnx_ir.Model:
        """Run ONNX Runtime's portable optimisations (its level "basic") and read the graph that they give."""
        from accel.graph.simplify import simplify

        return simplify(model, context.workspace)
