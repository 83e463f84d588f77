"""What the engine answers. Values are JSON; unknown is ``None``, never 0; units are in the names."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from accel.evaluation.contract import Metric, Verdict
from accel.report_quantization import QuantizationReport


class _Value(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, ser_json_inf_nan="null")


# --- describing -------------------------------------------------------------------------------------------------


class TensorSummary(_Value):
    """One input or output of a model. A dimension is a size, a name, or None where the file does not say."""

    name: str
    dtype: str
    shape: tuple[int | str | None, ...] | None


class ModelSummary(_Value):
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


class ColumnSummary(_Value):
    """One column of a dataset: dtype, and the shape of one row."""

    name: str
    dtype: str
    shape: tuple[int, ...]


class DatasetSummary(_Value):
    """What is in a dataset's file."""

    kind: Literal["inspect_dataset"] = "inspect_dataset"
    columns: tuple[ColumnSummary, ...]
    splits: dict[str, int] = Field(description="Rows of each split.")
    task: Literal["classification", "regression"] | None
    target: str | None
    classes: int | None = Field(description="Number of classes that the target's labels need.")
    class_names: tuple[str, ...] | None = None
    notes: tuple[str, ...] = ()


class RuntimeSummary(_Value):
    """A runtime of this host. ``available`` is false, with the reason, where it is installed but of no use here."""

    name: str
    version: str
    device: str
    available: bool
    reason: str = ""


class SandboxSummary(_Value):
    """How well this host can confine the engine: the means in force, and those that it lacks with the reason."""

    active: tuple[str, ...]
    missing: dict[str, str]


class Environment(_Value):
    """Where a measurement was made."""

    cpu: str
    cpu_features: tuple[str, ...]
    cores: int
    memory_bytes: int
    platform: str
    python: str
    libraries: dict[str, str]
    load_before: float | None = None


class HostSummary(_Value):
    """Runtimes, confinement and environment of a host."""

    kind: Literal["describe_host"] = "describe_host"
    runtimes: tuple[RuntimeSummary, ...]
    sandbox: SandboxSummary
    environment: Environment


# --- measuring --------------------------------------------------------------------------------------------------


class Estimate(_Value):
    """A figure with its confidence interval (95 % unless said otherwise)."""

    value: float
    low: float | None = None
    high: float | None = None


class Comparison(_Value):
    """A model beside its parent, both run in the same runtime on the same inputs."""

    runtime: str
    inputs: Literal["dataset", "random"]
    samples: int
    size_ratio: float = Field(description="Bytes of the result over bytes of the parent.")
    max_abs_difference: float
    snr_db: float | None = Field(description="Signal-to-noise of the outputs; None where they are equal.")
    agreement: float | None = Field(
        None,
        description="Share of samples with the same top class, or with a decoder in the binding the same sequence or decisions.",
    )
    metric: Metric | None = None
    parent_metric: Estimate | None = None
    result_metric: Estimate | None = None
    drop: Estimate | None = None
    speedup: Estimate | None = Field(
        None,
        description="How many times as fast as the original the final result is, from a short look at one thread; a "
        "benchmark job tells it exactly. None where nothing was quantized.",
    )
    warnings: tuple[str, ...] = ()


class Emulation(_Value):
    """A result as it runs here beside the same file with sums of two products that saturate at 16 bits."""

    samples: int
    agreement: float | None = Field(None, description="As in a comparison.")
    snr_db: float | None = Field(None, description="Signal-to-noise of the outputs; None where they are equal.")
    metric: Metric | None = None
    result_metric: Estimate | None = Field(None, description="Of the result as it runs here.")
    emulated_metric: Estimate | None = Field(None, description="Of the result with saturation.")
    drop: Estimate | None = Field(None, description="What saturation costs; above 0 is worse.")


class StepReport(_Value):
    """What one step of a recipe did."""

    technique: str
    parameters: dict[str, object]
    model_id: str
    parent_id: str
    size_bytes: int
    seconds: float
    peak_memory_bytes: int
    comparison: Comparison
    quantization: QuantizationReport | None = None
    emulation: Emulation | None = Field(
        None,
        description="What processors without VNNI make of the result. None where no input makes a difference, and where that "
        "was not looked at.",
    )
    verdict: Verdict | None = Field(None, description="On the contract of this step, if it has one.")
    notes: tuple[str, ...] = ()


class CompressReport(_Value):
    """What a recipe made of a model."""

    kind: Literal["compress"] = "compress"
    steps: tuple[StepReport, ...]
    comparison: Comparison = Field(description="The last result beside the model that the recipe began with.")
    verdict: Verdict | None = None
    environment: Environment


class AgainstBaseline(_Value):
    """Paired comparison of a model with the baseline on the same samples."""

    metric: Metric
    drop: Estimate = Field(description="Baseline minus model; for errors model minus baseline: above 0 is worse.")
    flips: int | None = Field(
        description="Samples whose predicted class or sequence differs; None where a sample has many decisions or values."
    )
    p_value: float | None = Field(description="Exact McNemar test, two-sided; None where it does not apply.")
    verdict: Verdict | None = None


class EvaluatedModel(_Value):
    """The quality of one model."""

    model_id: str
    runtime: str
    samples: int
    metrics: dict[Metric, Estimate]
    against_baseline: AgainstBaseline | None = None
    error: str | None = Field(None, description="Why this model could not be evaluated.")


class EvaluateReport(_Value):
    """The quality of models on one split of a dataset."""

    kind: Literal["evaluate"] = "evaluate"
    split: str
    baseline_id: str
    models: tuple[EvaluatedModel, ...]
    notes: tuple[str, ...] = ()
    environment: Environment


class LatencySummary(_Value):
    """Latency of one call. A tail is None unless ten samples lie beyond it."""

    count: int
    mean: float
    median: float
    mad: float = Field(description="Median absolute deviation from the median.")
    minimum: float
    p90: float | None
    p95: float | None
    p99: float | None


class Measurement(_Value):
    """One model on one runtime with one batch size and thread count."""

    model_id: str
    runtime: str
    batch_size: int
    threads: int
    latency_ms: LatencySummary | None
    throughput: float | None = Field(description="Samples per second at this batch size, from the median.")
    speedup: Estimate | None = Field(description="Baseline's median over this median, same runtime and settings.")
    speedup_over_reference: Estimate | None = Field(
        None, description="The same against the baseline on the first runtime of the list."
    )
    load_ms: float | None = None
    peak_memory_bytes: int | None = None
    calls_per_sample: int = 1
    warmup_ms: tuple[float, ...] = ()
    samples_ms: tuple[tuple[float, ...], ...] = Field((), description="Every sample, one list a round.")
    warnings: tuple[str, ...] = ()
    error: str | None = Field(None, description="Why there is no figure.")


class BenchmarkReport(_Value):
    """The speed of models."""

    kind: Literal["benchmark"] = "benchmark"
    baseline_id: str
    reference_runtime: str
    measurements: tuple[Measurement, ...]
    environment: Environment


Report = Annotated[
    ModelSummary | DatasetSummary | HostSummary | CompressReport | EvaluateReport | BenchmarkReport,
    Field(discriminator="kind"),
]
