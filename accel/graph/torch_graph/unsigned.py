"""Unsigned integers of 16, 32 and 64 bits, for which PyTorch has few kernels: computed as int64."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

Compute = Callable[..., Tensor]
"""What PyTorch computes of tensors of one type, and of other arguments that are passed on."""
_LACKING = frozenset({torch.uint16, torch.uint32, torch.uint64})
_SIGN = -(1 << 63)
"""Added to a uint64 that is held in an int64, this lays the upper half above the lower one."""


def wrapping(compute: Compute) -> Compute:
    """Sums and products: what overflows wraps around, so that the same bits come out as of the unsigned type."""

    def run(*given: Any, **options: Any) -> Tensor:
        dtype = given[0].dtype
        if dtype not in _LACKING:
            return compute(*given, **options)
        return compute(*(_wide(value) for value in given), **options).to(dtype)

    return run


def comparing(compute: Compute) -> Compute:
    """What follows from the order of the values, and is none of them."""

    def run(*given: Any, **options: Any) -> Tensor:
        dtype = given[0].dtype
        if dtype not in _LACKING:
            return compute(*given, **options)
        return compute(*(_ordered(value, dtype) for value in given), **options)

    return run


def selecting(compute: Compute) -> Compute:
    """What gives some of the values by their order."""

    def run(*given: Any, **options: Any) -> Tensor:
        dtype = given[0].dtype
        if dtype not in _LACKING:
            return compute(*given, **options)
        found = compute(*(_ordered(value, dtype) for value in given), **options)
        return (found + _SIGN if dtype == torch.uint64 else found).to(dtype)

    return run


def _wide(value: Any) -> Any:
    return value.to(torch.int64) if isinstance(value, Tensor) and value.dtype in _LACKING else value


def _ordered(value: Any, dtype: torch.dtype) -> Any:
    wide = _wide(value)
    return wide + _SIGN if dtype == torch.uint64 and isinstance(value, Tensor) and value.dtype == dtype else wide
