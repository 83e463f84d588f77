"""Which kernels ONNX Runtime really computes a model's layers with, read from the graph as it optimised it."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx

_INTEGER = re.compile(r"QLinear|Integer|QGemm|DynamicQuantize")


def kernels(path: Path, names: Sequence[str], workspace: Path) -> dict[str, str]:
    """The operator that each layer became on the CPU provider; layers that were merged away are left out.

    Args:
        path: An ONNX file that loads.
        names: Names of the layers' nodes.
        workspace: Folder for the optimised file; it is removed.
    """
    graph = optimised(path, workspace).graph
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


def optimised(path: Path, workspace: Path, *, layouts: bool = True) -> onnx.ModelProto:
    """The graph that ONNX Runtime's CPU provider runs for a file, with every fusion and layout of its own.

    Args:
        path: An ONNX file that loads.
        workspace: Folder for the optimised file; it is removed.
        layouts: Whether values are put into the layouts of this processor's kernels, which gives them new names and shapes.
    """
    import onnx
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    if not layouts:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    with tempfile.TemporaryDirectory(dir=workspace) as folder:
        file = Path(folder) / "optimised.onnx"
        options.optimized_model_filepath = str(file)
        ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        return onnx.load(file, load_external_data=False)


def computes_in_integers(kernel: str) -> bool:
    """Whether an operator of ONNX Runtime multiplies integers."""
    return _INTEGER.search(kernel) is not None
