"""The engine: files in, files and a report out. It knows no database, no queue and no HTTP."""

from __future__ import annotations

import os

# ONNX Runtime reports usage to its maker unless this is set before its import; every process here imports accel first.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
