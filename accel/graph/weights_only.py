"""Store weights as integers; what multiplies them computes as before.

There are three ways back to floats. *unpack*: Cast and Mul, which runtimes compute once, when they load the file. *dequantize*:
DequantizeLinear, which ONNX Runtime merges with a matrix product into a kernel that reads the integers, and otherwise computes
on each run. *matmul_nbits*: that kernel itself, an operator of ONNX Runtime's own.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt

from accel.graph.layers import Layer, constant, integer, layers
from accel.graph.prepare import BLOCK_OPSET, QDQ_OPSET
from accel.numerics.scales import Float32

if TYPE_CHECKING:
    import onnx_ir as ir

Storage = Literal["matmul_nbits", "dequantize", "unpack"]
Format = Literal["auto", "matmul_nbits", "dequantize", "unpack"]
Array = npt.NDArray[np.generic]

_LARGE = 1 << 18
"""Numbers of a matrix from which on ``auto`` leaves it as integers while the model runs."""
_OVERHEAD = 400
"""Bytes that names and nodes add to a file for each weight, about."""
_OPSETS = {2: 25, 4: BLOCK_OPSET, 8: QDQ_OPSET}
_RECURRENT = frozenset({"GRU", "LSTM", "RNN"})
_MATRIX = 2


@dataclass(frozen=True, slots=True, eq=False)
class Target:
    """A constant that can be stored as integers, seen as a matrix whose rows have scales of their own."""

    value: ir.Value
    node: ir.Node
    """The first that reads it; the report calls the weight by its name."""
    array: Float32
    axis: int
    """The axis of the array that runs over rows."""
    leading: int = 1
    """Axes that run over rows, once ``axis`` is the first."""
    layers: tuple[Layer, ...] = ()
    """The layers whose weight it is; none for tables and recurrent weights."""

    @property
    def name(self) -> str:
        """Name of the node, and of the input where a node has several weights."""
        return f"{self.node.name}{'.' + str(self.value.name) if self.recurrent else ''}"

    @property
    def recurrent(self) -> bool:
        """Whether it is a weight of an LSTM, GRU or RNN."""
        return self.node.op_type in _RECURRENT

    @property
    def moved(self) -> tuple[int, ...]:
        """The array's shape with the axis of the rows in front."""
        return (self.array.shape[self.axis], *(n for a, n in enumerate(self.array.shape) if a != self.axis))

    @property
    def matrix(self) -> Float32:
        """[rows, columns]."""
        rows = math.prod(self.moved[: self.leading])
        return np.moveaxis(self.array, self.axis, 0).reshape(rows, math.prod(self.moved[self.leading :]))

    @property
    def product(self) -> bool:
        """Whether it is the matrix of one MatMul or Gemm and nothing else, for which there is a kernel on integers."""
        alone = len(self.value.uses()) == 1 and self.node.op_type in {"MatMul", "Gemm"}
        return alone and bool(self.layers) and self.array.ndim == _MATRIX

    @property
    def table(self) -> bool:
        """Whether rows are looked up in it, and nothing else is done with it."""
        return all(
            use.node.op_type == "Gather"
            and use.idx == 0
            and integer(use.node, "axis", 0) == 0
            and use.node.graph is self.node.graph
            for use in self.value.uses()
        )

    def filed(self, part: Array) -> Array:
        """[rows, columns] or [rows, 1] in the order of the file, to broadcast against the array."""
        tail = self.moved[self.leading :] if part.shape[1] != 1 else (1,) * (len(self.moved) - self.leading)
        return np.ascontiguousarray(np.moveaxis(part.reshape(self.moved[: self.leading] + tail), 0, self.axis))


