"""What the engine answers. Values are JSON; unknown is ``None``, never 0; units are in the names."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from accel.report.benchmarking import (
    BenchmarkReport,
    FloatOperator,
    LatencySummary,
    Measurement,
    OperatorTime,
    Percentile,
    Preflight,
    Profile,
    Scenario,
    ServerProbe,
    ServerResult,
    SpeedFinding,
)
from accel.report.compressing import Comparison, CompressReport, Emulation, SplitsUsed, StepReport
from accel.report.describing import (
    ColumnSummary,
    DatasetSummary,
    HostSummary,
    ModelSummary,
    RuntimeSummary,
    SandboxSummary,
    TensorSummary,
)
from accel.report.environment import Environment, Gpu
from accel.report.evaluating import (
    AgainstBaseline,
    ClassChange,
    Divergence,
    EvaluatedModel,
    EvaluateReport,
    OutputNoise,
    Robustness,
    WorstSample,
)
from accel.report.training import (
    ComparedRun,
    CompareRunsReport,
    Distilled,
    EpochPoint,
    StopReason,
    Target,
    TimeToTarget,
    TrainReport,
)
from accel.report.values import Estimate, Value

Report = Annotated[
    ModelSummary | DatasetSummary | HostSummary | CompressReport | EvaluateReport | BenchmarkReport | TrainReport,
    Field(discriminator="kind"),
]

__all__ = [
    "AgainstBaseline",
    "BenchmarkReport",
    "ClassChange",
    "ColumnSummary",
    "CompareRunsReport",
    "ComparedRun",
    "Comparison",
    "CompressReport",
    "DatasetSummary",
    "Distilled",
    "Divergence",
    "Emulation",
    "Environment",
    "EpochPoint",
    "Estimate",
    "EvaluateReport",
    "EvaluatedModel",
    "FloatOperator",
    "Gpu",
    "HostSummary",
    "LatencySummary",
    "Measurement",
    "ModelSummary",
    "OperatorTime",
    "OutputNoise",
    "Percentile",
    "Preflight",
    "Profile",
    "Report",
    "Robustness",
    "RuntimeSummary",
    "SandboxSummary",
    "Scenario",
    "ServerProbe",
    "ServerResult",
    "SpeedFinding",
    "SplitsUsed",
    "StepReport",
    "StopReason",
    "Target",
    "TensorSummary",
    "TimeToTarget",
    "TrainReport",
    "Value",
    "WorstSample",
]
