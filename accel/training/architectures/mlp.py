"""Fully connected layers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from accel.training.architecture import Architecture
from accel.training.entering import table
from accel.training.input_shapes import InputShape, Kind
from accel.training.losses import Task

if TYPE_CHECKING:
    import onnx_ir


class Mlp(Architecture):
    """Fully connected layers, for tables: rows of numbers from one column or several.

    Rows of other shapes are flattened. With `batch_norm` the numbers may come in any scale.
    """

    architecture: Literal["mlp"] = "mlp"
    takes: ClassVar[tuple[Kind, ...]] = ("table",)

    hidden: tuple[Annotated[int, Field(ge=1, le=16_384)], ...] = Field(
        (256, 128), max_length=32, description="Width of each hidden layer; none for a linear model."
    )
    activation: Literal["relu", "leaky_relu", "gelu", "silu", "tanh"] = "relu"
    batch_norm: bool = Field(True, description="Normalise the inputs, and each hidden layer before its activation.")
    dropout: float = Field(
        0.0, ge=0, lt=1, description="Share of each hidden layer's values that is dropped in training."
    )

    def build(
        self, inputs: tuple[InputShape, ...], outputs: int, seed: int, task: Task = "classification"
    ) -> onnx_ir.Model:
        """Write the layers."""
        graph = self.begin(inputs, seed)
        from accel.graph.building import gain, sizes
        from accel.graph.initial_weights import he

        x = table(graph, inputs)
        if self.batch_norm:
            x = graph.batch_norm("input_norm", x)
        for number, width in enumerate(self.hidden, 1):
            layer = f"hidden{number}"
            initial = he(sizes(x)[1], gain(self.activation))
            x = graph.linear(f"{layer}.linear", x, width, bias=not self.batch_norm, initial=initial)
            if self.batch_norm:
                x = graph.batch_norm(f"{layer}.norm", x)
            x = graph.activation(f"{layer}.{self.activation}", x, self.activation)
            x = graph.dropout(f"{layer}.dropout", x, self.dropout)
        return self.end(graph, x, outputs, task)
