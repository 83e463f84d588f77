"""Functions of one variable: roots, exponentials, rounding, angles."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from accel.graph.torch_graph.native import native


def _erf(x: Tensor) -> Tensor:
    """The error function, in the type that is given: of integers, what is left when it is cut to an integer."""
    return torch.erf(x).to(x.dtype)


class _Root(torch.autograd.Function):
    """The square root, whose gradient at zero is zero, as that of PyTorch's own norms is.

    It would be infinite, and not a number once it is multiplied by the zero that a magnitude of nothing has: silence, or the
    padding behind a clip, would end a training.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        """The root."""
        root = torch.sqrt(x)
        ctx.save_for_backward(root)
        return root

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        """The gradient by twice the root."""
        (root,) = ctx.saved_tensors
        return torch.where(root == 0, 0, gradient / (2 * root))


def _sqrt(x: Tensor) -> Tensor:
    if not x.requires_grad:
        return torch.sqrt(x)
    root: Tensor = _Root.apply(x)  # type: ignore[no-untyped-call]
    return root


native(
    {
        "Sqrt": _sqrt,
        "Exp": torch.exp,
        "Log": torch.log,
        "Erf": _erf,
        "Floor": torch.floor,
        "Ceil": torch.ceil,
        "Round": torch.round,  # half to even, as ONNX has it
        "Sin": torch.sin,
        "Cos": torch.cos,
        "Tan": torch.tan,
        "Asin": torch.asin,
        "Acos": torch.acos,
        "Atan": torch.atan,
        "Sinh": torch.sinh,
        "Cosh": torch.cosh,
        "Asinh": torch.asinh,
        "Acosh": torch.acosh,
        "Atanh": torch.atanh,
    }
)
