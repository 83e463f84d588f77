"""Where a measurement was made."""

from __future__ import annotations

from pydantic import Field

from accel.report.values import Value


class Gpu(Value):
    """A graphics processor."""

    name: str
    driver: str
    memory_bytes: int | None = None


class Environment(Value):
    """Where a measurement was made. What the system does not tell is None."""

    cpu: str
    cpu_features: tuple[str, ...]
    cores: int = Field(description="Cores that this process may use.")
    affinity: tuple[int, ...] = Field((), description="Numbers of these cores.")
    governor: str | None = Field(None, description="How the system chooses the processor's frequency.")
    cpu_limit: float | None = Field(None, description="Cores' worth of time that the control group allows.")
    memory_limit_bytes: int | None = Field(None, description="Memory that the control group allows.")
    container: str | None = Field(None, description="Kind of container or virtual machine.")
    memory_bytes: int
    gpus: tuple[Gpu, ...] = ()
    platform: str
    python: str
    libraries: dict[str, str]
    thread_settings: dict[str, str] = Field(
        default_factory=dict, description="Variables that tell libraries how many threads to take."
    )
    load_before: float | None = Field(None, description="Load average of the minute before.")
    steal_share: float | None = Field(
        None, description="Share of processor time that the host's other guests took meanwhile; benchmarks only."
    )
    throttled_share: float | None = Field(
        None, description="Share of periods in which the control group held this process back; benchmarks only."
    )
    fingerprint: str = Field(
        "", description="Equal where figures may be compared: processor, cores, limits, governor, runtimes' versions."
    )