def targets(graph: ir.Graph, *, embeddings: bool = True) -> list[Target]:
    """The constants of a prepared graph that can be stored as integers; sub-graphs are left alone.

    Weights of Conv, ConvTranspose, Gemm, MatMul, GRU, LSTM and RNN, and tables of Gather with ``embeddings``.
    """
    by_node = {layer.node: layer for layer in layers(graph)}
    found: dict[ir.Value, Target] = {}
    for node in graph:
        if node.domain not in {"", "ai.onnx"}:
            continue
        layer = by_node.get(node)
        if layer is not None and (value := node.inputs[1]) is not None:
            old = found.get(value)
            if old is None or not old.layers:
                found[value] = Target(value, node, layer.weight, layer.channel_axis, layers=(layer,))
            elif old.axis == layer.channel_axis and old.layers[0].group == layer.group:
                found[value] = Target(value, old.node, old.array, old.axis, layers=(*old.layers, layer))
        elif node.op_type in _RECURRENT:
            for value in node.inputs[1:3]:
                _add(found, node, value, leading=2)
        elif node.op_type == "Gather" and embeddings and integer(node, "axis", 0) == 0:
            _add(found, node, node.inputs[0], leading=1)
    return [target for value, target in found.items() if not value.is_graph_output()]


def _add(found: dict[ir.Value, Target], node: ir.Node, value: ir.Value | None, *, leading: int) -> None:
    array = constant(value)
    if value is not None and array is not None and array.dtype == np.float32 and array.ndim == leading + 1:
        found.setdefault(value, Target(value, node, array.astype(np.float32, copy=False), 0, leading))


def width(bits: int) -> int:
    """Bits of the narrowest type of ONNX that holds integers of so many bits: 2, 4 or 8."""
    return next(wide for wide in (2, 4, 8) if bits <= wide)


def opset(model: ir.Model, bits: int, block: int | None, wanted: Format) -> int:
    """The opset that a model needs so that its weights can be stored."""
    tables = any(node.op_type == "Gather" for node in model.graph)
    blocks = (wanted == "dequantize" and (block is not None or tables)) or (wanted == "auto" and block is not None)
    return max(_OPSETS[width(bits)], BLOCK_OPSET if blocks else QDQ_OPSET)


def worth(target: Target, bits: int, block: int | None) -> bool:
    """Whether the file gets smaller."""
    rows, columns = target.matrix.shape
    scales = rows * -(-columns // min(block or columns, columns)) if columns else 0
    return target.array.size * width(bits) // 8 + 5 * scales + _OVERHEAD < target.array.nbytes


def choose(target: Target, bits: int, block: int | None, wanted: Format) -> Storage:
    """How a weight is stored.

    ``auto`` takes what ONNX Runtime's CPU provider computes fastest, measured with version 1.32 on two cores of an x86-64 with
    VNNI, in microseconds for 1, 40 and 256 rows of input. Matrix 128 x 128: 6, 15, 79 unpacked (as fast as float, as it is
    float then), 6, 21, 99 in 8 bits, 6, 22, 106 in 4. 512 x 512: 21, 191, 822; 11, 159, 730; 12, 124, 1097. 1024 x 1024: 36,
    862, 14569; 25, 341, 3660; 24, 642, 7012. So integers pay from 512 x 512 on, if a kernel takes them: DequantizeLinear with
    blocks of a power of two gets the same kernel as MatMulNBits, in the same time. There is none for Conv: efficientnet_lite0
    took 17 ms in float, 18 unpacked, 49 dequantized on each run.
    """
    if wanted == "matmul_nbits" and not target.product:
        return "unpack"
    if wanted != "auto":
        return wanted
    large = target.product and target.array.size >= _LARGE
    return "dequantize" if large and has_kernel(bits, block) else "unpack"


def has_kernel(bits: int, block: int | None) -> bool:
    """Whether ONNX Runtime has a fast kernel for a product with integers: 2 bits only in blocks of 32 to 128."""
    if block is None:
        return True
    low, high = (32, 128) if width(bits) == 2 else (16, 1 << 20)  # noqa: PLR2004
    return block & (block - 1) == 0 and low <= block <= high
