"""Layers over sequences, for the graph builder: attention, and recurrent layers."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import onnx_ir as ir

from accel.graph.building import BATCH, Dims, GraphBuilder, Result, dims_of, sizes
from accel.graph.initial_weights import Floats, Initial, glorot, orthogonal

Cell = Literal["lstm", "gru"]
_GATES: dict[Cell, int] = {"lstm": 4, "gru": 3}
_FORGET = 2
"""Place of the forget gate in ONNX's order: input, output, forget, cell."""
_MASKED = -1e4
"""Added to the scores of what must not be seen: nothing is left of it after a Softmax, and float16 still holds it."""


@dataclass(frozen=True, slots=True)
class Padding:
    """Which places of sequences are filling."""

    kept: ir.Value
    """1 where there is a token, 0 where there is filling: float32 [batch, length]."""
    is_filling: ir.Value
    """The opposite, as bool [batch, length]."""


def padding(graph: GraphBuilder, name: str, ids: ir.Value, padding_id: int) -> Padding:
    """Find the filling of token sequences [batch, length]."""
    dims = dims_of(ids)
    filler = graph.whole_number(f"{name}.id", padding_id)
    is_filling = graph.node("Equal", f"{name}.is_filling", [ids, filler], dims, dtype=ir.DataType.BOOL)
    tokens = graph.node("Not", f"{name}.is_token", [is_filling], dims, dtype=ir.DataType.BOOL)
    kept = graph.node("Cast", f"{name}.kept", [tokens], dims, to=ir.DataType.FLOAT.value)
    return Padding(kept, is_filling)


def attention_mask(graph: GraphBuilder, name: str, filled: Padding) -> ir.Value:
    """What is added to attention's scores so that filling is not seen: [batch, 1, 1, length]."""
    (_, length) = sizes(filled.is_filling)
    hidden, seen = graph.number(f"{name}.hidden", _MASKED), graph.number(f"{name}.seen", 0)
    mask = graph.node("Where", f"{name}.rows", [filled.is_filling, hidden, seen], (BATCH, length))
    axes = graph.integers(f"{name}.axes", [1, 2])
    return graph.node("Unsqueeze", name, [mask, axes], (BATCH, 1, 1, length))


def mean_over(graph: GraphBuilder, name: str, x: ir.Value, filled: Padding | None) -> ir.Value:
    """Mean of a sequence's vectors, filling left out: [batch, length, width] to [batch, width]."""
    _, length, width = sizes(x)
    if filled is None:
        axes = graph.integers(f"{name}.axes", [1])
        return graph.node("ReduceMean", name, [x, axes], (BATCH, width), keepdims=0)
    column = graph.add_axis(f"{name}.column", filled.kept, 2)
    alone = graph.node("Mul", f"{name}.alone", [x, column], (BATCH, length, width))
    axes = graph.integers(f"{name}.axes", [1])
    total = graph.node("ReduceSum", f"{name}.total", [alone, axes], (BATCH, width), keepdims=0)
    return graph.node("Div", name, [total, _count(graph, name, filled, (BATCH, 1))], (BATCH, width))


def steps_of(graph: GraphBuilder, name: str, filled: Padding) -> ir.Value:
    """How many tokens each row has in front of its filling, one at least: int32 [batch]."""
    count = _count(graph, name, filled, (BATCH,))
    return graph.node("Cast", name, [count], (BATCH,), dtype=ir.DataType.INT32, to=ir.DataType.INT32.value)


def _count(graph: GraphBuilder, name: str, filled: Padding, dims: Dims) -> ir.Value:
    """Tokens of each row as floats; 1 where there is none, so that a row of nothing but filling can be computed."""
    axes = graph.integers(f"{name}.length_axis", [1])
    count = graph.node("ReduceSum", f"{name}.tokens", [filled.kept, axes], dims, keepdims=len(dims) - 1)
    return graph.node("Max", f"{name}.some", [count, graph.number(f"{name}.one", 1)], dims)


