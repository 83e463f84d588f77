"""Models that are loaded to be run, whatever the framework of their runtime."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.generic]


@dataclass(frozen=True, slots=True)
class Port:
    """One input or output: a dimension is a size, a name, or None where the model does not say."""

    name: str
    dtype: np.dtype[np.generic] | None
    shape: tuple[int | str | None, ...]


class Session(Protocol):
    """A model that is loaded and can be run."""

    @property
    def runtime(self) -> str:
        """Where it is loaded."""

    @property
    def inputs(self) -> tuple[Port, ...]:
        """What it takes."""

    @property
    def outputs(self) -> tuple[Port, ...]:
        """What it gives."""

    def run(self, feed: Mapping[str, Array], outputs: Sequence[str] | None = None) -> dict[str, Array]:
        """Run once.

        Args:
            feed: An array for each input.
            outputs: Names of the outputs that are wanted; all if left out.

        Raises:
            RuntimeFailed: The runtime refused, with its own words.
        """

    def prepared(self, feed: Mapping[str, Array]) -> Callable[[], object]:
        """What runs the model on one feed again and again, with nothing around it that takes time.

        Raises:
            RuntimeFailed: The runtime refuses the feed before it runs.
        """


def open_session(
    path: Path, runtime: str, *, threads: int | None = None, alone: bool = False, exact: bool = False
) -> Session:
    """Load a model.

    Args:
        path: An ONNX file.
        runtime: One of those that :func:`accel.runtimes.discover.discover` finds.
        threads: Threads within one operator; None leaves it to the runtime (one for each core).
        alone: Whether nothing is measured beside it: its threads may then wait for the next call without sleeping.
        exact: Whether a QDQ graph is computed as it is written, in floats.

    Raises:
        RuntimeUnavailable: This host does not have the runtime.
        RuntimeFailed: The runtime refused the model.
    """
    if _is_torch(runtime):
        from accel.runtimes import torch

        return torch.open_session(
            path, runtime, threads=threads
        )  # whose threads sleep, and which rounds as it is written
    from accel.runtimes import onnxruntime

    return onnxruntime.open_session(path, runtime, threads=threads, alone=alone, exact=exact)


def can_run(path: Path, runtime: str) -> str:
    """Whether a runtime can run a model: it is loaded there, and some of it must be computed by the runtime itself.

    Args:
        path: An ONNX file.
        runtime: One of those that :func:`accel.runtimes.discover.discover` finds.

    Returns:
        Why it cannot; empty where it can.
    """
    if _is_torch(runtime):
        from accel.runtimes import torch

        return torch.can_run(path, runtime)
    from accel.runtimes import onnxruntime

    return onnxruntime.can_run(path, runtime)


def _is_torch(runtime: str) -> bool:
    return runtime.startswith("torch:")
