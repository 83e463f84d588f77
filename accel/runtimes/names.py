"""Names of runtimes: a framework and a device, such as ``onnxruntime:cpu``."""

from __future__ import annotations

from typing import Annotated

from pydantic import StringConstraints

DEFAULT = "onnxruntime:cpu"

RuntimeName = Annotated[
    str, StringConstraints(pattern=r"^(onnxruntime|torch):[a-z0-9_]{1,32}$", max_length=64), "a runtime's name"
]


def device_queue(runtime: str) -> str:
    """The queue whose workers have the runtime's device: ``cuda`` for CUDA, else ``cpu``."""
    return "cuda" if runtime.partition(":")[2] in {"cuda", "tensorrt"} else "cpu"
