"""Which runtimes this host has."""

from __future__ import annotations

from importlib.util import find_spec

from accel.errors import RuntimeUnavailable
from accel.report import RuntimeSummary
from accel.runtimes import torch
from accel.runtimes.names import DEFAULT
from accel.runtimes.providers import providers


def discover() -> tuple[RuntimeSummary, ...]:
    """Every runtime that is known, those that are of no use here with the reason."""
    return (*_onnxruntime(), *torch.runtimes())


def measured_unasked() -> tuple[str, ...]:
    """The runtimes that are measured where none is named: ONNX Runtime's.

    PyTorch runs a model so that it can be trained, and is slower for most; it is measured where it is named.
    """
    return tuple(found.name for found in _onnxruntime() if found.available)


def unavailable(runtime: str) -> RuntimeUnavailable:
    """The error for a runtime that is not to be had here."""
    found = {other.name: other for other in discover()}
    there = ", ".join(name for name, other in found.items() if other.available)
    reason = found[runtime].reason if runtime in found else "no such runtime is known"
    return RuntimeUnavailable(f"{runtime} cannot be used on this host: {reason}.", hint=f"Here there is: {there}.")


def _onnxruntime() -> tuple[RuntimeSummary, ...]:
    if find_spec("onnxruntime") is None:
        missing = "the package onnxruntime is not installed"
        return (RuntimeSummary(name=DEFAULT, version="", device="CPU", available=False, reason=missing),)
    return tuple(
        RuntimeSummary(
            name=found.runtime,
            version=found.version,
            device=found.device,
            available=not found.reason,
            reason=found.reason,
        )
        for found in providers()
    )
