"""Bring rows, as the dataset has them, to the axes that layers want."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from accel.errors import BindingMismatch
from accel.training.input_shapes import InputShape, Layout

if TYPE_CHECKING:
    import onnx_ir

    from accel.graph.building import GraphBuilder

LARGE_IMAGE = 96
"""Pixels a side from which a network makes an image smaller before anything else."""


def image(graph: GraphBuilder, shape: InputShape, layout: Layout) -> onnx_ir.Value:
    """An input of images as [batch, channels, height, width], float32."""
    x = graph.input(shape.name, shape.shape)
    if len(shape.shape) == 2:  # noqa: PLR2004  (height and width)
        return graph.add_axis(f"{shape.name}.channels", x, 1)
    return graph.transpose(f"{shape.name}.channels_first", x, (0, 3, 1, 2)) if shape.channels_last(layout) else x


def series(graph: GraphBuilder, shape: InputShape, layout: Layout) -> onnx_ir.Value:
    """An input of series as [batch, channels, length], float32."""
    x = graph.input(shape.name, shape.shape)
    if len(shape.shape) == 1:
        return graph.add_axis(f"{shape.name}.channels", x, 1)
    return graph.transpose(f"{shape.name}.channels_first", x, (0, 2, 1)) if shape.channels_last(layout) else x


def table(graph: GraphBuilder, shapes: Sequence[InputShape]) -> onnx_ir.Value:
    """All inputs side by side as [batch, numbers], float32."""
    from accel.graph.building import BATCH, sizes

    parts = []
    for shape in shapes:
        x = graph.input(shape.name, shape.shape)
        parts.append(x if len(shape.shape) == 1 else graph.flatten(f"{shape.name}.flat", x))
    if len(parts) == 1:
        return parts[0]
    return graph.node("Concat", "features", parts, (BATCH, sum(sizes(part)[1] for part in parts)), axis=1)


def tokens(graph: GraphBuilder, shape: InputShape) -> onnx_ir.Value:
    """An input of token numbers as [batch, length], int64."""
    import onnx_ir

    return graph.input(shape.name, shape.shape, onnx_ir.DataType.INT64)


def vocabulary(shape: InputShape, given: int | None, architecture: str) -> int:
    """How many tokens there are.

    Args:
        shape: The input that holds them.
        given: What the caller says; None to go by the dataset.
        architecture: Who asks.

    Raises:
        BindingMismatch: Neither says it, or the dataset has more.
    """
    if given is None and shape.ids is None:
        raise BindingMismatch(
            f"The architecture {architecture!r} reads the input {shape} as tokens, but not all of its values are whole numbers "
            "from 0 up.",
            hint="Number the tokens from 0, or choose an architecture for series: conv1d, or recurrent with `reads: series`.",
        )
    if given is not None and shape.ids is not None and shape.ids > given:
        raise BindingMismatch(
            f"The input {shape} holds the token {shape.ids - 1:,}, but the vocabulary has {given:,} tokens, numbered from 0.",
            hint=f"Set `vocabulary` to {shape.ids:,} at least, or leave it out.",
        )
    return given or shape.ids or 1
