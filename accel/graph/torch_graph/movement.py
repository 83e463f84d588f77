"""Moving values of types that PyTorch holds but has few kernels for: their bits move as integers of the same size."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

Move = Callable[..., Tensor]
"""Puts values of tensors elsewhere, and computes nothing of them but zeros."""
_BITS = {
    torch.uint16: torch.int16,
    torch.uint32: torch.int32,
    torch.uint64: torch.int64,
    torch.float8_e4m3fn: torch.uint8,
    torch.float8_e4m3fnuz: torch.uint8,
    torch.float8_e5m2: torch.uint8,
    torch.float8_e5m2fnuz: torch.uint8,
}


def moving(move: Move) -> Move:
    """What moves values, for every type of the first tensor; others of that type move with it."""

    def run(x: Tensor, *given: Any) -> Tensor:
        bits = _BITS.get(x.dtype)
        if bits is None:
            return move(x, *given)
        others = (
            value.view(bits) if isinstance(value, Tensor) and value.dtype == x.dtype else value for value in given
        )
        return move(x.view(bits), *others).view(x.dtype)

    return run
