"""Say what is in a file, or what a host has."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from accel.request.values import DatasetFile, Request


class InspectModelRequest(Request):
    """Check an uploaded file and describe the model in it."""

    kind: Literal["inspect_model"] = "inspect_model"
    model: Path


class InspectDatasetRequest(Request):
    """Check an uploaded file and describe the dataset in it."""

    kind: Literal["inspect_dataset"] = "inspect_dataset"
    dataset: DatasetFile


class DescribeHostRequest(Request):
    """Say which runtimes this host has, and how well it can confine the engine."""

    kind: Literal["describe_host"] = "describe_host"
