"""How the learning rate changes while a model is trained. Each is PyTorch's own scheduler; warm-up is chained before it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, model_validator

if TYPE_CHECKING:
    from torch.optim import Optimizer
    from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

_WARM_START = 0.01
"""Share of the learning rate that warm-up begins with; PyTorch's schedulers take no 0."""


@dataclass(frozen=True, slots=True)
class Course:
    """How many steps a training has."""

    steps_per_epoch: int
    epochs: int

    @property
    def steps(self) -> int:
        """All of them."""
        return self.steps_per_epoch * self.epochs


@dataclass(slots=True)
class Scheduler:
    """A schedule at work: one part goes on with each step, the other with each epoch's validation loss."""

    by_step: LRScheduler
    by_epoch: ReduceLROnPlateau | None = None


class _Schedule(BaseModel, ABC):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    warmup: Annotated[int, Field(ge=0)] | Annotated[float, Field(ge=0, lt=1)] = Field(
        0,
        description="Steps in which the learning rate grows to its size; below 1, a share of all steps.",
        examples=[500, 0.05],
        union_mode="left_to_right",
    )

    def warmup_steps(self, course: Course) -> int:
        """Steps of the warm-up, fewer than there are in all."""
        wanted = self.warmup if self.warmup >= 1 else round(self.warmup * course.steps)
        return min(int(wanted), course.steps - 1)

    def build(self, optimizer: Optimizer, course: Course) -> Scheduler:
        """The schedule of an optimiser over the steps that there are.

        Each call of ``by_step.step()`` ends a step, and of ``by_epoch.step(loss)`` an epoch.
        """
        from torch.optim.lr_scheduler import LinearLR, SequentialLR

        warm = self.warmup_steps(course)
        after = course.steps - warm
        if not warm:
            return Scheduler(self._main(optimizer, after, course.steps_per_epoch), self._plateau(optimizer))
        parts = [
            LinearLR(optimizer, _WARM_START, 1.0, total_iters=warm),
            self._main(optimizer, after, course.steps_per_epoch),
        ]
        return Scheduler(SequentialLR(optimizer, parts, milestones=[warm]), self._plateau(optimizer))

    @abstractmethod
    def _main(self, optimizer: Optimizer, steps: int, steps_per_epoch: int) -> LRScheduler:
        """The part after the warm-up, of so many steps."""

    def _plateau(self, optimizer: Optimizer) -> ReduceLROnPlateau | None:
        """The part that follows the validation loss, if there is one."""
        return None


class Constant(_Schedule):
    """The same learning rate all the time."""

    schedule: Literal["constant"] = "constant"

    def _main(self, optimizer: Optimizer, steps: int, steps_per_epoch: int) -> LRScheduler:
        return _same(optimizer)


class Linear(_Schedule):
    """Down to 0 in a straight line: at step t of T, the learning rate times 1 - t/T."""

    schedule: Literal["linear"] = "linear"

    end: float = Field(0.0, ge=0, le=1, description="Share of the learning rate that is left at the end.")

    def _main(self, optimizer: Optimizer, steps: int, steps_per_epoch: int) -> LRScheduler:
        from torch.optim.lr_scheduler import LinearLR

        return LinearLR(optimizer, 1.0, self.end, total_iters=steps)


class Step(_Schedule):
    """Smaller by a factor every so many epochs."""

    schedule: Literal["step"] = "step"

    every_epochs: int = Field(10, ge=1, description="Epochs between two changes.")
    factor: float = Field(0.1, gt=0, lt=1, description="What the learning rate is multiplied by.")

    def _main(self, optimizer: Optimizer, steps: int, steps_per_epoch: int) -> LRScheduler:
        from torch.optim.lr_scheduler import StepLR

        return StepLR(optimizer, step_size=self.every_epochs * steps_per_epoch, gamma=self.factor)


