"""What the nodes of a graph would cost on a processor, by their shapes and the table of kernels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from accel.benchmark import kernel_table as table
from accel.benchmark.kernel_table import Processor
from accel.graph.inspect import node_macs
from accel.graph.kernels import computes_in_integers
from accel.graph.shapes import Shape, elements, filled

if TYPE_CHECKING:
    import onnx

CONVOLUTIONS = frozenset({"Conv", "FusedConv", "QLinearConv", "ConvInteger"})
PRODUCTS = frozenset({
    "Gemm", "FusedGemm", "MatMul", "FusedMatMul", "QGemm", "QLinearMatMul", "MatMulInteger", "MatMulIntegerToFloat",
    "DynamicQuantizeMatMul", "MatMulNBits",
})  # fmt: skip
RECURRENT = frozenset({"LSTM", "GRU", "RNN", "DynamicQuantizeLSTM"})
_CONVERSIONS = frozenset({"QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "QLinearConcat"})
PLAIN = {
    "FusedConv": "Conv", "FusedGemm": "Gemm", "FusedMatMul": "MatMul", "MatMulIntegerToFloat": "MatMul",
    "DynamicQuantizeMatMul": "MatMul", "DynamicQuantizeLSTM": "LSTM", "QGemm": "Gemm",
}  # fmt: skip
"""The standard operator whose multiply-accumulates a fused one has."""
_IN_BLOCKS = frozenset({
    "Conv", "FusedConv", "MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool", "Add", "Relu", "Concat", "QuickGelu",
    "Sigmoid",
})  # fmt: skip
"""Operators that ONNX Runtime computes in the layout of convolutions, in blocks of channels."""
_IMAGE = 4
_BYTES_OF_FLOAT = 4
_WHOLE_TILE = 32
"""Columns from which on a float product is as fast as it gets."""
_LINE = 64


@dataclass(slots=True)
class Cost:
    """Nanoseconds of one run by what they depend on, so that each can be doubted by itself."""

    float_ns: float = 0.0
    odd_float_ns: float = 0.0
    """Convolutions in float by copying and multiplying, where there is no kernel of their own."""
    int8_ns: float = 0.0
    copy_ns: float = 0.0
    """Copies that integer convolutions make of their input."""
    weight_ns: float = 0.0
    """Weights of products that are read, from whichever cache or memory they are in."""
    quantize_ns: float = 0.0
    """Between floats and integers."""
    element_ns: float = 0.0
    node_ns: float = 0.0

    def __add__(self, other: Cost) -> Cost:
        return Cost(*(getattr(self, name) + getattr(other, name) for name in PARTS))

    def total(self, factors: Mapping[str, float] | None = None) -> float:
        """The sum, each part times its factor."""
        given = factors or {}
        return float(sum(getattr(self, name) * given.get(name, 1.0) for name in PARTS))


PARTS = ("float_ns", "odd_float_ns", "int8_ns", "copy_ns", "weight_ns", "quantize_ns", "element_ns", "node_ns")


@dataclass(frozen=True, slots=True)
class Kernel:
    """A node with its cost."""

    name: str
    operator: str
    macs: int | None
    """None where shapes are not known."""
    in_integers: bool
    has_weight: bool
    """Whether a factor is constant."""
    cost: Cost


@dataclass(slots=True)
class Costs:
    """Costs of a whole graph."""

    kernels: list[Kernel] = field(default_factory=list)

    @property
    def total(self) -> Cost:
        """Of one run."""
        return sum((kernel.cost for kernel in self.kernels), Cost(node_ns=table.RUN_NS))

    @property
    def macs(self) -> int:
        """Multiply-accumulates of one run, as far as they are known."""
        return sum(kernel.macs or 0 for kernel in self.kernels)

    @property
    def unknown_share(self) -> float:
        """Share of the nodes that multiply whose shapes are not known, 0 to 1."""
        counts = [kernel.macs for kernel in self.kernels if kernel.macs != 0]
        return counts.count(None) / len(counts) if counts else 0.0


def costs(graph: onnx.GraphProto, shapes: Mapping[str, Shape], processor: Processor, *, signed: bool = False) -> Costs:
    """The cost of each node of a graph as ONNX Runtime runs it.

    Args:
        graph: The optimised graph, in the layouts of ONNX.
        shapes: Shapes of its values, by name, as far as they are known.
        processor: Where it runs.
        signed: Whether activations are signed integers.
    """
    known = filled(graph, shapes)
    constant = {tensor.name for tensor in graph.initializer}
    makers = {name: node.op_type for node in graph.node for name in node.output}
    readers: dict[str, set[str]] = {}
    for node in graph.node:
        for name in node.input:
            readers.setdefault(name, set()).add(node.op_type)
    weights = sum(tensor.ByteSize() for tensor in graph.initializer)
    each = next(cost for largest, cost in table.WEIGHT_BYTE_NS if weights <= largest)
    views = (_View(node, known, constant, makers, readers, processor, signed, each) for node in graph.node)
    return Costs([view.kernel() for view in views])


@dataclass(frozen=True, slots=True)
class _View:
    """A node in its graph."""

    node: onnx.NodeProto
    shapes: Mapping[str, Shape]
    constant: set[str]
    makers: Mapping[str, str]
    readers: Mapping[str, set[str]]
    processor: Processor
    signed: bool
    weight_byte_ns: float

    def kernel(self) -> Kernel:
        operator = self.node.op_type
        macs = self._macs()
        integers = computes_in_integers(operator) and operator in CONVOLUTIONS | PRODUCTS | RECURRENT
        if macs and operator in CONVOLUTIONS:
            cost = self._convolution(macs)
        elif macs and operator in PRODUCTS:
            cost = self._product(macs)
        elif macs and operator in RECURRENT:
            cost = Cost(float_ns=macs / (self.processor.float_rate * table.RECURRENT_SHARE))
        elif macs:  # ConvTranspose
            cost = Cost(odd_float_ns=macs / (self.processor.float_rate * 0.3))
        else:
            each = table.ELEMENT_NS.get(operator, table.OTHER_ELEMENT_NS) * (self.largest or 0)
            cost = Cost(quantize_ns=each) if operator in _CONVERSIONS else Cost(element_ns=each)
        fixed = table.NODE_NS + (table.INTEGER_NODE_NS if integers else 0.0)
        weighted = any(name in self.constant for name in self.node.input[1:2])
        return Kernel(self.node.name, operator, macs, integers, weighted, cost + Cost(node_ns=fixed))

    @property
    def largest(self) -> int | None:
        """Numbers of the largest tensor that it reads or writes; constants are not counted."""
        names = [name for name in (*self.node.input, *self.node.output) if name and name not in self.constant]
        sizes = [elements(self.shapes.get(name)) for name in names]
        given = [size for size in sizes if size is not None]
        return max(given) if given else None

    def _macs(self) -> int | None:
        plain = PLAIN.get(self.node.op_type)
        if plain is None:
            return node_macs(self.node, self.shapes)
        import onnx

        copy = onnx.NodeProto()
        copy.CopyFrom(self.node)
        copy.op_type = plain
        return node_macs(copy, self.shapes)

    def _weight(self) -> tuple[str, Shape]:
        """Name and shape of the second factor."""
        position = 3 if self.node.op_type in {"QLinearConv", "QGemm", "QLinearMatMul"} else 1
        name = self.node.input[position]
        return name, self.shapes.get(name, ())

    def _known(self, name: str) -> int:
        return elements(self.shapes.get(name)) or 0

    def _convolution(self, macs: int) -> Cost:
        _, weight = self._weight()
        dims = [dim or 1 for dim in weight]
        out = self._known(self.node.output[0])
        channels, within, positions = dims[0], dims[1], elements(tuple(dims[2:])) or 1
        depthwise = within == 1 and channels > 1 and self._groups() > 1
        if self.node.op_type == "ConvInteger":
            return Cost(float_ns=macs / (self.processor.float_rate * table.DYNAMIC_CONV_SHARE))
        if self.node.op_type == "QLinearConv":
            return self._integer_convolution(macs, out, channels, within, positions, depthwise=depthwise)
        touched = (self._known(self.node.input[0]) + out + (elements(weight) or 0)) * _BYTES_OF_FLOAT
        moved = max(0, touched - table.NEAR_BYTES) * table.BYTE_NS
        reorders = self._reorders(out)
        best, block = self.processor.float_rate, self.processor.block
        if depthwise:
            padded = _rounded(channels, block)
            return Cost(float_ns=max(macs / (best * table.DEPTHWISE_FLOAT_SHARE), moved) * padded, element_ns=reorders)
        first = within < block
        # ONNX Runtime's rule for kernels on blocks of channels (core/optimizer/nchwc_transformer.cc).
        if len(weight) == _IMAGE and self._groups() == 1 and (first or within % 4 == 0):
            padded = _rounded(channels, block) * (1.0 if first else _rounded(within, block))
            share = table.FIRST_LAYER_SHARE if first else table.BEST_SHARE
            return Cost(float_ns=macs * padded / (best * share) + moved, element_ns=reorders)
        return Cost(odd_float_ns=self._by_copying(macs, out, channels, within * positions))

    def _by_copying(self, macs: int, out: int, channels: int, depth: int) -> float:
        """A float convolution as copies and a product for each sample."""
        shape = self.shapes.get(self.node.output[0], ())
        columns = elements(shape[2:]) or 1
        share = min(0.7, max(0.1, columns / _WHOLE_TILE))
        rows = min(1.0, channels / 4)  # one row alone leaves most of each register empty
        return macs / (self.processor.float_rate * share * rows) + out / channels * depth * table.IM2COL_FLOAT_NS

    def _integer_convolution(
        self, macs: int, out: int, channels: int, within: int, positions: int, *, depthwise: bool
    ) -> Cost:
        slow = table.SIGNED_SLOWDOWN if self.signed and self.processor.x86 else 1.0
        best = self.processor.int8_rate / slow
        if depthwise:
            rate = table.DEPTHWISE_INT8_SHARE * 4 * self.processor.float_rate / slow
            if channels % 16:
                each = table.UNEVEN_POSITION_NS + table.UNEVEN_CHANNEL_NS * channels
                return Cost(copy_ns=out / channels * positions * each * slow)
            return Cost(int8_ns=macs / rate + out * table.DEPTHWISE_OUTPUT_NS)
        depth = within * positions
        padded = _rounded(channels, 16) * _rounded(depth, 4)
        copies = out / channels * positions * max(1.0, within / _LINE) if positions > 1 else 0.0
        reading = (channels * depth) * table.BYTE_NS
        return Cost(
            int8_ns=macs * padded / (best * table.BEST_SHARE) + out * table.REQUANTIZE_NS + reading,
            # A copy of three bytes takes twice as long as one of four.
            copy_ns=copies * table.IM2COL_NS * (2.0 if within & (within - 1) else 1.0),
        )

    def _product(self, macs: int) -> Cost:
        name, weight = self._weight()
        out = self._known(self.node.output[0])
        rows = (
            self._known(self.node.input[0]) * out // macs
        )  # as each row has as many numbers as an output has products
        integers = computes_in_integers(self.node.op_type)
        size = (elements(weight) or 0) * (1 if integers else _BYTES_OF_FLOAT)
        once = table.INT8_WEIGHT_BYTE_NS if integers else self.weight_byte_ns
        reading = Cost(weight_ns=size * (once if rows <= 1 else table.BYTE_NS))
        writing = out * _BYTES_OF_FLOAT * table.BYTE_NS
        if integers:
            slow = table.SIGNED_SLOWDOWN if self.signed and self.processor.x86 else 1.0
            dynamic = self._known(self.node.input[0]) * 0.2 if self.node.op_type == "DynamicQuantizeMatMul" else 0.0
            return (
                Cost(
                    int8_ns=macs * slow / (self.processor.int8_rate * table.BEST_SHARE)
                    + out * table.REQUANTIZE_NS
                    + writing,
                    quantize_ns=dynamic,
                )
                + reading
            )
        small = 1.0 if name in self.constant else 0.4  # products of two activations are many small ones
        return Cost(float_ns=macs / (self.processor.float_rate * table.BEST_SHARE * small) + writing) + reading

    def _groups(self) -> int:
        return next((int(part.i) for part in self.node.attribute if part.name == "group"), 1)

    def _reorders(self, out: int) -> float:
        """Changes of layout at both ends of a float convolution, where what comes before or behind has another one.

        Those of integer convolutions are moved to the ends of the graph, or into other transpositions.
        """
        source = self.makers.get(self.node.input[0])
        first = self._known(self.node.input[0]) if source is not None and source not in _IN_BLOCKS else 0
        behind = self.readers.get(self.node.output[0], set())
        last = out if behind and not behind <= _IN_BLOCKS else 0
        return (first + last) * table.REORDER_NS


def _rounded(size: int, block: int) -> float:
    """How much larger a size is once it fills whole blocks."""
    return -(-size // block) * block / size


def by_operator(kernels: Iterable[Kernel]) -> Counter[str]:
    """Nanoseconds of each operator."""
    found: Counter[str] = Counter()
    for kernel in kernels:
        found[kernel.operator] += round(kernel.cost.total())
    return found
