"""A copy of a quantized graph that computes as x86-64 processors without VNNI do, on any processor."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from accel.graph.layers import constant, integer
from accel.graph.load import copied
from accel.graph.prepare import named_constant
from accel.graph.quantized import QuantizedLayer, quantized_layers
from accel.numerics.saturation import HIGH, LOW, Bytes, Pairs, Weights, Window, pairs_at_risk

if TYPE_CHECKING:
    import onnx_ir as ir

_WINDOW = ("auto_pad", "dilations", "kernel_shape", "pads", "strides")
_PAIRS = 256
"""Pairs that are computed at once: memory is that of so many channels."""
_BYTES = frozenset({np.dtype(np.uint8), np.dtype(np.int8)})
_SIGNED_OFFSET = 128
"""ONNX Runtime adds it to signed activations on x86-64, so that its kernels see unsigned ones."""


@dataclass(frozen=True, slots=True)
class Exposure:
    """A layer whose products are added in pairs by processors without VNNI."""

    layer: QuantizedLayer
    input: ir.Value
    """The activation as 8-bit integers."""
    signed: bool
    """Whether these are signed."""
    zero_point: int
    """The activation's integer for 0, as the kernel sees it: 0 to 255."""
    weights: Weights
    """[out, products], in the order in which the kernel multiplies: by place in the kernel, then by input channel."""
    scale: npt.NDArray[np.float32]
    """The real value of an accumulator's unit: [out], or one for all."""
    window: Window | None
    """None for matrix products."""
    emulated: bool
    """False for stacks of matrices."""

    def sources(self, pairs: Pairs, offset: int) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
        """The place in the kernel and the input channel of the first (offset 0) or second product (1) of each pair."""
        product = (pairs.product + offset).astype(np.intp)
        if self.window is None:
            return np.zeros_like(product), product
        inputs = self.weights.shape[1] // math.prod(self.window.kernel)
        group = pairs.channel // (len(self.weights) // integer(self.layer.node, "group", 1))
        return product // inputs, group * inputs + product % inputs

    def columns(self, inputs: Bytes, pairs: Pairs, offset: int) -> Bytes:
        """The inputs of the first or second product of each pair.

        Args:
            inputs: The activation as the kernel sees it: [n, channels, *spatial], or [n, products].
            pairs: Pairs of products.
            offset: 0 or 1.

        Returns:
            [pairs, dot products of a channel].
        """
        position, channel = self.sources(pairs, offset)
        if self.window is None:
            return np.ascontiguousarray(inputs[:, channel].T)
        return self.window.columns(inputs, position, channel, self.zero_point)


def exposure(layer: QuantizedLayer) -> Exposure | str:
    """How processors without VNNI add a layer's products in pairs; the reason where they do not.

    Facts of ONNX Runtime 1.32 on x86-64 with AVX2 or AVX-512.
    """
    node, integers = layer.node, layer.weight.integers
    if node.op_type == "ConvTranspose":
        return "It is computed in float: the runtime has no integer kernel for it."
    before = node.inputs[0].producer() if node.inputs[0] is not None else None
    if before is None or layer.input_scale is None or before.inputs[0] is None:
        return "It is computed in float: its activations are not quantized."
    zero = constant(before.inputs[2]) if len(before.inputs) > 2 else np.zeros((), np.uint8)  # noqa: PLR2004
    if zero is None or zero.dtype not in _BYTES:
        return "It is computed in float: its activations are not 8-bit integers."
    if layer.weight.granularity.block is not None or layer.weight.scheme.bits != 8:  # noqa: PLR2004  (a byte)
        return "It is computed in float: its weights are not 8-bit integers with scales per tensor or channel."
    if not layer.weight.scheme.signed:
        return "Its weights are unsigned: products are added in 32 bits."
    if node.op_type == "Conv" and integers.shape[1] == 1 and len(integers) == integer(node, "group", 1):
        return "It is depthwise: products are added in 32 bits."
    window = _window(node, integers.shape[2:]) if node.op_type == "Conv" else None
    if window is not None:
        matrix = np.moveaxis(integers, 1, -1).reshape(len(integers), -1)
    elif node.op_type == "Gemm" and integer(node, "transB", 0):
        matrix = integers
    else:
        matrix = np.moveaxis(integers, -2, -1).reshape(-1, integers.shape[-2])
    return Exposure(
        layer,
        before.inputs[0],
        zero.dtype == np.int8,
        int(zero) + (_SIGNED_OFFSET if zero.dtype == np.int8 else 0),
        matrix.astype(np.int8, copy=False),
        np.float32(layer.input_scale) * layer.weight.parameters.scale.astype(np.float32),
        window,
        window is not None or integers.ndim == 2,  # noqa: PLR2004
    )


