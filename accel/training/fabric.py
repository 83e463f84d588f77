"""Devices, precision and processes: Lightning Fabric, set up as the settings say."""

from __future__ import annotations

import logging
import os
from typing import Any, Literal

import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins.precision import MixedPrecision, Precision
from lightning_fabric.strategies.ddp import DDPStrategy
from torch import Tensor

from accel.benchmark.environment import usable_cores
from accel.errors import RuntimeUnavailable
from accel.training.batches import Part
from accel.training.settings import TrainingSettings

_MIXED: dict[str, Literal["16-mixed", "bf16-mixed"]] = {"bfloat16": "bf16-mixed", "float16": "16-mixed"}


class Devices:
    """What a training runs on, and the processes that it shares its batches with."""

    def __init__(self, settings: TrainingSettings, *, branches: bool = False) -> None:
        """Set up devices, precision and threads, and join the other processes where torchrun started this one.

        Args:
            settings: How it is trained.
            branches: Whether the graph has branches, so that not every step reaches every weight.

        Raises:
            RuntimeUnavailable: There is no CUDA where it is asked for.
        """
        if settings.device == "cuda" and not torch.cuda.is_available():
            raise RuntimeUnavailable(
                "The training asks for the device cuda, and this host has none.",
                hint="Set device to cpu, or let a worker with a GPU do it.",
            )
        logging.getLogger("lightning_fabric").setLevel(logging.ERROR)  # it tells what is told here already
        self.local = Part(_number("LOCAL_RANK", 0), _number("LOCAL_WORLD_SIZE", 1))
        together = torch.distributed.is_torchelastic_launched()
        threads = settings.threads or max(1, usable_cores() // self.local.of)
        torch.set_num_threads(threads)
        strategy = (
            DDPStrategy(
                process_group_backend="nccl" if settings.device == "cuda" else "gloo",
                find_unused_parameters=branches,
            )
            if together
            else "auto"
        )
        self.native = Fabric(
            accelerator=settings.device,
            devices=self.local.of if together else 1,
            num_nodes=_number("WORLD_SIZE", 1) // self.local.of,
            strategy=strategy,
            plugins=[_precision(settings)],
        )
        self.native.launch()
        self.part = Part(self.native.global_rank, self.native.world_size)

    @property
    def device(self) -> torch.device:
        """Where tensors go."""
        return self.native.device

    @property
    def tells(self) -> bool:
        """Whether this process is the one of its host that speaks and writes."""
        return self.local.rank == 0

    def gather(self, tensor: Tensor) -> list[Tensor]:
        """A tensor of every process, in order of their rank; all of one shape."""
        if self.part.of == 1:
            return [tensor]
        own = tensor.to(self.device)
        found = [torch.empty_like(own) for _ in range(self.part.of)]
        torch.distributed.all_gather(found, own)
        return [held.cpu() for held in found]

    def mean(self, tensor: Tensor) -> Tensor:
        """The mean of a tensor over all processes."""
        if self.part.of == 1:
            return tensor
        found = self.native.all_reduce(tensor, reduce_op="mean")
        if not isinstance(found, Tensor):
            raise TypeError("one tensor is averaged at a time")
        return found

    def add_up(self, numbers: list[float]) -> list[float]:
        """The sums over all processes."""
        if self.part.of == 1:
            return numbers
        found = self.native.all_reduce(torch.tensor(numbers, dtype=torch.float64, device=self.device), reduce_op="sum")
        return [float(number) for number in found.cpu()] if isinstance(found, Tensor) else numbers

    def seed(self, of: int) -> None:
        """Set the state of PyTorch's own chance."""
        # torch.manual_seed asks after every kind of device there is, which takes longer than a small step.
        torch.default_generator.manual_seed(of)
        if self.device.type == "cuda":
            torch.cuda.manual_seed(of)


class _Mixed(MixedPrecision):
    """Layers in half precision; inputs stay as they are, since a graph may begin with arithmetic that needs all digits."""

    def convert_input(self, data: Any) -> Any:
        """The inputs."""
        return data


def _precision(settings: TrainingSettings) -> Precision:
    mixed = _MIXED.get(settings.precision)
    return Precision() if mixed is None else _Mixed(mixed, settings.device)


def _number(name: str, default: int) -> int:
    return int(os.environ.get(name, default))
