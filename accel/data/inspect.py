"""What is in a dataset."""

from __future__ import annotations

from pathlib import Path

from accel.data.dataset import open_dataset
from accel.data.spec import DatasetSpec
from accel.report import DatasetSummary


def inspect_file(path: Path, spec: DatasetSpec, workspace: Path) -> DatasetSummary:
    """Check an uploaded file and describe the dataset in it (see :func:`accel.data.dataset.open_dataset`)."""
    return open_dataset(path, spec, workspace).summary
