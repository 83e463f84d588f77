"""Where things are kept, and how patient the store is; read from ``ACCEL_*`` in the environment."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

_HOME = Path.home() / ".local" / "share" / "accel"


class StoreSettings(BaseSettings):
    """The three places, and the bounds of a job's life."""

    model_config = SettingsConfigDict(env_prefix="ACCEL_", frozen=True, extra="ignore")

    database_url: str = Field(f"sqlite:///{_HOME / 'accel.sqlite3'}", description="SQLite or PostgreSQL (psycopg).")
    broker_url: str = Field("redis://127.0.0.1:6379/0", description="Redis or Valkey; redis+socket:///path works too.")
    files_url: str = Field(f"file://{_HOME / 'files'}", description="A folder (file://) or S3 (s3://bucket/prefix).")
    spool_dir: Path | None = Field(None, description="Folder for unfinished uploads; beside the files if left out.")

    lease_seconds: float = Field(60, gt=0, description="A worker that is silent for so long has lost its job.")
    max_attempts: int = Field(3, ge=1, description="Attempts at a job whose worker or engine dies.")
    dispatch_retry_seconds: float = Field(
        30, gt=0, description="A job nobody has claimed is announced again after so long."
    )
    dispatch_window: int = Field(64, ge=1, description="Jobs of one queue that are announced at a time.")