def _window(node: ir.Node, kernel: tuple[int, ...]) -> Window:
    rank = len(kernel)
    return Window(
        kernel,
        tuple(node.attributes.get_ints("strides", [1] * rank)),
        tuple(node.attributes.get_ints("dilations", [1] * rank)),
        tuple(node.attributes.get_ints("pads", [0] * 2 * rank)),
        node.attributes.get_string("auto_pad", "NOTSET"),
    )


def saturating(model: ir.Model) -> ir.Model:
    """A copy in which sums of two products saturate at 16 bits, made of standard operators in float.

    To each layer that can saturate it adds what saturation changes: p clipped minus p, summed over the pairs at risk. These
    are whole numbers that floats hold exactly. The copy is for measuring: it is slower and larger than the model.

    Args:
        model: A QDQ graph; it stays as it was.
    """
    copy = copied(model)
    for layer in quantized_layers(copy.graph):
        found = exposure(layer)
        if isinstance(found, str) or not found.emulated:
            continue
        risky = pairs_at_risk(found.weights)
        if len(risky):
            _Correction(copy.graph, found).write(risky)
    return copy


class _Correction:
    """Adds to a layer's output what saturation changes."""

    def __init__(self, graph: ir.Graph, exposed: Exposure) -> None:
        self._graph, self._exposed = graph, exposed
        self._node = self._last = exposed.layer.node
        self._axis = 1 if exposed.window is not None else -1
        self._written = 0

    def write(self, pairs: Pairs) -> None:
        import onnx_ir as ir

        # With a float weight no runtime fuses the layer into an integer kernel, which would saturate by itself.
        weight = self._constant("weight", self._exposed.layer.weight.floats())
        back = self._node.inputs[1]
        self._node.replace_input_with(1, weight)
        if back is not None and not back.uses() and (producer := back.producer()) is not None:
            stored = [value for value in producer.inputs if value is not None]
            self._graph.remove(producer, safe=True)
            for value in stored:
                if not value.uses() and value.name is not None:
                    self._graph.initializers.pop(value.name, None)
        integers = self._add("Cast", [self._exposed.input], [ir.AttrInt64("to", int(ir.DataType.FLOAT))])
        # Centred, so that a border of zeros is a border of zero points.
        shift = self._exposed.zero_point - (_SIGNED_OFFSET if self._exposed.signed else 0)
        centred = self._add("Sub", [integers, self._constant("zero_point", np.float32(shift))])
        columns, places = self._columns(centred, pairs)
        parts = list(pairs.parts(_PAIRS))
        # Each part covers a run of output channels, with those between it and the next one.
        ends = [*(int(pairs.channel[part.start]) for part in parts[1:]), len(self._exposed.weights)]
        sums, done = [], 0
        for part, end in zip(parts, ends, strict=True):
            some = pairs.where(part)
            ones = (np.arange(done, end)[:, None] == some.channel).astype(np.float32)
            sums.append(self._summed(columns, [place[part] for place in places], some, ones))
            done = end
        total = self._add("Concat", sums, [ir.AttrInt64("axis", self._axis)]) if len(sums) > 1 else sums[0]
        scale = self._exposed.scale
        self._join(self._add("Mul", [total, self._constant("scale", self._along(scale) if scale.ndim else scale)]))

    def _columns(self, centred: ir.Value, pairs: Pairs) -> tuple[ir.Value, list[npt.NDArray[np.intp]]]:
        """A value with all inputs of the pairs, and where along its axis those of the first and second products are."""
        import onnx_ir as ir

        window = self._exposed.window
        sources = [self._exposed.sources(pairs, offset) for offset in (0, 1)]
        if window is None or window.is_point:
            return centred, [channel for _, channel in sources]
        wanted, places = np.unique(
            np.concatenate([np.stack(source, 1) for source in sources]), axis=0, return_inverse=True
        )
        # What a place of the window sees: a depthwise convolution with one weight that is not 0 for each channel.
        weight = np.zeros((len(wanted), 1, math.prod(window.kernel)), np.float32)
        weight[np.arange(len(wanted)), 0, wanted[:, 0]] = 1
        channels = self._constant("channels", np.ascontiguousarray(wanted[:, 1]))
        gathered = self._add("Gather", [centred, channels], [ir.AttrInt64("axis", 1)])
        given = [self._node.attributes[name] for name in _WINDOW if name in self._node.attributes]
        kernel = self._constant("places", weight.reshape(len(wanted), 1, *window.kernel))
        seen = self._add("Conv", [gathered, kernel], [*given, ir.AttrInt64("group", len(wanted))])
        return seen, list(places.reshape(2, -1))

    def _summed(
        self,
        columns: ir.Value,
        places: list[npt.NDArray[np.intp]],
        pairs: Pairs,
        ones: npt.NDArray[np.float32],
    ) -> ir.Value:
        """What saturation changes, summed for each output channel of a run."""
        import onnx_ir as ir

        total = self._constant("centre", self._along(self._exposed.zero_point * (pairs.left + pairs.right)))
        for place, values in zip(places, (pairs.left, pairs.right), strict=True):
            gathered = self._add(
                "Gather", [columns, self._constant("index", place)], [ir.AttrInt64("axis", self._axis)]
            )
            product = self._add("Mul", [gathered, self._constant("pairs", self._along(values))])
            total = self._add("Add", [product, total])
        excess = self._excess(total)
        if self._exposed.window is None:
            return self._add("MatMul", [excess, self._constant("ones", np.ascontiguousarray(ones.T))])
        point = [1] * len(self._exposed.window.kernel)
        return self._add("Conv", [excess, self._constant("ones", ones.reshape(*ones.shape, *point))])

    def _along(self, values: npt.NDArray[np.number]) -> npt.NDArray[np.float32]:
        """Made to broadcast along the axis of channels."""
        rank = len(self._exposed.window.kernel) if self._exposed.window is not None else 0
        return values.astype(np.float32).reshape(-1, *[1] * rank)

    def _excess(self, sums: ir.Value) -> ir.Value:
        bounds = [self._constant("bound", np.float32(bound)) for bound in (LOW, HIGH)]
        return self._add("Sub", [self._add("Clip", [sums, *bounds]), sums])

    def _join(self, correction: ir.Value) -> None:
        """Add it to the layer's output, before anything reads that."""
        output = self._node.outputs[0]
        users = [(use.node, use.idx) for use in output.uses()]
        joined = self._add("Add", [output, correction])
        joined.type, joined.shape = output.type, output.shape
        for user, position in users:
            user.replace_input_with(position, joined)
        if output.is_graph_output():
            self._graph.outputs[self._graph.outputs.index(output)] = joined
            name = output.name
            output.name, joined.name = f"{name}_exact", name

    def _constant(self, what: str, array: npt.NDArray[np.generic] | np.float32) -> ir.Value:
        name = f"accel_saturation_{self._node.name}_{what}_{len(self._graph.initializers)}"
        return named_constant(self._graph, name, np.asarray(array))

    def _add(self, operator: str, inputs: list[ir.Value], attributes: list[ir.Attr] | None = None) -> ir.Value:
        import onnx_ir as ir

        self._written += 1
        name = f"accel_saturation_{self._node.name}_{self._written}"
        node = ir.Node("", operator, inputs, attributes or [], name=name)
        self._graph.insert_after(self._last, node)
        self._last = node
        node.outputs[0].name = f"{node.name}_output"
        node.outputs[0].type = ir.TensorType(ir.DataType.FLOAT)
        return node.outputs[0]
