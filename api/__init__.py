"""HTTP in, HTTP out: this room owns no data, and loads neither onnx, onnxruntime nor torch."""

from __future__ import annotations

import accel  # noqa: F401  (first of all: it switches ONNX Runtime's telemetry off)
