"""What the processes of a training say to the one that started them: one JSON document a line."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from accel.events import Checkpoint, Failed, Progress
from accel.report.training import EpochPoint
from accel.training.trained import Trained


class EpochEnded(BaseModel):
    """An epoch is over."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    event: Literal["epoch"] = "epoch"
    point: EpochPoint


class Ended(BaseModel):
    """The training is over."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    event: Literal["ended"] = "ended"
    trained: Trained


Said = Progress | Checkpoint | EpochEnded | Ended | Failed
adapter: TypeAdapter[Said] = TypeAdapter(Annotated[Said, Field(discriminator="event")])
