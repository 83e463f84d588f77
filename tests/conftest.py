"""What every test shares: fixed chance, and no environment that could leak in."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import settings

import accel  # noqa: F401  (sets ORT_DISABLE_TELEMETRY before anything imports onnxruntime)

# PostgreSQL's wheel keeps a lock there; without the folder it would take one that all users of the host share.
os.environ.setdefault("XDG_RUNTIME_DIR", tempfile.mkdtemp(prefix="accel-tests-"))
Path(os.environ["XDG_RUNTIME_DIR"], "python_PostgresServer").mkdir(parents=True, exist_ok=True)

CHROMIUM = any(map(shutil.which, ("chromium", "chromium-browser", "google-chrome")))
collect_ignore = [] if CHROMIUM else ["browser"]


def pytest_report_header() -> str:
    """Say what is left out."""
    return "" if CHROMIUM else "the browser tests are left out: there is no Chromium on the PATH"


settings.register_profile("fixed", derandomize=True, deadline=None, database=None)
settings.load_profile("fixed")


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Remove the operator's settings, so that a test sees only its own."""
    for name in [name for name in os.environ if name.startswith("ACCEL_")]:
        monkeypatch.delenv(name)
