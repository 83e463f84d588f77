"""Floats of 8 bits, which PyTorch holds but does not compute in."""

from __future__ import annotations

from math import nan

import torch
from torch import Tensor

from accel.graph.torch_graph.dtypes import FLOATS

_E4M3FN_LIMIT = 464.0
"""What rounds to the greatest float8_e4m3fn at most: beyond is no number. PyTorch gives the greatest instead."""


def is_float8(dtype: torch.dtype) -> bool:
    """Whether a type is one of them."""
    return dtype.is_floating_point and dtype.itemsize == 1


def to_float8(x: Tensor, dtype: torch.dtype, *, saturate: bool) -> Tensor:
    """As a float of 8 bits; what is beyond its greatest becomes that one, or, unless ``saturate``, infinite or no number."""
    wide = x if x.dtype in FLOATS else x.float()
    if saturate:
        greatest = torch.finfo(dtype).max
        return wide.clamp(-greatest, greatest).to(dtype)
    if dtype == torch.float8_e4m3fn:
        wide = torch.where(wide.abs() > _E4M3FN_LIMIT, nan, wide)
    return wide.to(dtype)
