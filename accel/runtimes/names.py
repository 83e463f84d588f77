"""Names of runtimes: a framework and a device, such as ``onnxruntime:cpu``."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import StringConstraints

DEFAULT = "onnxruntime:cpu"

RuntimeName = Annotated[
    str, StringConstraints(pattern=r"^(onnxruntime|torch):[a-z0-9_]{1,32}$", max_length=64), "a runtime's name"
]

_RTX = {"NvTensorRTRTXExecutionProvider": "tensorrt"}
"""TensorRT for RTX is TensorRT to callers; the other names follow from their providers'."""
_ON_CUDA = ("cuda", "tensorrt", "nvtensorrtrtx")


def device_queue(runtime: str) -> str:
    """The queue whose workers have the runtime's device: ``cuda`` for what runs on CUDA, else ``cpu``."""
    return "cuda" if runtime.partition(":")[2].startswith(_ON_CUDA) else "cpu"


def runtime_of(provider: str) -> str:
    """The runtime of an execution provider: ``onnxruntime:openvino`` for ``OpenVINOExecutionProvider``."""
    return f"onnxruntime:{_RTX.get(provider) or full_name(provider)}"


def full_name(provider: str) -> str:
    """A provider's own name in the letters that names of runtimes have."""
    return re.sub(r"[^a-z0-9]+", "_", provider.removesuffix("ExecutionProvider").lower())[:32] or "_"
