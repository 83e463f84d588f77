"""OpenVINO, as a plug-in of ONNX Runtime: what is peculiar to it."""

from __future__ import annotations

import json

PROVIDER = "OpenVINOExecutionProvider"

MISSING = "the package onnxruntime-ep-openvino is not installed"
NO_DEVICE = (
    "the OpenVINO plug-in is installed but offers no device here; it leaves out CPUs of other makers than Intel "
    "(microsoft/onnxruntime pull request 31981)"
)


def options(device: str, threads: int | None) -> dict[str, str]:
    """Options of the provider for a kind of device and so many threads.

    It takes every core whatever ``intra_op_num_threads`` says, and computes fp32 files in bf16 by itself where the CPU
    can, at a loss of accuracy: both are set here, so that what runs is what was asked for.
    """
    settings = {"INFERENCE_PRECISION_HINT": "f32"}
    if threads is not None and device == "CPU":
        settings["INFERENCE_NUM_THREADS"] = str(threads)
    return {"load_config": json.dumps({device: settings})}
