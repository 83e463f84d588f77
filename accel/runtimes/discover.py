"""Which runtimes this host has."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

from accel.report import RuntimeSummary
from accel.runtimes.onnxruntime import openvino_devices


def discover() -> tuple[RuntimeSummary, ...]:
    """Every runtime that is known, those that are of no use here with the reason."""
    ort_version = _version("onnxruntime")
    if ort_version is None:
        missing = "the package onnxruntime is not installed"
        return tuple(
            RuntimeSummary(name=name, version="", device="CPU", available=False, reason=missing)
            for name in ("onnxruntime:cpu", "onnxruntime:openvino")
        )
    devices, reason = openvino_devices()
    return (
        RuntimeSummary(name="onnxruntime:cpu", version=ort_version, device="CPU", available=True),
        RuntimeSummary(
            name="onnxruntime:openvino",
            version=_version("onnxruntime-ep-openvino") or "",
            device="CPU",
            available=bool(devices),
            reason=reason,
        ),
    )


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
