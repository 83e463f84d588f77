"""What an operator may set about the API, by environment variables that begin with ``ACCEL_``."""

from __future__ import annotations

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

_GIB = 1 << 30


class ApiSettings(BaseSettings):
    """Limits of the HTTP room."""

    model_config = SettingsConfigDict(env_prefix="ACCEL_", frozen=True, extra="ignore")

    upload_limit_bytes: int = Field(4 * _GIB, gt=0, description="Largest file that may be uploaded.")
    json_limit_bytes: int = Field(1 << 20, gt=0, description="Largest JSON body.")
    min_free_bytes: int = Field(_GIB // 2, ge=0, description="Free space that an upload must leave on the disk.")
    inspect_timeout_s: float = Field(120, gt=0, description="How long the look into an uploaded file may take.")
    inspect_memory_bytes: int = Field(8 * _GIB, gt=0, description="Address space of the process that looks into it.")
    inspect_concurrency: int = Field(2, gt=0, description="Uploaded files that are looked into at the same time.")
    threads: int = Field(64, gt=0, description="Requests that are worked on at the same time.")
    reader_threads: int = Field(2, gt=0, description="Threads that look up single jobs.")
    watch_tick_s: float = Field(0.075, gt=0, description="How often waiting clients' jobs are looked up.")
    keep_alive_s: float = Field(15, gt=0, description="Silence on an event stream after which a comment is sent.")
    dispatch_in_api: bool = Field(True, description="Whether this process publishes queued jobs to the broker.")
    access_log: bool = Field(True, description="One JSON line on standard output for each request.")
