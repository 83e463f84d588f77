"""Recurrent layers: by PyTorch's kernels where these compute the same, or else step by step."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812  (as everybody calls it)

from accel.graph.torch_graph import recurrent_kernels as kernels
from accel.graph.torch_graph.node import Node
from accel.graph.torch_graph.operators.integer_arithmetic import dynamic_product
from accel.graph.torch_graph.recurrence import (
    Recurrence,
    States,
    Step,
    gru_step,
    lstm_step,
    recurrence_of,
    rnn_step,
    unrolled,
)
from accel.graph.torch_graph.registry import Run, operator

Weights = tuple[Tensor, Tensor, Tensor | None]
"""Of the inputs and of the outputs before, with their biases; the first axis of each is that of the directions."""
Direction = Callable[[int, Tensor], tuple[Tensor, Step]]
"""For one direction and the inputs [time, batch, inputs]: their products, and what a time step computes."""


@operator("LSTM")
def lstm(node: Node) -> Run:
    """Long short-term memory."""
    layer, coupled = recurrence_of(node, ("Sigmoid", "Tanh", "Tanh")), bool(node.int("input_forget", 0))
    native = not coupled and layer.is_plain(("Sigmoid", "Tanh", "Tanh"))

    def run(
        x: Tensor,
        weight: Tensor,
        recurrent: Tensor,
        bias: Tensor | None = None,
        lengths: Tensor | None = None,
        hidden: Tensor | None = None,
        cell: Tensor | None = None,
        peepholes: Tensor | None = None,
    ) -> tuple[Tensor, ...]:
        def direction(place: int, inputs: Tensor) -> tuple[Tensor, Step]:
            seen, matrix = None if peepholes is None else peepholes[place], recurrent[place].t()
            step = lstm_step(lambda h: h @ matrix, layer.activations[place], layer.clip, seen, coupled=coupled)
            return F.linear(inputs, weight[place], _summed(bias, place)), step

        kernel = kernels.LSTM if native and peepholes is None else None
        return _run(layer, kernel, x, (weight, recurrent, bias), lengths, (hidden, cell), direction)

    return run


@operator("GRU")
def gru(node: Node) -> Run:
    """Gated recurrent unit."""
    layer, first = recurrence_of(node, ("Sigmoid", "Tanh")), bool(node.int("linear_before_reset", 0))
    kernel = kernels.GRU if first and layer.is_plain(("Sigmoid", "Tanh")) else None

    def run(
        x: Tensor,
        weight: Tensor,
        recurrent: Tensor,
        bias: Tensor | None = None,
        lengths: Tensor | None = None,
        hidden: Tensor | None = None,
    ) -> tuple[Tensor, ...]:
        def direction(place: int, inputs: Tensor) -> tuple[Tensor, Step]:
            entering, staying = (None, None) if bias is None else bias[place].chunk(2)
            step = gru_step(recurrent[place], staying, layer.activations[place], layer.clip, product_first=first)
            return F.linear(inputs, weight[place], entering), step

        return _run(layer, kernel, x, (weight, recurrent, bias), lengths, (hidden,), direction)

    return run


@operator("RNN")
def rnn(node: Node) -> Run:
    """The plain recurrent layer."""
    layer = recurrence_of(node, ("Tanh",))
    kernel = kernels.RNN.get(layer.names[0]) if layer.is_plain(layer.names[:1]) else None

    def run(
        x: Tensor,
        weight: Tensor,
        recurrent: Tensor,
        bias: Tensor | None = None,
        lengths: Tensor | None = None,
        hidden: Tensor | None = None,
    ) -> tuple[Tensor, ...]:
        def direction(place: int, inputs: Tensor) -> tuple[Tensor, Step]:
            matrix = recurrent[place].t()
            step = rnn_step(lambda h: h @ matrix, layer.activations[place], layer.clip)
            return F.linear(inputs, weight[place], _summed(bias, place)), step

        return _run(layer, kernel, x, (weight, recurrent, bias), lengths, (hidden,), direction)

    return run


@operator("DynamicQuantizeLSTM", domain="com.microsoft")
def dynamic_quantize_lstm(node: Node) -> Run:
    """LSTM whose weights are integers, and whose input and state are quantized for each product with them.

    Weights are [directions, inputs, gates * hidden]; scales and zero points [directions] or [directions, gates * hidden].
    Of sequences of different lengths ONNX Runtime takes another range for the state: results differ by about one of its steps.
    """
    layer, coupled = recurrence_of(node, ("Sigmoid", "Tanh", "Tanh")), bool(node.int("input_forget", 0))

    def run(
        x: Tensor,
        weight: Tensor,
        recurrent: Tensor,
        bias: Tensor | None,
        lengths: Tensor | None,
        hidden: Tensor | None,
        cell: Tensor | None,
        peepholes: Tensor | None,
        scale: Tensor,
        zero: Tensor,
        recurrent_scale: Tensor,
        recurrent_zero: Tensor,
    ) -> tuple[Tensor, ...]:
        def direction(place: int, inputs: Tensor) -> tuple[Tensor, Step]:
            products = dynamic_product(inputs, weight[place], scale[place], zero[place])
            shift = _summed(bias, place)
            step = lstm_step(
                lambda h: dynamic_product(h, recurrent[place], recurrent_scale[place], recurrent_zero[place]),
                layer.activations[place],
                layer.clip,
                None if peepholes is None else peepholes[place],
                coupled=coupled,
            )
            return products if shift is None else products + shift, step

        turned = recurrent.transpose(1, 2)
        return _run(layer, None, x, (weight, turned, bias), lengths, (hidden, cell), direction)

    return run


def _run(
    layer: Recurrence,
    kernel: kernels.Kernel | None,
    x: Tensor,
    weights: Weights,
    lengths: Tensor | None,
    starts: tuple[Tensor | None, ...],
    direction: Direction,
) -> tuple[Tensor, ...]:
    """A layer over its sequences: outputs [time, directions, batch, hidden], and states [directions, batch, hidden]."""
    if layer.batch_first:
        x = x.transpose(0, 1)
        starts = tuple(None if start is None else start.transpose(0, 1) for start in starts)
    count, hidden = len(layer.backward), weights[1].shape[-1]
    zeros = x.new_zeros(count, x.shape[1], hidden)
    states = tuple(zeros if start is None else start for start in starts)
    sizes = None if lengths is None else lengths.tolist()
    if sizes is not None and all(size == x.shape[0] for size in sizes):
        sizes = None
    if kernel is not None and min(sizes or [1]) > 0:
        backward = layer.backward == (True,)
        y, after = kernels.run(kernel, x, weights, states, sizes, backward=backward)
        y = y.reshape(*y.shape[:2], count, hidden).transpose(1, 2)
    else:
        y, after = _stepwise(layer, x, states, None if sizes is None else lengths, direction)
    if layer.batch_first:
        return y.permute(2, 0, 1, 3), *(state.transpose(0, 1) for state in after)
    return y, *after


def _stepwise(
    layer: Recurrence, x: Tensor, states: States, lengths: Tensor | None, direction: Direction
) -> tuple[Tensor, States]:
    outputs, ends = [], []
    for place, backward in enumerate(layer.backward):
        products, step = direction(place, x)
        found, after = unrolled(step, products, tuple(state[place] for state in states), lengths, backward=backward)
        outputs.append(found)
        ends.append(after)
    return torch.stack(outputs, 1), tuple(torch.stack(parts) for parts in zip(*ends, strict=True))


def _summed(bias: Tensor | None, place: int) -> Tensor | None:
    """The biases of the inputs and of the outputs before, [gates * hidden], which are added anyway."""
    return None if bias is None else torch.add(*bias[place].chunk(2))