class Exponential(_Schedule):
    """Smaller with every step, by a factor in each epoch."""

    schedule: Literal["exponential"] = "exponential"

    factor: float = Field(0.95, gt=0, lt=1, description="What the learning rate is multiplied by in an epoch.")

    def _main(self, optimizer: Optimizer, steps: int, steps_per_epoch: int) -> LRScheduler:
        from torch.optim.lr_scheduler import ExponentialLR

        return ExponentialLR(optimizer, gamma=self.factor ** (1 / steps_per_epoch))


class Cosine(_Schedule):
    """Down along half a cosine (Loshchilov and Hutter 2017)."""

    schedule: Literal["cosine"] = "cosine"

    end: float = Field(0.0, ge=0, le=1, description="Share of the learning rate that is left at the end.")

    def _main(self, optimizer: Optimizer, steps: int, steps_per_epoch: int) -> LRScheduler:
        from torch.optim.lr_scheduler import CosineAnnealingLR

        least = self.end * optimizer.param_groups[0].get("initial_lr", optimizer.param_groups[0]["lr"])
        return CosineAnnealingLR(optimizer, T_max=steps, eta_min=least)


class OneCycle(_Schedule):
    """Up and down once: to the learning rate and then to almost nothing, the momentum the other way (Smith and Topin 2018)."""

    schedule: Literal["one_cycle"] = "one_cycle"

    rise: float = Field(0.3, gt=0, lt=1, description="Share of the steps in which the learning rate grows.")
    start: float = Field(0.04, gt=0, le=1, description="Share of the learning rate that the cycle begins with.")
    end: float = Field(1e-4, gt=0, le=1, description="Share of the learning rate's start that is left at the end.")

    @model_validator(mode="after")
    def _warms_up_itself(self) -> OneCycle:
        if self.warmup:
            raise ValueError(
                "one_cycle begins with a warm-up of its own: set its length by `rise`, and leave `warmup` out"
            )
        return self

    def _main(self, optimizer: Optimizer, steps: int, steps_per_epoch: int) -> LRScheduler:
        from torch.optim.lr_scheduler import OneCycleLR

        moving = any("momentum" in group or "betas" in group for group in optimizer.param_groups)
        has_momentum = moving and all(group.get("momentum", 1) for group in optimizer.param_groups)
        return OneCycleLR(
            optimizer,
            max_lr=[group["lr"] for group in optimizer.param_groups],
            total_steps=steps,
            pct_start=self.rise,
            div_factor=1 / self.start,
            final_div_factor=1 / self.end,
            cycle_momentum=has_momentum,
        )


class Plateau(_Schedule):
    """Smaller by a factor when the validation loss has not fallen for some epochs."""

    schedule: Literal["plateau"] = "plateau"

    factor: float = Field(0.5, gt=0, lt=1, description="What the learning rate is multiplied by.")
    patience: int = Field(3, ge=0, description="Epochs without a better loss that are waited for.")
    min_delta: float = Field(1e-4, ge=0, description="How much lower a loss must be to count as better.")

    def _main(self, optimizer: Optimizer, steps: int, steps_per_epoch: int) -> LRScheduler:
        return _same(optimizer)

    def _plateau(self, optimizer: Optimizer) -> ReduceLROnPlateau:
        from torch.optim.lr_scheduler import ReduceLROnPlateau

        return ReduceLROnPlateau(
            optimizer,
            mode="min",
            factor=self.factor,
            patience=self.patience,
            threshold=self.min_delta,
            threshold_mode="abs",
        )


def _same(optimizer: Optimizer) -> LRScheduler:
    from torch.optim.lr_scheduler import ConstantLR

    return ConstantLR(optimizer, factor=1.0, total_iters=0)


Schedule = Annotated[
    Constant | Linear | Step | Exponential | Cosine | OneCycle | Plateau,
    Field(discriminator="schedule"),
]
adapter: TypeAdapter[Constant | Linear | Step | Exponential | Cosine | OneCycle | Plateau] = TypeAdapter(Schedule)
