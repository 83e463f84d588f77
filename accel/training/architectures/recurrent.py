"""LSTM and GRU layers."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from accel.errors import BindingMismatch
from accel.training.architecture import Architecture
from accel.training.entering import series, tokens, vocabulary
from accel.training.input_shapes import NEEDED, InputShape, Kind, Layout
from accel.training.losses import Task

if TYPE_CHECKING:
    import onnx_ir

    from accel.graph.building_sequences import Padding


class Recurrent(Architecture):
    """LSTM or GRU layers, which read a series or a text step by step."""

    architecture: Literal["recurrent"] = "recurrent"
    takes: ClassVar[tuple[Kind, ...]] = ("series", "tokens")

    cell: Literal["lstm", "gru"] = "lstm"
    width: int = Field(128, ge=1, le=8192, description="Of a layer's state, in each direction.")
    layers: int = Field(1, ge=1, le=16)
    bidirectional: bool = Field(False, description="Read backwards, too.")
    pooling: Literal["last", "mean"] = Field(
        "last",
        description="What the last layer sees: the state after the last step of each direction, or the mean over all steps.",
    )
    dropout: float = Field(0.1, ge=0, lt=1, description="Share of each layer's results that is dropped in training.")
    batch_norm: bool = Field(
        True,
        description="Normalise each channel of a series first, so that it may come in any scale. Tokens need none.",
    )
    reads: Literal["auto", "tokens", "series"] = Field(
        "auto", description="What rows of whole numbers are; `auto` takes them for tokens where none is below 0."
    )
    embedding: int = Field(64, ge=1, le=8192, description="Numbers of each token's vector.")
    vocabulary: int | None = Field(
        None,
        ge=1,
        le=10_000_000,
        description="How many tokens there are, numbered from 0; as many as the dataset has, if left out.",
    )
    padding_id: int | None = Field(
        0, ge=0, description="Token that fills rows up behind their end, and is not read; null where there is none."
    )
    layout: Layout = Field(
        "auto", description="Which axis of a series holds its channels, where it has two; `auto` takes the smaller one."
    )

    def build(
        self, inputs: tuple[InputShape, ...], outputs: int, seed: int, task: Task = "classification"
    ) -> onnx_ir.Model:
        """Write embedding or normalisation, layers and head."""
        graph = self.begin(inputs, seed)
        from accel.graph.building_sequences import end_of, mean_over, padding, recurrent, sequence_of, steps_of

        (shape,) = inputs
        filled: Padding | None = None
        if self._as_tokens(shape):
            ids = tokens(graph, shape)
            x = graph.embedding("embedding", ids, vocabulary(shape, self.vocabulary, self.tag()), self.embedding)
            filled = None if self.padding_id is None else padding(graph, "padding", ids, self.padding_id)
            x = graph.transpose("steps_first", x, (1, 0, 2))
        else:
            x = series(graph, shape, self.layout)
            x = graph.batch_norm("input_norm", x) if self.batch_norm else x
            x = graph.transpose("steps_first", x, (2, 0, 1))
        lengths = None if filled is None else steps_of(graph, "lengths", filled)
        for number in range(1, self.layers + 1):
            layer = f"{self.cell}{number}"
            found = recurrent(graph, layer, x, self.cell, self.width, both_ways=self.bidirectional, lengths=lengths)
            if number < self.layers:
                x = graph.dropout(f"{layer}.dropout", sequence_of(graph, f"{layer}.sequence", found), self.dropout)
        if self.pooling == "last":
            x = end_of(graph, "last", found)
        else:
            rows_first = graph.transpose("rows_first", sequence_of(graph, "sequence", found), (1, 0, 2))
            x = mean_over(graph, "mean", rows_first, filled)
        x = graph.dropout("dropout", x, self.dropout)
        return self.end(graph, x, outputs, task)

    def _as_tokens(self, shape: InputShape) -> bool:
        """Whether rows are read as tokens.

        Raises:
            BindingMismatch: They shall be, but are no whole numbers.
        """
        possible = "tokens" in shape.kinds()
        if self.reads == "tokens" and not possible:
            raise BindingMismatch(
                f"The architecture {self.tag()!r} shall read tokens, {NEEDED['tokens']}. The dataset gives {shape}.",
                hint="Set `reads` to series, or leave it out.",
            )
        return possible and (self.reads == "tokens" or (self.reads == "auto" and shape.ids is not None))
