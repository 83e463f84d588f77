"""A worker's settings, read from ``ACCEL_*`` in the environment."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


def _most_memory() -> int:
    """What one engine may take before the host itself runs short: a model of a hundred bytes can ask for terabytes."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") * 3 // 4


class WorkerSettings(BaseSettings):
    """What a worker may take of its host."""

    model_config = SettingsConfigDict(env_prefix="ACCEL_", frozen=True, extra="ignore")

    worker_concurrency: int = Field(1, ge=1, description="Jobs at a time; one job uses every core by itself.")
    scratch_dir: Path = Field(Path(tempfile.gettempdir()) / "accel-scratch", description="Folder for work in progress.")
    shutdown_grace_seconds: float = Field(5, ge=0, description="Time that a job has to end when its worker is stopped.")
    engine_memory_bytes: int = Field(
        default_factory=_most_memory,
        gt=0,
        description="Address space of one engine; three quarters of the host's memory.",
    )
    engine_file_bytes: int | None = Field(8 << 30, gt=0, description="Largest file that an engine may write.")
    min_free_bytes: int = Field(256 << 20, ge=0, description="Space that must be left before a job begins.")

    @property
    def host_lock(self) -> Path:
        """File by which a benchmark keeps other jobs off this host."""
        return self.scratch_dir / "host.lock"
