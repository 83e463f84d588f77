"""Celery workers: claim jobs, supervise the engine's process, renew leases, reap."""

import accel  # noqa: F401  (sets ORT_DISABLE_TELEMETRY before anything can import onnxruntime)
