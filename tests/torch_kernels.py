"""Which of PyTorch's kernels a graph of one node calls."""

from __future__ import annotations

from collections.abc import Sequence

import onnx
import onnx_ir as ir
import torch
from torch.autograd.profiler import profile

from accel.graph.torch_graph.dtypes import to_torch
from accel.graph.torch_graph.graph import TorchGraph, nothing
from tests.one_node import Given


def kernels_of(model: onnx.ModelProto, given: Sequence[Given]) -> list[str]:
    """The kernels that are called, in order, by the names that PyTorch has for them; not those that they call themselves."""
    graph = TorchGraph(ir.from_proto(model), nothing)
    feeds = {f"x{place}": to_torch(ir.tensor(value)) for place, value in enumerate(given) if value is not None}
    with torch.no_grad(), profile() as seen:
        graph({name: feeds[name] for name in graph.inputs})
    return [event.name for event in seen.function_events if event.cpu_parent is None]
