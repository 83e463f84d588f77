"""What is in a file, and what a host has."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from accel.report.environment import Environment
from accel.report.values import Value


class TensorSummary(Value):
    """One input or output of a model. A dimension is a size, a name, or None where the file does not say."""

    name: str
    dtype: str
    shape: tuple[int | str | None, ...] | None


class ModelSummary(Value):
    """What is in an ONNX file."""

    kind: Literal["inspect_model"] = "inspect_model"
    inputs: tuple[TensorSummary, ...]
    outputs: tuple[TensorSummary, ...]
    opset: dict[str, int]
    operators: dict[str, int]
    parameters: int
    macs: int | None = Field(description="Multiply-accumulates of one sample; None where shapes do not tell.")
    quantized: bool
    notes: tuple[str, ...] = ()


class ColumnSummary(Value):
    """One column of a dataset: dtype, and the shape of one row."""

    name: str
    dtype: str
    shape: tuple[int, ...]


class DatasetSummary(Value):
    """What is in a dataset's file."""

    kind: Literal["inspect_dataset"] = "inspect_dataset"
    columns: tuple[ColumnSummary, ...]
    splits: dict[str, int] = Field(description="Rows of each split.")
    task: Literal["classification", "regression"] | None
    target: str | None
    classes: int | None = Field(description="Number of classes that the target's labels need.")
    class_names: tuple[str, ...] | None = None
    notes: tuple[str, ...] = ()


class RuntimeSummary(Value):
    """A runtime of this host. ``available`` is false, with the reason, where it is installed but of no use here."""

    name: str
    version: str
    device: str
    available: bool
    reason: str = ""


class SandboxSummary(Value):
    """How well this host can confine the engine: the means in force, and those that it lacks with the reason."""

    active: tuple[str, ...]
    missing: dict[str, str]


class HostSummary(Value):
    """Runtimes, confinement and environment of a host."""

    kind: Literal["describe_host"] = "describe_host"
    runtimes: tuple[RuntimeSummary, ...]
    sandbox: SandboxSummary
    environment: Environment
