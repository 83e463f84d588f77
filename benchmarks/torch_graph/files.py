"""Every file of a folder, forward beside ONNX Runtime and backward beside finite differences."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

from quantization.table import Goal, Section

from accel.errors import AccelError
from accel.graph.load import load
from accel.graph.torch_graph.agreement import prove
from accel.graph.torch_graph.executable import executable
from accel.graph.torch_graph.graph import TorchGraph
from torch_graph.gradients import Gradients, gradients_of
from torch_graph.rows import rows_of

_FORWARD = 1e-4
_BACKWARD = 1e-4


def measure(models: Sequence[Path], data: Path, section: Section) -> None:
    """Fill the section."""
    section.begin(
        "Files",
        (
            "model",
            "nodes",
            "largest difference to ONNX Runtime",
            "weights with a gradient",
            "gradient to finite difference",
            "worst of",
            "float32 gradient to float64",
        ),
        "Differences of outputs are shares of each output's largest value; those of gradients, of the gradient. How far float32 "
        "is from float64 tells of the model: the logarithm of a magnitude near zero has no exact gradient in float32.",
    )
    forward, backward = 0.0, 0.0
    failed = []
    for path in models:
        try:
            steps, share, said = _forward(path, data)
            section.remarks += said
            found = gradients_of(load(path), rows_of(path, data))
        except AccelError as error:
            failed.append(path.name)
            section.rows.append((path.name, error.message, None, None, None, None, None))
            continue
        section.rows.append((path.name, steps, f"{share:.1e}", *_cells(found)))
        forward, backward = max(forward, share), max(backward, found.from_differences)
    ran = f"{len(models) - len(failed)} of {len(models)}"
    section.goals += [
        Goal("files that run", ran + "".join(f", not {name}" for name in failed), "all", met=not failed),
        Goal("largest difference of an output", f"{forward:.1e}", f"<= {_FORWARD:.0e}", met=forward <= _FORWARD),
        Goal("gradients to finite differences", f"{backward:.1e}", f"<= {_BACKWARD:.0e}", met=backward <= _BACKWARD),
    ]


def _forward(path: Path, data: Path) -> tuple[int, float, list[str]]:
    """Nodes, the largest difference of an output, and what is to be said of it."""
    model = executable(load(path))
    graph = TorchGraph(model)
    with tempfile.TemporaryDirectory() as folder:
        found = prove(graph, model, rows_of(path, data), Path(folder))
    share = max((one.share for one in found.outputs), default=float("inf"))
    return (
        sum(1 for _ in model.graph.all_nodes()),
        share,
        [f"{path.name}: {found.describe()}"] if found.node is not None else [],
    )


def _cells(found: Gradients) -> tuple[str, ...]:
    sampled = f"{found.weights}, {found.sampled} sampled"
    return sampled, f"{found.from_differences:.1e}", found.worst, f"{found.from_doubles:.1e}"
