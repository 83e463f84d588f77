"""Graphs of one node, run in ONNX Runtime: what the differentiable executor must give."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import torch

from tests.one_node import Given, computed, model_of


def reference(model: onnx.ModelProto, given: Sequence[Given]) -> list[np.ndarray]:
    """The outputs of a graph of one node in ONNX Runtime."""
    import onnxruntime

    plain = onnx.ModelProto()
    plain.CopyFrom(model)
    for output in plain.graph.output:  # the runtime finds the types by itself
        output.ClearField("type")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(plain.SerializeToString(), options, providers=["CPUExecutionProvider"])
    wanted = {value.name for value in session.get_inputs()}
    feeds = {f"x{place}": value for place, value in enumerate(given) if f"x{place}" in wanted}
    return list(session.run(None, feeds))


def assert_agrees(operator: str, given: Sequence[Given], **options: Any) -> None:
    """All outputs of a node are those of ONNX Runtime; the options are those of ``model_of``."""
    model = model_of(operator, given, **options)
    for found, expected in zip(computed(model, given), reference(model, given), strict=True):
        torch.testing.assert_close(found, torch.from_numpy(expected), rtol=1e-4, atol=1e-5)
