"""What is kept, and who may change it: tables, files, job states, dispatch."""

import accel  # noqa: F401  (sets ORT_DISABLE_TELEMETRY before anything can import onnxruntime)
