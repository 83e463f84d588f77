"""Functions of one variable: roots, exponentials, rounding, angles."""

from __future__ import annotations

import torch
from torch import Tensor

from accel.graph.torch_graph.native import native


def _erf(x: Tensor) -> Tensor:
    """The error function, in the type that is given: of integers, what is left when it is cut to an integer."""
    return torch.erf(x).to(x.dtype)


native(
    {
        "Sqrt": torch.sqrt,
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
