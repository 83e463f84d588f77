"""OpenVINO, as a plug-in of ONNX Runtime."""

from __future__ import annotations

import functools
import json
from typing import TYPE_CHECKING

from accel.runtimes.messages import clean

if TYPE_CHECKING:
    import onnxruntime as ort

PROVIDER = "OpenVINOExecutionProvider"

_NO_DEVICE = (
    "the OpenVINO plug-in is installed but offers no device here; it leaves out CPUs of other makers than Intel "
    "(microsoft/onnxruntime pull request 31981)"
)


@functools.cache
def devices() -> tuple[list[ort.OrtEpDevice], str]:
    """The processors that the plug-in offers on this host, and the reason where there are none."""
    import onnxruntime as ort

    try:
        import onnxruntime_ep_openvino as plugin
    except ImportError:
        return [], "the package onnxruntime-ep-openvino is not installed"
    try:
        ort.register_execution_provider_library(PROVIDER, plugin.get_library_path())
    except Exception as error:  # noqa: BLE001  (the plug-in may fail in any way; the reason is shown to the operator)
        return [], f"the OpenVINO plug-in does not load: {clean(str(error))}"
    found = [d for d in ort.get_ep_devices() if d.ep_name == PROVIDER and d.device.type.name == "CPU"]
    return found, "" if found else _NO_DEVICE


def options(threads: int | None) -> dict[str, str]:
    """Options of the provider for so many threads.

    It takes every core whatever ``intra_op_num_threads`` says, and computes fp32 files in bf16 by itself where the CPU
    can, at a loss of accuracy: both are set here, so that what runs is what was asked for.
    """
    settings = {"INFERENCE_PRECISION_HINT": "f32"}
    if threads is not None:
        settings["INFERENCE_NUM_THREADS"] = str(threads)
    return {"load_config": json.dumps({"CPU": settings})}
