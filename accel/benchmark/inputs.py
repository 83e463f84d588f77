"""Inputs for a model when there is no data: random, but always the same for a seed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from accel.errors import BindingMismatch
from accel.runtimes.sessions import Port

Array = npt.NDArray[np.generic]


def random_inputs(
    inputs: Sequence[Port],
    *,
    seed: int,
    count: int = 1,
    batch_size: int = 1,
    shapes: Mapping[str, Sequence[int]] | None = None,
) -> tuple[dict[str, Array], ...]:
    """Make inputs: standard normal numbers, small whole numbers, and false.

    Args:
        inputs: The model's inputs.
        seed: Seed of the numbers.
        count: How many sets to make.
        batch_size: Size of a first dimension that the model leaves open; other open dimensions get 1.
        shapes: Shapes of inputs whose open dimensions must be something else.

    Raises:
        BindingMismatch: An input is no tensor of numbers.
    """
    chance = np.random.default_rng(seed)
    given = shapes or {}
    return tuple(
        {port.name: _random(port, chance, given.get(port.name) or _shape(port, batch_size)) for port in inputs}
        for _ in range(count)
    )


def samples_of(inputs: Sequence[Port], feed: Mapping[str, Array]) -> int:
    """How many samples a feed holds: the length of the first input whose first dimension is open, else of the first input."""
    tensors = [port for port in inputs if feed[port.name].ndim]
    leading = next((port for port in tensors if not _is_fixed(port)), next(iter(tensors), None))
    return len(feed[leading.name]) if leading else 1


def _is_fixed(port: Port) -> bool:
    return bool(port.shape) and isinstance(port.shape[0], int) and port.shape[0] > 0


def _shape(port: Port, batch_size: int) -> tuple[int, ...]:
    return tuple(d if isinstance(d, int) and d > 0 else batch_size if i == 0 else 1 for i, d in enumerate(port.shape))


def _random(port: Port, chance: np.random.Generator, shape: Sequence[int]) -> Array:
    if port.dtype is None or port.dtype.kind not in "fiub":
        raise BindingMismatch(
            f"The input {port.name!r} is no tensor of numbers, so that random inputs cannot be made.",
            hint="Give a dataset.",
        )
    if port.dtype.kind == "f":
        return chance.standard_normal(tuple(shape)).astype(port.dtype)
    # Zero and one are indices of every embedding and of every axis.
    return chance.integers(0, 2, tuple(shape)).astype(port.dtype)
