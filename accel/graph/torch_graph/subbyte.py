"""Integers of four and two bits, each of which is held in a byte of its own."""

from __future__ import annotations

import onnx_ir as ir
from torch import Tensor

_BYTE = 8


def fitted(x: Tensor, dtype: ir.DataType) -> Tensor:
    """Integers cut to the bits of a type; what is beyond them is lost, and the highest is the sign of a signed type.

    Args:
        x: Integers in the bytes that hold the type.
        dtype: The type; if it fills its bytes, nothing is cut.
    """
    if dtype.bitwidth >= _BYTE:
        return x
    low = x & ((1 << dtype.bitwidth) - 1)
    sign = 1 << (dtype.bitwidth - 1)
    return (low ^ sign) - sign if x.dtype.is_signed else low
