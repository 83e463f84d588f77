"""What the weights of a new network are before training."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Initial = Callable[[np.random.Generator, tuple[int, ...]], Floats]
"""Draws a weight of a shape."""

RELU_GAIN = math.sqrt(2)
"""A rectifier halves the mean square of what passes, so that the weights before it are larger by this factor."""


def normal(deviation: float) -> Initial:
    """Numbers drawn around zero with a standard deviation."""
    return lambda chance, shape: chance.standard_normal(shape, np.float32) * np.float32(deviation)


def he(fan_in: int, gain: float = RELU_GAIN) -> Initial:
    """For a layer before a rectifier: what goes forward keeps its variance.

    Args:
        fan_in: Inputs that each output is summed over.
        gain: 1 where no activation follows.

    Source: He et al., "Delving Deep into Rectifiers", ICCV 2015.
    """
    return normal(gain / math.sqrt(fan_in))


def glorot(fan_in: int, fan_out: int) -> Initial:
    """For a layer without a rectifier: a middle between keeping the variance forward and of gradients backward.

    Source: Glorot and Bengio, "Understanding the difficulty of training deep feedforward neural networks", AISTATS 2010.
    """
    limit = math.sqrt(6 / (fan_in + fan_out))
    return lambda chance, shape: (chance.random(shape, np.float32) * 2 - 1) * np.float32(limit)


def orthogonal(chance: np.random.Generator, shape: tuple[int, ...]) -> Floats:
    """Square matrices [..., size, size] that keep lengths, so that what is repeated many times neither grows nor vanishes.

    Source: Saxe, McClelland and Ganguli, "Exact solutions to the nonlinear dynamics of learning in deep linear neural
    networks", ICLR 2014.
    """
    matrices, corners = np.linalg.qr(chance.standard_normal(shape))
    signs = np.sign(np.diagonal(corners, axis1=-2, axis2=-1))  # without them the draw is not uniform over rotations
    drawn: Floats = (matrices * signs[..., None, :]).astype(np.float32)
    return drawn


def filled(value: float) -> Initial:
    """The same number everywhere."""
    return lambda _, shape: np.full(shape, value, np.float32)
