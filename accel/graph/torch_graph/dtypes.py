"""Element types of ONNX in PyTorch."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import torch
from torch import Tensor

_D = ir.DataType
TORCH: dict[ir.DataType, torch.dtype] = {
    _D.FLOAT: torch.float32,
    _D.DOUBLE: torch.float64,
    _D.FLOAT16: torch.float16,
    _D.BFLOAT16: torch.bfloat16,
    _D.INT8: torch.int8,
    _D.INT16: torch.int16,
    _D.INT32: torch.int32,
    _D.INT64: torch.int64,
    _D.UINT8: torch.uint8,
    _D.UINT16: torch.uint16,
    _D.UINT32: torch.uint32,
    _D.UINT64: torch.uint64,
    _D.BOOL: torch.bool,
    _D.COMPLEX64: torch.complex64,
    _D.COMPLEX128: torch.complex128,
    _D.FLOAT8E4M3FN: torch.float8_e4m3fn,
    _D.FLOAT8E4M3FNUZ: torch.float8_e4m3fnuz,
    _D.FLOAT8E5M2: torch.float8_e5m2,
    _D.FLOAT8E5M2FNUZ: torch.float8_e5m2fnuz,
    # PyTorch has no arithmetic for these: each value takes a byte of its own.
    _D.INT4: torch.int8,
    _D.UINT4: torch.uint8,
    _D.INT2: torch.int8,
    _D.UINT2: torch.uint8,
}
"""What a value of each ONNX type is held in."""

FLOATS = frozenset({torch.float32, torch.float64, torch.float16, torch.bfloat16})
"""Types that gradients are computed in."""


def to_torch(constant: ir.TensorProtocol) -> Tensor:
    """A constant of the graph as a tensor of its own.

    Raises:
        TypeError: PyTorch has no such type; the message names it.
    """
    dtype = torch_dtype(constant.dtype)
    array = constant.numpy()
    if constant.dtype == _D.BFLOAT16 or (dtype.is_floating_point and dtype.itemsize == 1):
        # NumPy knows these types only by ml_dtypes, which PyTorch does not; the bytes are the same.
        raw = np.ascontiguousarray(array).view(np.uint16 if dtype.itemsize == 2 else np.uint8)  # noqa: PLR2004  (bytes)
        return torch.from_numpy(raw.copy()).view(dtype).reshape(array.shape)
    if constant.dtype in {_D.INT4, _D.INT2}:
        array = array.astype(np.int8)
    elif constant.dtype in {_D.UINT4, _D.UINT2}:
        array = array.astype(np.uint8)
    return torch.from_numpy(np.array(array))


def to_array(tensor: Tensor) -> np.ndarray:
    """A tensor as NumPy holds it; floats of types that NumPy does not know as float32."""
    plain = tensor.detach().cpu()
    unknown = plain.dtype == torch.bfloat16 or (plain.dtype.is_floating_point and plain.dtype.itemsize == 1)
    array: np.ndarray = (plain.float() if unknown else plain).numpy()
    return array


def to_constant(tensor: Tensor, dtype: ir.DataType, name: str | None) -> ir.TensorProtocol:
    """A tensor as a constant of the graph, of the type that it has there."""
    plain = tensor.detach().cpu().contiguous()
    if dtype == _D.BFLOAT16 or (plain.dtype.is_floating_point and plain.dtype.itemsize == 1):
        raw = plain.view(torch.uint16 if plain.dtype.itemsize == 2 else torch.uint8).numpy()  # noqa: PLR2004  (bytes)
        return ir.Tensor(raw.copy().view(dtype.numpy()), dtype=dtype, name=name)
    return ir.Tensor(plain.numpy().astype(dtype.numpy()), dtype=dtype, name=name)


def torch_dtype(dtype: ir.DataType) -> torch.dtype:
    """What PyTorch calls an element type.

    Raises:
        TypeError: It has none; the message names the type.
    """
    found = TORCH.get(dtype)
    if found is None:
        raise TypeError(f"PyTorch has no element type for {dtype.name}")
    return found
