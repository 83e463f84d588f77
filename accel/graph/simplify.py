"""Portable simplification of a graph by ONNX Runtime."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from accel.errors import TechniqueFailed

if TYPE_CHECKING:
    import onnx_ir


def simplify(model: onnx_ir.Model, workspace: Path) -> onnx_ir.Model:
    """Fold constants and batch norms, merge and drop nodes; only standard operators come out.

    Args:
        model: The graph; it stays as it was.
        workspace: Folder for the files that the runtime reads and writes; they are removed.

    Raises:
        TechniqueFailed: ONNX Runtime cannot load the model.
    """
    import onnx
    import onnx_ir
    import onnxruntime as ort
    from onnx_ir.passes.common import RemoveUnusedNodesPass

    from accel.graph.load import save
    from accel.graph.prepare import unpacked_weight

    before, after = workspace / "simplify.before.onnx", workspace / "simplify.after.onnx"
    save(model, before)
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(after)
    # Kernels that differ by processor are not chosen at this level, so the file is the same on every host.
    try:
        # Weights that are stored as integers would be folded back into floats.
        kept = ["ConstantFolding"] if unpacked_weight(model) is not None else []
        ort.InferenceSession(str(before), options, providers=["CPUExecutionProvider"], disabled_optimizers=kept)
        proto = onnx.load(after, load_external_data=False)
    except Exception as error:
        raise TechniqueFailed(
            f"ONNX Runtime cannot load the model: {' '.join(str(error).split())[:300]}",
            hint="Check that the model runs in ONNX Runtime where it was exported.",
        ) from error
    finally:
        before.unlink(missing_ok=True)
        after.unlink(missing_ok=True)
    used = {node.domain for node in proto.graph.node} | {node.domain for fn in proto.functions for node in fn.node}
    imports = [entry for entry in proto.opset_import if entry.domain in used | {""}]
    del proto.opset_import[:]
    proto.opset_import.extend(imports)
    proto.producer_name, proto.producer_version = model.producer_name or "", model.producer_version or ""
    simple = onnx_ir.from_proto(proto)
    RemoveUnusedNodesPass()(simple)  # which the runtime leaves in place
    return simple
