"""Write integers into a graph in the place of float weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from accel.graph.layers import constant
from accel.graph.prepare import graph_constant
from accel.graph.weights_only import Storage, Target, width
from accel.numerics.rounding import Rounded

if TYPE_CHECKING:
    import onnx_ir as ir

Array = npt.NDArray[np.generic]

_MICROSOFT = "com.microsoft"
_IR_VERSIONS = {2: 13, 4: 10, 8: 0}
"""The version of the file format that knows the type."""
_BIAS = 2


def store(model: ir.Model, target: Target, rounded: Rounded, storage: Storage) -> None:
    """Put integers in the place of a weight, in place.

    Tables that rows are looked up in are dequantized behind the Gather, which takes no integers below 8 bits.

    Args:
        model: A prepared graph of the opset that :func:`opset` tells.
        target: One of its constants.
        rounded: Its matrix as integers.
        storage: How; ``matmul_nbits`` only for products.
    """
    looked_up = storage == "dequantize" and target.table
    writer = _Writer(model, target, rounded, 8 if looked_up else width(rounded.scheme.bits))
    if looked_up:
        writer.behind_gather()
    elif storage == "matmul_nbits":
        writer.matmul_nbits()
    elif storage == "dequantize" and target.product:
        writer.before_product()
    else:
        writer.before_readers(unpacked=storage == "unpack")
    if target.value.name is not None and not target.value.uses():
        model.graph.initializers.pop(target.value.name, None)


class _Writer:
    """Writes one weight into a graph."""

    def __init__(self, model: ir.Model, target: Target, rounded: Rounded, bits: int) -> None:
        self._model, self._graph, self._target, self._bits = model, model.graph, target, bits
        self._scheme, self._integers = rounded.scheme, rounded.integers
        self._scale, self._zero = rounded.parameters.scale, rounded.parameters.zero_point
        self._block = rounded.block if self._scale.shape[1] > 1 else None
        self._label = str(target.value.name)
        self._first = self._graph[0]

    def before_readers(self, *, unpacked: bool) -> None:
        """Turn the integers into the float constant that all its readers had before."""
        target, parts = self._target, (self._integers, self._scale, self._zero)
        if self._block is not None:
            value = (
                self._unpacked_blocks(self._block) if unpacked else self._dequantized(*parts, axis=1, block=self._block)
            )
            value = self._arranged(value)
        elif unpacked:
            value = self._unpacked(*(target.filed(part) for part in parts))
        elif target.leading == 1:
            value = self._dequantized(
                target.filed(self._integers), self._scale[:, 0], self._zero[:, 0], axis=target.axis
            )
        else:
            value = self._dequantized(self._integers, self._scale[:, 0], self._zero[:, 0], axis=0)
            value = self._arranged(value)
        value.type, value.shape = target.value.type, target.value.shape
        target.value.replace_all_uses_with(value)

    def before_product(self) -> None:
        """Dequantize [inputs, outputs], from which the runtime makes MatMulNBits; Gemm is turned to take it so."""
        import onnx_ir as ir

        node = self._target.node
        if node.op_type == "Gemm":
            node.attributes["transB"] = ir.AttrInt64("transB", 0)
        if self._block is None:
            value = self._dequantized(self._integers.T, self._scale[:, 0], self._zero[:, 0], axis=1)
        else:
            value = self._dequantized(self._integers.T, self._scale.T, self._zero.T, axis=0, block=self._block)
        node.replace_input_with(1, value)

    def behind_gather(self) -> None:
        """Look up integers and scales, and dequantize the rows that are wanted."""
        block = self._block or self._integers.shape[1]
        parts = self._parts(self._integers, self._scale, self._zero)
        for use in list(self._target.value.uses()):
            gather = use.node
            rows = [self._node("Gather", [part, gather.inputs[1]], before=gather) for part in parts]
            back = self._node("DequantizeLinear", rows, {"axis": -1, "block_size": block}, before=gather)
            result = gather.outputs[0]
            back.type, back.shape, name = result.type, result.shape, result.name
            result.replace_all_uses_with(back, replace_graph_outputs=True)
            result.name, back.name = f"{name}_float", name
            self._graph.remove(gather, safe=True)

    def matmul_nbits(self) -> None:
        """Put MatMulNBits of ONNX Runtime in the place of a product."""
        import onnx_ir as ir

        node, (rows, columns) = self._target.node, self._integers.shape
        block = self._block or _frugal_block(columns, self._bits)
        count = -(-columns // block)
        wide = self._integers.astype(np.int16) + (2 ** (self._bits - 1) if self._scheme.signed else 0)
        padded = np.pad(wide.astype(np.uint8), ((0, 0), (0, count * block - columns)))
        packed = _packed(padded, self._bits).reshape(rows, count, block * self._bits // 8)
        inputs = [node.inputs[0], self._constant("quantized", packed)]
        inputs.append(self._constant("scale", np.broadcast_to(self._scale, (rows, count)).reshape(-1)))
        zeros = np.broadcast_to(self._zero, (rows, count)).astype(np.uint8)
        inputs.append(None if self._scheme.symmetric else self._constant("zero_point", _packed(zeros, self._bits)))
        bias = node.inputs[2] if len(node.inputs) > _BIAS else None
        fits = bias is not None and (array := constant(bias)) is not None and array.shape == (rows,)
        inputs += [None, bias] if fits else []
        attributes = {"K": columns, "N": rows, "bits": self._bits, "block_size": block, "accuracy_level": 4}
        product = ir.Node(_MICROSOFT, "MatMulNBits", inputs, [ir.AttrInt64(*pair) for pair in attributes.items()])
        self._model.opset_imports[_MICROSOFT] = 1
        self._graph.insert_before(node, product)
        value, old = product.outputs[0], node.outputs[0]
        if bias is not None and not fits:
            value = self._node("Add", [value, bias], before=node)
        name, node_name = old.name, node.name
        value.type, value.shape = old.type, old.shape
        old.replace_all_uses_with(value, replace_graph_outputs=True)
        self._graph.remove(node, safe=True)
        value.name, product.name = name, node_name

    def _unpacked_blocks(self, block: int) -> ir.Value:
        rows, columns = self._integers.shape
        padded = np.pad(self._integers, ((0, 0), (0, self._scale.shape[1] * block - columns)))
        value = self._unpacked(padded.reshape(rows, -1, block), self._scale[:, :, None], self._zero[:, :, None])
        if padded.shape[1] == columns:
            return value
        value = self._reshaped(value, (rows, padded.shape[1]))
        return self._node("Slice", [value, *(self._shape([n]) for n in (0, columns, 1))])

    def _unpacked(self, integers: Array, scale: Array, zero: Array) -> ir.Value:
        if scale.size and (scale == scale.flat[0]).all():
            scale = scale.reshape(-1)[0]  # one number instead of one a row
        numbers, step, *middle = self._parts(integers, scale, zero)
        value = self._floats(numbers)
        for part in middle:
            value = self._node("Sub", [value, self._floats(part)])
        return self._node("Mul", [value, step])

    def _floats(self, integers: ir.Value) -> ir.Value:
        import onnx_ir as ir

        if self._target.recurrent:  # OpenVINO keeps bytes that become floats at once, but its LSTM takes constants only
            integers = self._node("Cast", [integers], {"to": int(ir.DataType.INT32)})
        return self._node("Cast", [integers], {"to": int(ir.DataType.FLOAT)})

    def _dequantized(
        self, integers: Array, scale: Array, zero: Array, *, axis: int, block: int | None = None
    ) -> ir.Value:
        attributes = {"axis": axis} if block is None else {"axis": axis, "block_size": block}
        return self._node("DequantizeLinear", self._parts(integers, scale, zero), attributes)

    def _parts(self, integers: Array, scale: Array, zero: Array) -> list[ir.Value]:
        """Integers, scales, and zero points where there are any, as initializers."""
        import onnx_ir as ir

        dtype = ir.DataType[f"{'' if self._scheme.signed else 'U'}INT{self._bits}"]
        self._model.ir_version = max(self._model.ir_version or 0, _IR_VERSIONS[self._bits])
        found = [self._constant("quantized", integers, dtype), self._constant("scale", scale)]
        if not self._scheme.symmetric:
            found.append(self._constant("zero_point", zero, dtype))
        return found

    def _arranged(self, value: ir.Value) -> ir.Value:
        """A matrix in the order of the file."""
        target = self._target
        value = self._reshaped(value, target.moved)
        if target.axis == 0:
            return value
        order = [n + 1 if n < target.axis else n for n in range(len(target.moved))]
        order[target.axis] = 0
        return self._node("Transpose", [value], {"perm": order})

    def _reshaped(self, value: ir.Value, shape: tuple[int, ...]) -> ir.Value:
        return self._node("Reshape", [value, self._shape(shape)])

    def _shape(self, numbers: Sequence[int]) -> ir.Value:
        return self._constant("shape", np.array(numbers, np.int64))

    def _constant(self, what: str, array: Array, dtype: ir.DataType | None = None) -> ir.Value:
        held = array if dtype is None else array.astype(np.uint8 if dtype.name.startswith("U") else np.int8)
        return graph_constant(self._graph, f"{self._label}_{what}", np.ascontiguousarray(held), dtype)

    def _node(
        self,
        operator: str,
        inputs: Sequence[ir.Value | None],
        attributes: Mapping[str, int | list[int]] | None = None,
        *,
        before: ir.Node | None = None,
    ) -> ir.Value:
        import onnx_ir as ir

        given = [
            ir.AttrInt64s(name, part) if isinstance(part, list) else ir.AttrInt64(name, part)
            for name, part in (attributes or {}).items()
        ]
        node = ir.Node("", operator, inputs, given)
        self._graph.insert_before(before or self._first, node)
        return node.outputs[0]


def _frugal_block(columns: int, bits: int) -> int:
    """Of the blocks that have a kernel, the one that needs the fewest bytes for a row with one scale."""
    sizes = (32, 64, 128) if bits == 2 else (16, 32, 64, 128, 256)  # noqa: PLR2004
    return min(sizes, key=lambda size: -(-columns // size) * (size * bits // 8 + 4))


def _packed(integers: npt.NDArray[np.uint8], bits: int) -> npt.NDArray[np.uint8]:
    """[rows, numbers] of unsigned integers as [rows, bytes], the first in the lowest bits."""
    share = 8 // bits
    padded = np.pad(integers, ((0, 0), (0, -integers.shape[1] % share))).reshape(len(integers), -1, share)
    shifts = np.arange(share, dtype=np.uint8) * np.uint8(bits)
    packed: npt.NDArray[np.uint8] = np.bitwise_or.reduce(padded << shifts, axis=2, dtype=np.uint8)
    return packed
