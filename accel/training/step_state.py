"""What changes with every step: weights, their mean, what the optimiser keeps, the schedule, the scale of the loss."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import Tensor
from torch.optim import Optimizer

from accel.training import checkpoint
from accel.training.averaging import Average
from accel.training.checkpoint import Checkpoint, Header
from accel.training.fit import Fit
from accel.training.learner import State
from accel.training.schedules import Course


class StepState:
    """Takes steps, and can be kept and put back."""

    def __init__(self, training: Fit, course: Course) -> None:
        """Make optimiser and schedule, and set all up for the devices.

        Args:
            training: What is trained.
            course: How many steps there are.
        """
        self._learner = training.learner
        self._native: Optimizer = training.optimizer.build(self._learner.groups(training.optimizer.weight_decay))
        self._schedule = training.schedule.build(self._native, course)
        self._fabric = training.devices.native
        self.model, self._optimizer = self._fabric.setup(self._learner, self._native)
        decay = training.settings.ema_decay
        self.average = None if decay is None else Average(self._learner, decay)

    @property
    def learning_rate(self) -> float:
        """Of the next step."""
        return float(self._native.param_groups[0]["lr"])

    def clip(self, most: float) -> float:
        """Shorten gradients whose norm together is larger; what the norm was."""
        norm = self._fabric.clip_gradients(self.model, self._optimizer, max_norm=most, error_if_nonfinite=False)
        return 0.0 if norm is None else float(norm)

    def step(self, after: Callable[[], None]) -> None:
        """Take a step by the gradients; ``after`` may mend the weights before their mean takes them in."""
        self._optimizer.step()
        self._optimizer.zero_grad()
        self._schedule.by_step.step()
        after()
        if self.average is not None:
            self.average.update()

    def end_epoch(self, loss: float) -> None:
        """Tell the schedule the loss of an epoch."""
        if self._schedule.by_epoch is not None:
            self._schedule.by_epoch.step(loss)

    def current(self) -> State:
        """The weights as they are, or their mean where there is one, copied."""
        return self._learner.weights() if self.average is None or not self.average.begun else self.average.weights()

    def write(self, path: Path, head: Header, best: State) -> None:
        """Write all of it into one file.

        Raises:
            OSError: There is no space for it.
        """
        said, tensors = _taken(self._native)
        schedule = [self._schedule.by_step.state_dict()]
        if self._schedule.by_epoch is not None:
            schedule.append(self._schedule.by_epoch.state_dict())
        whole = head.model_copy(
            update={
                "optimizer": said,
                "schedule": json.dumps(schedule),
                "scaler": json.dumps(self._fabric.strategy.precision.state_dict()),
            }
        )
        parts = {"weights": self._learner.whole(), "optimizer": tensors, "best": best}
        if self.average is not None:
            parts["average"] = self.average.state()
        checkpoint.write(path, whole, parts)

    def load(self, kept: Checkpoint) -> None:
        """Put all of it back."""
        self._learner.load_whole(kept.part("weights"))
        if self.average is not None:
            self.average.load(kept.part("average"))
        _put_back(self._native, kept.header.optimizer, kept.part("optimizer"))
        first, *others = json.loads(kept.header.schedule)
        self._schedule.by_step.load_state_dict(first)
        if self._schedule.by_epoch is not None:
            self._schedule.by_epoch.load_state_dict(others[0])
        self._fabric.strategy.precision.load_state_dict(json.loads(kept.header.scaler))


def _taken(optimizer: Optimizer) -> tuple[str, dict[str, Tensor]]:
    """What an optimiser keeps: numbers as JSON, and tensors by the parameter's number and their name."""
    state = optimizer.state_dict()
    tensors: dict[str, Tensor] = {}
    numbers: dict[str, dict[str, Any]] = {}
    for place, held in state["state"].items():
        for name, value in held.items():
            if isinstance(value, Tensor):
                tensors[f"{place}.{name}"] = value
            else:
                numbers.setdefault(str(place), {})[name] = value
    return json.dumps({"state": numbers, "groups": state["param_groups"]}), tensors


def _put_back(optimizer: Optimizer, said: str, tensors: dict[str, Tensor]) -> None:
    read = json.loads(said)
    state: dict[int, dict[str, Any]] = {int(place): dict(held) for place, held in read["state"].items()}
    for key, held in tensors.items():
        place, _, name = key.partition(".")
        state.setdefault(int(place), {})[name] = held
    optimizer.load_state_dict({"state": state, "param_groups": read["groups"]})
