"""PyTorch, by the differentiable graph. Models do not run there yet: this says so, and is where it will live."""

from __future__ import annotations

from accel.benchmark.environment import installed
from accel.report import RuntimeSummary


def runtimes() -> tuple[RuntimeSummary, ...]:
    """The runtimes that PyTorch will be."""
    version = installed("torch")
    reason = "this version of Accel cannot run an ONNX graph by PyTorch"
    return (
        RuntimeSummary(
            name="torch:cpu",
            version=version or "",
            device="CPU",
            available=False,
            reason=reason if version else f"{reason}, and the package torch is not installed",
        ),
    )
