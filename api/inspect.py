"""A look into an uploaded file by the engine, confined, a few at a time."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
import time
from pathlib import Path
from typing import Final

from accel import child
from accel.data.spec import DatasetSpec
from accel.errors import EngineCrashed
from accel.report import DatasetSummary, ModelSummary
from accel.request import DatasetFile, InspectDatasetRequest, InspectModelRequest
from accel.sandbox import Limits
from api.room import Room

_PREFIX: Final = "inspect-"
_FORGOTTEN_AFTER_S: Final = 24 * 3600.0


async def inspect_model(room: Room, path: Path) -> ModelSummary:
    """Check an uploaded model and describe it.

    Raises:
        AccelError: What is wrong with the file.
    """
    async with room.inspecting:
        return await asyncio.to_thread(_inspect_model, room, path)


async def inspect_dataset(room: Room, path: Path, spec: DatasetSpec) -> DatasetSummary:
    """Check an uploaded dataset and describe it.

    Raises:
        AccelError: What is wrong with the file or its spec.
    """
    async with room.inspecting:
        return await asyncio.to_thread(_inspect_dataset, room, path, spec)


def sweep(spool: Path) -> None:
    """Remove the workspaces that a killed process left behind."""
    for folder in spool.glob(_PREFIX + "*"):
        if time.time() - folder.stat().st_mtime > _FORGOTTEN_AFTER_S:
            shutil.rmtree(folder)


def _inspect_model(room: Room, path: Path) -> ModelSummary:
    with tempfile.TemporaryDirectory(prefix=_PREFIX, dir=room.files.spool_dir) as workspace:
        request = InspectModelRequest(model=path.resolve(), workspace=Path(workspace).resolve(), limits=_limits(room))
        done = child.call(request, timeout_s=room.settings.inspect_timeout_s)
    if not isinstance(done.report, ModelSummary):
        raise EngineCrashed(f"The engine answered with {done.report.kind} instead of a description of the model.")
    return done.report


def _inspect_dataset(room: Room, path: Path, spec: DatasetSpec) -> DatasetSummary:
    with tempfile.TemporaryDirectory(prefix=_PREFIX, dir=room.files.spool_dir) as workspace:
        request = InspectDatasetRequest(
            dataset=DatasetFile(path=path.resolve(), spec=spec),
            workspace=Path(workspace).resolve(),
            limits=_limits(room),
        )
        done = child.call(request, timeout_s=room.settings.inspect_timeout_s)
    if not isinstance(done.report, DatasetSummary):
        raise EngineCrashed(f"The engine answered with {done.report.kind} instead of a description of the dataset.")
    return done.report


def _limits(room: Room) -> Limits:
    return Limits(memory_bytes=room.settings.inspect_memory_bytes, file_bytes=1 << 30)
