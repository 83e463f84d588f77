"""Activations by the names that ONNX has for them: as operators, and inside of fused and recurrent ones."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812  (as everybody calls it)

Activation = Callable[[Tensor], Tensor]
_SIXTH = 1 / 6
_ROUNDED = 1e-8
"""How far a sixth can be off when a file holds it as a float32."""
_LINEAR = 40.0
"""From here on softplus is its argument, to the last digit of a float64."""


def hard_sigmoid(alpha: float = 0.2, beta: float = 0.5) -> Activation:
    """A line of a slope and a height, cut to 0 and 1."""
    if abs(alpha - _SIXTH) < _ROUNDED and beta == 0.5:  # noqa: PLR2004  (the one that PyTorch has)
        return F.hardsigmoid
    return lambda x: F.hardtanh(x * alpha + beta, 0.0, 1.0)


def swish(alpha: float = 1.0) -> Activation:
    """The argument times its sigmoid at a slope (Ramachandran et al. 2017, arXiv 1710.05941)."""
    return F.silu if alpha == 1 else lambda x: x * torch.sigmoid(x * alpha)


def elu(alpha: float = 1.0) -> Activation:
    """The argument; below zero an exponential that approaches ``-alpha``."""
    return lambda x: F.elu(x, alpha)


def celu(alpha: float = 1.0) -> Activation:
    """The argument; below zero an exponential that approaches ``-alpha`` and begins with the same slope."""
    return lambda x: F.celu(x, alpha)


def selu(alpha: float = 1.67326319217681884765625, gamma: float = 1.05070102214813232421875) -> Activation:
    """``elu`` times a factor (Klambauer et al. 2017, arXiv 1706.02515)."""
    return lambda x: F.elu(x, alpha) * gamma


def leaky_relu(alpha: float = 0.01) -> Activation:
    """The argument; below zero it is scaled."""
    return lambda x: F.leaky_relu(x, alpha)


def thresholded_relu(alpha: float = 1.0) -> Activation:
    """The argument where it is above a threshold, or else zero."""
    return lambda x: F.threshold(x, alpha, 0.0)


def affine(alpha: float = 1.0, beta: float = 0.0) -> Activation:
    """A line of a slope and a height."""
    return lambda x: x * alpha + beta


def scaled_tanh(alpha: float = 1.0, beta: float = 1.0) -> Activation:
    """``alpha * tanh(beta * x)``."""
    return lambda x: alpha * torch.tanh(beta * x)


ACTIVATIONS: dict[str, Callable[..., Activation]] = {
    "Affine": affine,
    "Celu": celu,
    "Elu": elu,
    "HardSigmoid": hard_sigmoid,
    "HardSwish": lambda: F.hardswish,
    "LeakyRelu": leaky_relu,
    "Mish": lambda: F.mish,
    "Relu": lambda: torch.relu,
    "ScaledTanh": scaled_tanh,
    "Selu": selu,
    "Sigmoid": lambda: torch.sigmoid,
    "Softplus": lambda: lambda x: F.softplus(x, threshold=_LINEAR),
    "Softsign": lambda: F.softsign,
    "Swish": swish,
    "Tanh": lambda: torch.tanh,
    "ThresholdedRelu": thresholded_relu,
}
"""Each is given what it takes of ``alpha``, ``beta`` and ``gamma`` by name; what is left out has ONNX's default."""
