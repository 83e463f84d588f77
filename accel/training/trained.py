"""What a training job gives."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

from accel.events import ResultFile
from accel.report.training import TrainReport


class Trained(BaseModel):
    """What a training job gives: its report, and the model's file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    report: TrainReport
    files: tuple[ResultFile, ...]
