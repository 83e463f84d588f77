"""Convolutions along time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field, field_validator

from accel.training.architecture import Architecture
from accel.training.entering import series
from accel.training.input_shapes import InputShape, Kind, Layout
from accel.training.losses import Task

if TYPE_CHECKING:
    import onnx_ir


class Conv1d(Architecture):
    """Stages of convolutions along time, each shorter than the one before, for audio and other series.

    For raw audio, a `first_kernel` of 5 ms or more (80 at 16 kHz) with a `first_stride` of 4 makes it fast. Source: Dai et al., "Very deep
    convolutional neural networks for raw waveforms", ICASSP 2017.
    """

    architecture: Literal["conv1d"] = "conv1d"
    takes: ClassVar[tuple[Kind, ...]] = ("series",)

    channels: tuple[Annotated[int, Field(ge=1, le=4096)], ...] = Field(
        (32, 64, 128), min_length=1, max_length=16, description="Channels of each stage."
    )
    kernel: int = Field(9, ge=1, le=255, description="Steps that a convolution sees; odd.")
    first_kernel: int | None = Field(None, ge=1, le=1023, description="The same for the first one, if different; odd.")
    first_stride: int = Field(1, ge=1, le=256, description="Steps that the first convolution moves at a time.")
    pooling: int = Field(
        4, ge=1, le=16, description="How many times shorter each stage makes the series, by largest values."
    )
    activation: Literal["relu", "leaky_relu", "gelu", "silu", "tanh"] = "relu"
    batch_norm: bool = Field(
        True, description="Normalise after each convolution; the series may then come in any scale."
    )
    dropout: float = Field(
        0.1, ge=0, lt=1, description="Share of the values before the last layer that is dropped in training."
    )
    layout: Layout = Field(
        "auto", description="Which axis of a series holds its channels, where it has two; `auto` takes the smaller one."
    )

    @field_validator("kernel", "first_kernel")
    @classmethod
    def _has_a_middle(cls, kernel: int | None) -> int | None:
        if kernel is not None and kernel % 2 == 0:
            raise ValueError("a kernel must be odd")
        return kernel

    def build(
        self, inputs: tuple[InputShape, ...], outputs: int, seed: int, task: Task = "classification"
    ) -> onnx_ir.Model:
        """Write the stages."""
        graph = self.begin(inputs, seed)
        from accel.graph.building import gain, sizes
        from accel.graph.initial_weights import he

        x = series(graph, inputs[0], self.layout)
        shortest = (self.pooling ** len(self.channels) - 1) * self.first_stride + 1
        if sizes(x)[2] < shortest:
            raise self.too_small(
                inputs[0],
                f"shortens series so much that they need {shortest:,} steps",
                "Give fewer `channels`, or set `pooling` or `first_stride` lower.",
            )
        for stage, channels in enumerate(self.channels, 1):
            kernel = self.first_kernel if stage == 1 and self.first_kernel else self.kernel
            x = graph.conv(
                f"stage{stage}.conv",
                x,
                channels,
                kernel,
                stride=self.first_stride if stage == 1 else 1,
                bias=not self.batch_norm,
                initial=he(sizes(x)[1] * kernel, gain(self.activation)),
            )
            if self.batch_norm:
                x = graph.batch_norm(f"stage{stage}.norm", x)
            x = graph.activation(f"stage{stage}.{self.activation}", x, self.activation)
            if self.pooling > 1:
                x = graph.pool(f"stage{stage}.pool", x, "max", self.pooling)
        x = graph.dropout("dropout", graph.global_average("average", x), self.dropout)
        return self.end(graph, x, outputs, task)
