"""The speed of models."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from accel.report.environment import Environment
from accel.report.values import Estimate, Value

Scenario = Literal["single_stream", "multi_stream", "server", "offline"]


class Percentile(Value):
    """A percentile with its 95 % interval; null, with the number of samples that it needs, where too few lie beyond it."""

    value: float | None
    low: float | None = None
    high: float | None = None
    samples_needed: int | None = None


class LatencySummary(Value):
    """Latency of one call in milliseconds."""

    count: int
    mean: float
    median: float
    mad: float = Field(description="Median absolute deviation from the median.")
    minimum: float
    p50: Percentile
    p90: Percentile
    p95: Percentile
    p99: Percentile


class OperatorTime(Value):
    """Time of one kind of operator, or of one layer, in a run."""

    name: str = Field(description="Operator, or the node's name.")
    operator: str
    provider: str = Field("", description="Execution provider that ran it.")
    calls: int = Field(description="Calls in one run of the model.")
    milliseconds: float = Field(description="In one run: the median over runs.")
    share: float = Field(description="Of the time in all operators of a run, 0 to 1.")
    activation_bytes: int | None = Field(
        None, description="Bytes that it reads and writes in one run, without weights."
    )


class Profile(Value):
    """Where a run's time goes, by ONNX Runtime's profiler. Profiling itself slows small operators."""

    runs: int
    run_ms: float = Field(description="Median time of a profiled run.")
    operators: tuple[OperatorTime, ...] = Field(description="By kind, the most expensive first.")
    layers: tuple[OperatorTime, ...] = Field(description="The 30 most expensive nodes of the optimised graph.")
    trace: str | None = Field(None, description="Name of the job's file with the Chrome trace.")


class SpeedFinding(Value):
    """A reason why a model is not faster than its baseline."""

    kind: Literal[
        "operator_slower",
        "pair_not_fused",
        "float_island",
        "zeros_unused",
        "oversubscribed",
        "memory_bound",
        "overhead",
        "no_integer_kernel",
    ]
    share: float | None = Field(
        None, description="Of the model's measured time, 0 to 1; None where it cannot be told apart."
    )
    nodes: tuple[str, ...] = Field((), description="Some of the nodes concerned.")
    text: str = Field(description="The reason in a sentence, with its figures and what would help.")


class ServerProbe(Value):
    """One try of the server scenario: requests that arrive at random at a mean rate (a Poisson process)."""

    rate_hz: float
    requests: int
    p99_ms: float | None
    held: bool


class ServerResult(Value):
    """The highest rate of requests that a model holds."""

    bound_ms: float = Field(description="Bound on the 99th percentile of the time from arrival to answer.")
    rate_hz: float | None = Field(description="Highest rate that held; None where no rate did.")
    probes: tuple[ServerProbe, ...]


class FloatOperator(Value):
    """Operators of a model that will be computed in float, and why."""

    operator: str
    count: int
    macs_share: float
    reason: str


class Preflight(Value):
    """What a model would gain on a runtime of this host, from its graph and the processor's features; nothing was timed."""

    model_id: str
    runtime: str
    already_quantized: bool = Field(description="If so, the speed-up is that of this file over its float baseline.")
    int8_share: float | None = Field(
        description="Share of multiply-accumulates in operators with an integer kernel; None where MACs are unknown."
    )
    expected_speedup: Estimate
    expected_size_bytes: int
    size_bytes: int
    stays_float: tuple[FloatOperator, ...]
    known_failures: tuple[str, ...]
    advice: str


class Measurement(Value):
    """One model on one runtime with one batch size and thread count."""

    model_id: str
    runtime: str
    scenario: Scenario = "single_stream"
    batch_size: int
    threads: int
    instances: int = Field(1, description="Processes that worked at the same time; offline only.")
    latency_ms: LatencySummary | None
    throughput: float | None = Field(description="Samples per second.")
    speedup: Estimate | None = Field(description="How many times as fast as the baseline, same runtime and settings.")
    speedup_over_reference: Estimate | None = Field(
        None, description="The same against the baseline on the first runtime of the list."
    )
    predicted_speedup: Estimate | None = Field(None, description="What `preflight` expects of this pair.")
    starts: int = Field(1, description="How many processes were started for it, one after the other.")
    stopped: Literal["precise", "budget", "fixed"] | None = Field(
        None,
        description="Why measuring ended: the interval is narrow enough, the time is spent, or `starts` were asked for.",
    )
    server: ServerResult | None = None
    load_ms: float | None = None
    first_inference_ms: float | None = None
    peak_memory_bytes: int | None = None
    cpu_seconds: float | None = Field(None, description="Processor time of one inference.")
    energy_joules: float | None = Field(None, description="Of one inference; null where no counter can be read.")
    size_bytes: int | None = None
    compressed_bytes: int | None = Field(None, description="Size of the file after zlib: what a download takes.")
    calls_per_sample: int = 1
    profile: Profile | None = None
    why: tuple[SpeedFinding, ...] = Field((), description="Why it is not faster, where it is not.")
    warnings: tuple[str, ...] = ()
    environment: str = Field("", description="Fingerprint of the environment.")
    error: str | None = Field(None, description="Why there is no figure.")


class BenchmarkReport(Value):
    """The speed of models."""

    kind: Literal["benchmark"] = "benchmark"
    baseline_id: str
    reference_runtime: str
    measurements: tuple[Measurement, ...]
    preflight: tuple[Preflight, ...] = Field((), description="Of a preflight: nothing was measured.")
    samples: str | None = Field(None, description="Name of the job's file with every sample, as Parquet.")
    warnings: tuple[str, ...] = Field((), description="What casts doubt on all figures.")
    environment: Environment
