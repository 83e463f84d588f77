"""A transformer that reads tokens."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field, model_validator

from accel.training.architecture import Architecture
from accel.training.entering import tokens, vocabulary
from accel.training.input_shapes import InputShape, Kind
from accel.training.losses import Task

if TYPE_CHECKING:
    import onnx_ir

    from accel.graph.building import GraphBuilder


class Transformer(Architecture):
    """A transformer's encoder over tokens, for text: every token sees every other.

    Each place has a learned vector, so that the length is that of the dataset's rows. Layers normalise first (Xiong et al., ICML 2020),
    which trains without a warm-up. Source: Vaswani et al., NeurIPS 2017.
    """

    architecture: Literal["transformer"] = "transformer"
    takes: ClassVar[tuple[Kind, ...]] = ("tokens",)

    width: int = Field(128, ge=1, le=8192, description="Numbers of each token's vector.")
    layers: int = Field(2, ge=1, le=96)
    heads: int = Field(4, ge=1, le=128, description="Of attention; they share out the width.")
    feed_forward: int | None = Field(
        None,
        ge=1,
        le=32_768,
        description="Width inside each layer's fully connected part; four times `width`, if left out.",
    )
    activation: Literal["relu", "leaky_relu", "gelu", "silu", "tanh"] = "gelu"
    dropout: float = Field(
        0.1, ge=0, lt=1, description="Share of embeddings, attention and layers' results that is dropped in training."
    )
    vocabulary: int | None = Field(
        None,
        ge=1,
        le=10_000_000,
        description="How many tokens there are, numbered from 0; as many as the dataset has, if left out.",
    )
    padding_id: int | None = Field(
        0, ge=0, description="Token that only fills a row up, and is not seen; null where there is none."
    )
    pooling: Literal["mean", "first"] = Field(
        "mean", description="What the last layer sees: the mean over all tokens, or the first one's vector."
    )

    @model_validator(mode="after")
    def _heads_share_the_width(self) -> Transformer:
        if self.width % self.heads:
            raise ValueError(f"width must be a multiple of heads; {self.width} is none of {self.heads}")
        return self

    def build(
        self, inputs: tuple[InputShape, ...], outputs: int, seed: int, task: Task = "classification"
    ) -> onnx_ir.Model:
        """Write embedding, layers and head."""
        graph = self.begin(inputs, seed)
        from accel.graph.building import BATCH, dims_of
        from accel.graph.building_sequences import attention_mask, mean_over, padding
        from accel.graph.initial_weights import normal

        (shape,) = inputs
        ids = tokens(graph, shape)
        x = graph.embedding("embedding", ids, vocabulary(shape, self.vocabulary, self.tag()), self.width)
        places = graph.weight("places.weight", (*shape.shape, self.width), normal(1))
        x = graph.dropout("dropout", graph.node("Add", "places", [x, places], dims_of(x)), self.dropout)
        filled = None if self.padding_id is None else padding(graph, "padding", ids, self.padding_id)
        mask = None if filled is None else attention_mask(graph, "mask", filled)
        for number in range(1, self.layers + 1):
            x = self._layer(graph, f"layer{number}", x, mask)
        x = graph.layer_norm("norm", x)
        if self.pooling == "mean":
            x = mean_over(graph, "mean", x, filled)
        else:
            x = graph.node("Gather", "first", [x, graph.whole_number("first.place", 0)], (BATCH, self.width), axis=1)
        return self.end(graph, x, outputs, task)

    def _layer(self, graph: GraphBuilder, name: str, x: onnx_ir.Value, mask: onnx_ir.Value | None) -> onnx_ir.Value:
        from accel.graph.building import gain
        from accel.graph.building_sequences import attention
        from accel.graph.initial_weights import he

        seen = graph.layer_norm(f"{name}.norm1", x)
        seen = attention(graph, f"{name}.attention", seen, self.heads, mask=mask, dropout=self.dropout)
        x = graph.add(f"{name}.add1", x, graph.dropout(f"{name}.dropout1", seen, self.dropout))
        inside = self.feed_forward or 4 * self.width
        thought = graph.layer_norm(f"{name}.norm2", x)
        thought = graph.linear(f"{name}.expand", thought, inside, initial=he(self.width, gain(self.activation)))
        thought = graph.activation(f"{name}.{self.activation}", thought, self.activation)
        thought = graph.linear(f"{name}.project", thought, self.width)
        return graph.add(f"{name}.add2", x, graph.dropout(f"{name}.dropout2", thought, self.dropout))
