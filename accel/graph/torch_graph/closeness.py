"""How far apart two results are that should be one, and how far they may be."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
from torch import Tensor

from accel.graph.torch_graph.dtypes import to_array
from accel.graph.torch_graph.node import Value

Array = npt.NDArray[np.generic]
_D = ir.DataType

FLOAT32, FLOAT16, BFLOAT16 = 1e-4, 5e-3, 4e-2
"""Shares of the largest value. Sums are added up in another order; and of float16 graphs ONNX Runtime computes much in
float32, while PyTorch keeps to the type that each value has."""
ROUNDED = 2e-2
"""Share of the largest value in a graph that rounds to integers: a value on the edge between two of them may fall to the other
one, and what follows from it is off by what a step is worth."""
EDGES = 1e-2
"""Share of the elements that may fall to the other integer where one node rounds."""
_LEAST_SCALE = 1e-2
"""What is smaller is compared as if this were its largest value: what should be zero never quite is."""
_ROUNDING = frozenset({
    "QuantizeLinear", "DynamicQuantizeLinear", "QLinearConv", "QLinearMatMul", "QLinearAdd", "QLinearMul", "QGemm",
})  # fmt: skip


def tolerance(model: ir.Model) -> float:
    """How far the outputs of a graph may differ, as a share of their largest value."""
    if any(node.op_type in _ROUNDING for node in model.graph.all_nodes()):
        return ROUNDED
    values = [*model.graph.inputs, *model.graph.outputs, *model.graph.initializers.values()]
    values += [value for node in model.graph.all_nodes() for value in node.outputs]
    return max((tolerance_of(value.dtype) for value in values), default=FLOAT32)


def tolerance_of(dtype: ir.DataType | None) -> float:
    """How far values of a type may differ, as a share of the largest one."""
    if dtype is None or not dtype.is_floating_point():
        return FLOAT32
    if dtype == _D.FLOAT16:
        return FLOAT16
    return BFLOAT16 if dtype == _D.BFLOAT16 or dtype.itemsize == 1 else FLOAT32


def apart(expected: Array, found: Value) -> float:
    """The largest difference, as a share of the largest value that is expected.

    Args:
        expected: Numbers of any type.
        found: What should be the same.

    Returns:
        Of integers and booleans the share of the elements that differ; infinite where shapes differ, or one of two numbers is
        not finite.
    """
    values = to_array(found) if isinstance(found, Tensor) else None
    if values is None or values.shape != expected.shape:
        return np.inf
    if not expected.size:
        return 0.0
    if expected.dtype.kind in "biu":
        return float(np.mean(values != expected))
    finite = np.isfinite(expected)
    same = np.array_equal(finite, np.isfinite(values))
    if not same or not np.array_equal(expected[~finite], values[~finite], equal_nan=True):
        return np.inf
    difference = np.abs(_wide(expected[finite]) - _wide(values[finite])).max(initial=0)
    return float(difference) / max(float(np.abs(expected[finite]).max(initial=0)), _LEAST_SCALE)


def rounded_apart(expected: Array, found: Value, step: float) -> float:
    """The share of the elements that two runs of a node rounded to different multiples of a step.

    Returns:
        Infinite where shapes differ, or two results differ by more than a step.
    """
    values = to_array(found) if isinstance(found, Tensor) else None
    if values is None or values.shape != expected.shape:
        return np.inf
    difference = np.abs(_wide(expected) - _wide(values))
    if (difference > 1.01 * step).any():
        return np.inf
    return float(np.mean(difference > step / 2)) if expected.size else 0.0


def _wide(array: Array) -> npt.NDArray[np.float64 | np.complex128]:
    return array.astype(np.complex128 if array.dtype.kind == "c" else np.float64)
