"""A training job as the engine's process does it: its checkpoints are told, and it ends when it is asked to."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from pathlib import Path

from accel.context import Tell
from accel.events import Done
from accel.request import TrainRequest
from accel.training.train import train


def train_job(request: TrainRequest, tell: Tell, keep: Callable[[Path], None]) -> Done:
    """Train until it is done, or until SIGTERM asks for what there is.

    Raises:
        AccelError: It cannot be done; the class says why.
    """
    asked = threading.Event()
    before = signal.signal(signal.SIGTERM, lambda *_: asked.set())
    try:
        trained = train(request, tell, on_checkpoint=keep, cancelled=asked.is_set)
    finally:
        signal.signal(signal.SIGTERM, before)
    return Done(report=trained.report, files=trained.files)
