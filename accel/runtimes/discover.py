"""Which runtimes this host has."""

from __future__ import annotations

from accel.benchmark.environment import installed
from accel.report import RuntimeSummary
from accel.runtimes import openvino


def discover() -> tuple[RuntimeSummary, ...]:
    """Every runtime that is known, those that are of no use here with the reason."""
    ort_version = installed("onnxruntime")
    if ort_version is None:
        missing = "the package onnxruntime is not installed"
        return tuple(
            RuntimeSummary(name=name, version="", device="CPU", available=False, reason=missing)
            for name in ("onnxruntime:cpu", "onnxruntime:openvino")
        )
    devices, reason = openvino.devices()
    return (
        RuntimeSummary(name="onnxruntime:cpu", version=ort_version, device="CPU", available=True),
        RuntimeSummary(
            name="onnxruntime:openvino",
            version=installed("onnxruntime-ep-openvino") or "",
            device="CPU",
            available=bool(devices),
            reason=reason,
        ),
    )
