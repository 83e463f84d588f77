"""Which kernels ONNX Runtime really computes a model's layers with, read from the graph as it optimised it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

_INTEGER = re.compile(r"QLinear|Integer|QGemm|DynamicQuantize")


def kernels(path: Path, names: Sequence[str], workspace: Path) -> dict[str, str]:
    """The operator that each layer became on the CPU provider; layers that were merged away are left out.

    Args:
        path: An ONNX file that loads.
        names: Names of the layers' nodes.
        workspace: Folder for the optimised file; it is removed.
    """
    import onnx
    import onnxruntime as ort

    optimised = workspace / "kernels.onnx"
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.optimized_model_filepath = str(optimised)
    try:
        ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        graph = onnx.load(optimised, load_external_data=False).graph
    finally:
        optimised.unlink(missing_ok=True)
    # A fused node keeps the layer's name, with something behind it (`_token_3`, `/MatMulAddFusion`).
    exact = {node.name: node.op_type for node in graph.node}
    found = {}
    for name in names:
        if name in exact:
            found[name] = exact[name]
            continue
        close = [node for node in graph.node if node.name.startswith((f"{name}_token_", f"{name}/"))]
        if close:
            found[name] = min(close, key=lambda node: len(node.name)).op_type
    return found


def computes_in_integers(kernel: str) -> bool:
    """Whether an operator of ONNX Runtime multiplies integers."""
    return _INTEGER.search(kernel) is not None