def attention(
    graph: GraphBuilder, name: str, x: ir.Value, heads: int, *, mask: ir.Value | None, dropout: float
) -> ir.Value:
    """Self-attention with several heads: [batch, length, width] to the same shape.

    Args:
        graph: Where it is written.
        name: Of the layer.
        x: The sequence.
        heads: How many; they share out the width.
        mask: Added to the scores [batch, heads, length, length].
        dropout: Share of the attention that is dropped while training.

    Source: Vaswani et al., "Attention Is All You Need", NeurIPS 2017.
    """
    _, length, width = sizes(x)
    size = width // heads
    scores_dims = (BATCH, heads, length, length)

    def split(part: str, order: tuple[int, ...]) -> ir.Value:
        whole = graph.linear(f"{name}.{part}", x, width)
        parted = graph.reshape(f"{name}.{part}_heads", whole, [0, length, heads, size], (BATCH, length, heads, size))
        return graph.transpose(f"{name}.{part}_split", parted, order)

    query, key, value = split("query", (0, 2, 1, 3)), split("key", (0, 2, 3, 1)), split("value", (0, 2, 1, 3))
    product = graph.node("MatMul", f"{name}.product", [query, key], scores_dims)
    scores = graph.node(
        "Mul", f"{name}.scores", [product, graph.number(f"{name}.scale", 1 / math.sqrt(size))], scores_dims
    )
    if mask is not None:
        scores = graph.node("Add", f"{name}.masked", [scores, mask], scores_dims)
    shares = graph.node("Softmax", f"{name}.shares", [scores], scores_dims, axis=-1)
    shares = graph.dropout(f"{name}.dropout", shares, dropout)
    mixed = graph.node("MatMul", f"{name}.mixed", [shares, value], (BATCH, heads, length, size))
    joined = graph.transpose(f"{name}.joined", mixed, (0, 2, 1, 3))
    flat = graph.reshape(f"{name}.flat", joined, [0, length, width], (BATCH, length, width))
    return graph.linear(f"{name}.out", flat, width)


@dataclass(frozen=True, slots=True)
class Recurrent:
    """What comes out of a recurrent layer, as ONNX has it."""

    steps: ir.Value
    """After each step: [length, directions, batch, width]."""
    end: ir.Value
    """After the last step of each direction: [directions, batch, width]."""


def recurrent(
    graph: GraphBuilder, name: str, x: ir.Value, cell: Cell, width: int, *, both_ways: bool, lengths: ir.Value | None
) -> Recurrent:
    """An LSTM or GRU layer.

    Args:
        graph: Where it is written.
        name: Of the layer.
        x: [length, batch, features].
        cell: Which.
        width: Of its state.
        both_ways: Whether a second one reads backwards.
        lengths: Steps of each sequence that are no filling, int32 [batch]; None where there is none.

    Source: Hochreiter and Schmidhuber, 1997 (LSTM); Cho et al., 2014 (GRU); the forget gate's bias of 1 is from Jozefowicz,
    Zaremba and Sutskever, "An Empirical Exploration of Recurrent Network Architectures", ICML 2015.
    """
    length, _, features = sizes(x)
    gates, ways = _GATES[cell], 2 if both_ways else 1
    weights = [
        graph.weight(f"{name}.weight", (ways, gates * width, features), glorot(features, width)),
        graph.weight(f"{name}.recurrence", (ways, gates * width, width), _each_gate(gates)),
        graph.weight(f"{name}.bias", (ways, 2 * gates * width), _bias(cell, width)),
    ]
    attributes: dict[str, str | int] = {
        "hidden_size": width,
        "direction": "bidirectional" if both_ways else "forward",
    }
    if cell == "gru":
        attributes["linear_before_reset"] = 1  # the form that libraries have fast kernels for
    results = [Result(f"{name}.steps", (length, ways, BATCH, width)), Result(f"{name}.end", (ways, BATCH, width))]
    return Recurrent(*graph.nodes(cell.upper(), name, [x, *weights, lengths], results, **attributes))


def sequence_of(graph: GraphBuilder, name: str, layer: Recurrent) -> ir.Value:
    """What a layer gives after each step, directions side by side: [length, batch, width of all directions]."""
    length, ways, _, width = sizes(layer.steps)
    beside = graph.transpose(f"{name}.beside", layer.steps, (0, 2, 1, 3))
    return graph.reshape(name, beside, [0, 0, ways * width], (length, BATCH, ways * width))


def end_of(graph: GraphBuilder, name: str, layer: Recurrent) -> ir.Value:
    """What a layer gives after the last step of each direction, side by side: [batch, width of all directions]."""
    return graph.flatten(name, graph.transpose(f"{name}.beside", layer.end, (1, 0, 2)))


def _each_gate(gates: int) -> Initial:
    """An orthogonal matrix for each gate and direction."""

    def draw(chance: np.random.Generator, shape: tuple[int, ...]) -> Floats:
        ways, rows, width = shape
        return orthogonal(chance, (ways, gates, width, width)).reshape(ways, rows, width)

    return draw


def _bias(cell: Cell, width: int) -> Initial:
    def draw(_: np.random.Generator, shape: tuple[int, ...]) -> Floats:
        bias = np.zeros(shape, np.float32)
        if cell == "lstm":
            bias[:, _FORGET * width : (_FORGET + 1) * width] = 1
        return bias

    return draw
