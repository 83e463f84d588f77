"""One training: what it is made of, and how it ended."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from accel.context import Tell
from accel.errors import TrainingFailed
from accel.graph.torch_graph.node import Value
from accel.report.training import EpochPoint, StopReason, Target
from accel.training.batches import Batch, Stream
from accel.training.checkpoint import Header
from accel.training.fabric import Devices
from accel.training.judging import Judge
from accel.training.learner import Learner
from accel.training.optimizers import Optimizer
from accel.training.schedules import Schedule
from accel.training.settings import TrainingSettings


class Aim(Protocol):
    """What a batch is pulled towards."""

    def total(self, values: dict[str, Value], batch: Batch, device: torch.device) -> Tensor:
        """The sum of the losses of a batch's samples."""


@dataclass(frozen=True, slots=True)
class Saving:
    """Where the state is kept, and how often within an epoch."""

    path: Path
    every_seconds: float = 60.0


@dataclass(slots=True)
class Hooks:
    """What others do within a training."""

    tell: Tell = lambda *_: None
    """Called with the steps that are done."""
    on_epoch: Callable[[EpochPoint], None] = lambda _: None
    on_checkpoint: Callable[[Path], None] = lambda _: None
    """Called when a state is whole in its file; the next one is written to another file, and renamed over it."""
    after_step: Callable[[], None] = lambda: None
    """Called when weights were changed, such as to put zeros back that a mask holds."""
    cancelled: Callable[[], bool] = lambda: False
    """Asked between steps."""
    clock: Callable[[], float] = time.monotonic


@dataclass(slots=True)
class Fit:
    """One training: everything that it is made of."""

    learner: Learner
    aim: Aim
    stream: Stream
    judge: Judge | None
    devices: Devices
    settings: TrainingSettings
    optimizer: Optimizer
    schedule: Schedule
    of: dict[str, str] = field(default_factory=dict)
    """What tells this training from others: a checkpoint of another is refused."""
    target: Target | None = None
    saving: Saving | None = None
    hooks: Hooks = field(default_factory=Hooks)


@dataclass(frozen=True, slots=True)
class Fitted:
    """How a training ended; the learner has the weights of the result."""

    header: Header
    stopped_because: StopReason


class Diverged(TrainingFailed):
    """The loss became no finite number."""

    def __init__(self, message: str, *, hint: str = "", best: bool = False) -> None:
        super().__init__(message, hint=hint)
        self.best = best
        """Whether the learner has weights of before that are better than those at the beginning."""
