"""Which runtimes this host has."""

from __future__ import annotations

from importlib.util import find_spec

from accel.report import RuntimeSummary
from accel.runtimes import torch
from accel.runtimes.names import DEFAULT
from accel.runtimes.providers import providers


def discover() -> tuple[RuntimeSummary, ...]:
    """Every runtime that is known, those that are of no use here with the reason."""
    return (*_onnxruntime(), *torch.runtimes())


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
