"""Write a graph layer by layer: each with its initial weights, and with names that can be read."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import onnx_ir as ir

from accel.errors import TooLarge
from accel.graph.initial_weights import RELU_GAIN, Initial, filled, glorot, he, normal

Dims = tuple[int | str, ...]
"""Sizes of the axes; a name stands for a size that is not fixed."""
Activation = Literal["relu", "leaky_relu", "gelu", "silu", "tanh", "relu6"]
Pooling = Literal["max", "average"]

OPSET = 21
_IR_VERSION = 10
"""What opset 21 came with."""
BATCH = "batch"
"""Name of the axis over rows."""
_LARGEST_BYTES = (1 << 31) - (1 << 24)
"""Of all weights together: a protobuf file ends at 2 GiB, and names and nodes need some of that."""
_EPSILON = 1e-5
_FLOAT = ir.DataType.FLOAT
_OPERATORS: dict[str, str] = {"relu": "Relu", "leaky_relu": "LeakyRelu", "gelu": "Gelu", "tanh": "Tanh"}


@dataclass(frozen=True, slots=True)
class Result:
    """An output of a node that is being written."""

    name: str
    dims: Dims
    dtype: ir.DataType = _FLOAT


class GraphBuilder:
    """Writes a graph of standard operators, in the form for inference, which the differentiable executor trains.

    A layer's node has the name that it is given, and so has what comes out of it; its weights are called
    ``<layer>.weight`` and so on. The same calls with the same seed write the same bytes.
    """

    def __init__(self, name: str, seed: int) -> None:
        """Begin an empty graph.

        Args:
            name: Of the graph.
            seed: Of the initial weights.
        """
        self.graph = ir.Graph([], [], nodes=[], name=name, opset_imports={"": OPSET})
        self._chance = np.random.default_rng(seed)
        self._taken: set[str] = set()
        self._bytes = 0

    # -- values -----------------------------------------------------------------------------------------------------

    def input(self, name: str, row: Sequence[int], dtype: ir.DataType = _FLOAT) -> ir.Value:
        """An input of the model: rows of a shape, any number of them."""
        value = ir.Value(name=self._free(name), shape=ir.Shape([BATCH, *row]), type=ir.TensorType(dtype))
        self.graph.inputs.append(value)
        return value

    def weight(self, name: str, shape: tuple[int, ...], initial: Initial) -> ir.Value:
        """A float32 initialiser that training may change.

        Raises:
            TooLarge: With it, the model would no longer fit one ONNX file.
        """
        self._bytes += 4 * math.prod(shape)
        if self._bytes > _LARGEST_BYTES:
            raise TooLarge(
                f"The network's weights take more than {_LARGEST_BYTES >> 20:,} MiB: {name!r} alone has the shape {list(shape)}.",
                hint="Choose fewer or narrower layers.",
            )
        return self._initializer(name, initial(self._chance, shape))

    def integers(self, name: str, values: Sequence[int]) -> ir.Value:
        """An int64 vector that is fixed: axes or a shape."""
        return self._initializer(name, np.asarray(values, np.int64))

    def number(self, name: str, value: float) -> ir.Value:
        """A float of a formula. As a Constant node, it is counted as no parameter and never trained."""
        return self.node("Constant", name, [], (), value_float=float(value))

    def whole_number(self, name: str, value: int) -> ir.Value:
        """An int64 of a formula, as a Constant node."""
        return self.node("Constant", name, [], (), dtype=ir.DataType.INT64, value_int=value)

    def node(
        self,
        operator: str,
        name: str,
        inputs: Sequence[ir.Value | None],
        dims: Dims,
        *,
        dtype: ir.DataType = _FLOAT,
        **attributes: float | str | Sequence[int],
    ) -> ir.Value:
        """A node with one output, which has the node's name.

        Args:
            operator: One of ONNX's own.
            name: Of node and output.
            inputs: None where one is left out.
            dims: Shape of the output.
            dtype: Element type of the output.
            attributes: As the operator has them.
        """
        (value,) = self.nodes(operator, name, inputs, [Result(name, dims, dtype)], **attributes)
        return value

    def nodes(
        self,
        operator: str,
        name: str,
        inputs: Sequence[ir.Value | None],
        results: Sequence[Result],
        **attributes: float | str | Sequence[int],
    ) -> tuple[ir.Value, ...]:
        """A node with several outputs, in order."""
        outputs = [
            ir.Value(name=self._free(part.name), shape=ir.Shape(part.dims), type=ir.TensorType(part.dtype))
            for part in results
        ]
        called = outputs[0].name if len(outputs) == 1 else self._free(name)  # no two nodes have one name either
        self.graph.append(ir.node(operator, inputs, attributes, outputs=outputs, name=called))
        return tuple(outputs)

    def finish(self, output: ir.Value, name: str) -> ir.Model:
        """The model, whose output gets a name."""
        output.name = self._free(name)
        self.graph.outputs.append(output)
        return ir.Model(self.graph, ir_version=_IR_VERSION, producer_name="accel")

    def _initializer(self, name: str, array: np.ndarray) -> ir.Value:
        free = self._free(name)
        tensor = ir.Tensor(array, name=free)
        value = ir.Value(name=free, shape=tensor.shape, type=ir.TensorType(tensor.dtype), const_value=tensor)
        self.graph.register_initializer(value)
        return value

    def _free(self, name: str) -> str:
        """A name for a value; a column of the dataset may be called like a layer."""
        free, number = name, 1
        while free in self._taken:
            free, number = f"{name}_{number}", number + 1
        self._taken.add(free)
        return free

    # -- layers -----------------------------------------------------------------------------------------------------

    def conv(
        self,
        name: str,
        x: ir.Value,
        channels: int,
        kernel: int,
        *,
        stride: int = 1,
        groups: int = 1,
        bias: bool = True,
        initial: Initial | None = None,
    ) -> ir.Value:
        """Convolution over all axes behind the channels, padded with zeros so that only a stride makes it smaller.

        Args:
            name: Of the layer.
            x: [batch, channels, *space].
            channels: Of the output.
            kernel: Width along each axis; odd.
            stride: Along each axis.
            groups: Of channels that see only each other.
            bias: Whether one is added; a batch norm behind it makes it pointless.
            initial: Weights; He's for a rectifier, if left out.
        """
        inside, *space = sizes(x)[1:]
        reads = inside // groups
        weight = self.weight(
            f"{name}.weight",
            (channels, reads, *[kernel] * len(space)),
            initial or he(reads * kernel ** len(space)),
        )
        inputs = [x, weight, *([self.weight(f"{name}.bias", (channels,), filled(0))] if bias else [])]
        return self.node(
            "Conv",
            name,
            inputs,
            (BATCH, channels, *((size - 1) // stride + 1 for size in space)),
            kernel_shape=[kernel] * len(space),
            strides=[stride] * len(space),
            pads=[kernel // 2] * 2 * len(space),
            group=groups,
        )

    def linear(
        self, name: str, x: ir.Value, width: int, *, bias: bool = True, initial: Initial | None = None
    ) -> ir.Value:
        """Matrix product with the last axis: Gemm for [batch, in], MatMul and Add for more axes.

        Args:
            name: Of the layer.
            x: [batch, ..., in].
            width: Size of the last axis of the output.
            bias: Whether one is added.
            initial: Weights; Glorot's, if left out.
        """
        *_, inside = sizes(x)
        initial = initial or glorot(inside, width)
        if len(sizes(x)) == 2:  # noqa: PLR2004  (rows of numbers)
            weight = self.weight(f"{name}.weight", (width, inside), initial)
            inputs = [x, weight, *([self.weight(f"{name}.bias", (width,), filled(0))] if bias else [])]
            return self.node("Gemm", name, inputs, (BATCH, width), transB=1)
        weight = self.weight(f"{name}.weight", (inside, width), initial)
        dims = (*dims_of(x)[:-1], width)
        if not bias:
            return self.node("MatMul", name, [x, weight], dims)
        product = self.node("MatMul", f"{name}.product", [x, weight], dims)
        return self.node("Add", name, [product, self.weight(f"{name}.bias", (width,), filled(0))], dims)

    def batch_norm(self, name: str, x: ir.Value, *, scale: float = 1.0) -> ir.Value:
        """Normalise each channel (axis 1) by running statistics, in the form for inference.

        Args:
            name: Of the layer.
            x: [batch, channels, ...].
            scale: What the normalised values are multiplied with at first; 0 closes a residual branch.

        Source: Ioffe and Szegedy, "Batch Normalization", ICML 2015.
        """
        channels = sizes(x)[1]
        parts = {"weight": scale, "bias": 0.0, "running_mean": 0.0, "running_var": 1.0}
        weights = [self.weight(f"{name}.{part}", (channels,), filled(value)) for part, value in parts.items()]
        return self.node("BatchNormalization", name, [x, *weights], dims_of(x), epsilon=_EPSILON, momentum=0.9)

    def layer_norm(self, name: str, x: ir.Value) -> ir.Value:
        """Normalise the last axis. Source: Ba, Kiros and Hinton, "Layer Normalization", 2016."""
        width = sizes(x)[-1]
        weights = [self.weight(f"{name}.weight", (width,), filled(1)), self.weight(f"{name}.bias", (width,), filled(0))]
        return self.node("LayerNormalization", name, [x, *weights], dims_of(x), axis=-1, epsilon=_EPSILON)

    def activation(self, name: str, x: ir.Value, kind: Activation) -> ir.Value:
        """What makes layers more than one matrix."""
        dims = dims_of(x)
        match kind:
            case "relu6":
                bounds = [self.number(f"{name}.low", 0), self.number(f"{name}.high", 6)]
                return self.node("Clip", name, [x, *bounds], dims)
            case "silu":
                gate = self.node("Sigmoid", f"{name}.gate", [x], dims)
                return self.node("Mul", name, [x, gate], dims)
            case "leaky_relu":
                return self.node("LeakyRelu", name, [x], dims, alpha=0.01)
            case _:
                return self.node(_OPERATORS[kind], name, [x], dims)

    def dropout(self, name: str, x: ir.Value, ratio: float) -> ir.Value:
        """Drop a share of the values while the graph is trained; a runtime passes all on. None is written for 0.

        Source: Srivastava et al., "Dropout", JMLR 15, 2014.
        """
        if not ratio:
            return x
        return self.node("Dropout", name, [x, self.number(f"{name}.ratio", ratio)], dims_of(x))

    def embedding(self, name: str, ids: ir.Value, vocabulary: int, width: int) -> ir.Value:
        """A vector for each whole number: [batch, length] to [batch, length, width]."""
        table = self.weight(f"{name}.weight", (vocabulary, width), normal(1))
        return self.node("Gather", name, [table, ids], (*dims_of(ids), width), axis=0)

    # -- shapes -----------------------------------------------------------------------------------------------------

    def pool(
        self, name: str, x: ir.Value, kind: Pooling, size: int, *, stride: int | None = None, padding: int = 0
    ) -> ir.Value:
        """Largest or mean value of windows over all axes behind the channels; what does not fill a window is left out."""
        stride = stride or size
        _, channels, *space = sizes(x)
        return self.node(
            "MaxPool" if kind == "max" else "AveragePool",
            name,
            [x],
            (BATCH, channels, *((length + 2 * padding - size) // stride + 1 for length in space)),
            kernel_shape=[size] * len(space),
            strides=[stride] * len(space),
            pads=[padding] * 2 * len(space),
        )

    def global_average(self, name: str, x: ir.Value) -> ir.Value:
        """Mean of each channel: [batch, channels, *space] to [batch, channels]."""
        _, channels, *space = sizes(x)
        mean = self.node("GlobalAveragePool", name, [x], (BATCH, channels, *[1] * len(space)))
        return self.flatten(f"{name}.flat", mean)

    def flatten(self, name: str, x: ir.Value) -> ir.Value:
        """All axes but the batch as one: [batch, ...] to [batch, size]."""
        return self.node("Flatten", name, [x], (BATCH, math.prod(sizes(x)[1:])), axis=1)

    def add_axis(self, name: str, x: ir.Value, axis: int) -> ir.Value:
        """An axis of size 1."""
        dims = dims_of(x)
        return self.node("Unsqueeze", name, [x, self.integers(f"{name}.axes", [axis])], (*dims[:axis], 1, *dims[axis:]))

    def transpose(self, name: str, x: ir.Value, order: Sequence[int]) -> ir.Value:
        """The same axes in another order."""
        dims = dims_of(x)
        return self.node("Transpose", name, [x], tuple(dims[axis] for axis in order), perm=list(order))

    def reshape(self, name: str, x: ir.Value, shape: Sequence[int], dims: Dims) -> ir.Value:
        """Another shape.

        Args:
            name: Of the node.
            x: What gets it.
            shape: As ONNX writes it: 0 keeps an axis, -1 is what is left.
            dims: What comes out.
        """
        return self.node("Reshape", name, [x, self.integers(f"{name}.shape", shape)], dims)

    def add(self, name: str, left: ir.Value, right: ir.Value) -> ir.Value:
        """Sum of two values of the same shape, such as a residual branch and what it goes around."""
        return self.node("Add", name, [left, right], dims_of(left))


def gain(kind: Activation) -> float:
    """By how much the weights before an activation are larger than those before none."""
    return 5 / 3 if kind == "tanh" else RELU_GAIN


def dims_of(value: ir.Value) -> Dims:
    """Shape of a value that the builder made."""
    if value.shape is None:
        raise ValueError(f"{value.name} has no shape")
    return tuple(dim if isinstance(dim, int) else str(dim.value) for dim in value.shape)


def sizes(value: ir.Value) -> tuple[int, ...]:
    """Shape of a value as numbers; -1 stands for the axis of rows."""
    return tuple(dim if isinstance(dim, int) else -1 for dim in dims_of(value))
