"""A plain convolutional network."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, field_validator

from accel.training.architecture import ImageArchitecture
from accel.training.entering import image
from accel.training.input_shapes import InputShape
from accel.training.losses import Task

if TYPE_CHECKING:
    import onnx_ir


class Cnn(ImageArchitecture):
    """Stages of convolutions, each at half the height and width of the one before, for images.

    Small and fast on processors; for images of 224 x 224 take `resnet` or `mobilenet`.
    """

    architecture: Literal["cnn"] = "cnn"

    channels: tuple[Annotated[int, Field(ge=1, le=4096)], ...] = Field(
        (16, 64, 128),
        min_length=1,
        max_length=8,
        description="Channels of each stage. The first one is computed at full size, and takes most of the time.",
    )
    convolutions: int = Field(1, ge=1, le=8, description="Convolutions of each stage.")
    kernel: int = Field(3, ge=1, le=15, description="Height and width of the convolutions; odd.")
    pooling: Literal["max", "average", "stride"] = Field(
        "max",
        description="How each stage is halved at its end: by the largest or the mean value of 2 x 2, or by a last convolution that "
        "moves two pixels at a time.",
    )
    activation: Literal["relu", "leaky_relu", "gelu", "silu", "tanh"] = "relu"
    batch_norm: bool = Field(
        True, description="Normalise after each convolution; the images may then come in any scale."
    )
    head: Literal["flatten", "average"] = Field(
        "flatten",
        description="What the last layer sees: every place of the last stage, or the mean of each channel, which needs fewer weights.",
    )
    dropout: float = Field(
        0.25, ge=0, lt=1, description="Share of the values before the last layer that is dropped in training."
    )

    @field_validator("kernel")
    @classmethod
    def _has_a_middle(cls, kernel: int) -> int:
        if kernel % 2 == 0:
            raise ValueError("kernel must be odd")
        return kernel

    def build(
        self, inputs: tuple[InputShape, ...], outputs: int, seed: int, task: Task = "classification"
    ) -> onnx_ir.Model:
        """Write the stages."""
        graph = self.begin(inputs, seed)
        from accel.graph.building import gain, sizes
        from accel.graph.initial_weights import he

        x = image(graph, inputs[0], self.layout)
        if self.pooling != "stride" and min(sizes(x)[2:]) < 2 ** len(self.channels):
            raise self.too_small(
                inputs[0],
                f"halves images {len(self.channels)} times, so that they need {2 ** len(self.channels)} x {2 ** len(self.channels)} pixels",
                "Give fewer `channels`, or set `pooling` to stride.",
            )
        for stage, channels in enumerate(self.channels, 1):
            for number in range(1, self.convolutions + 1):
                layer = f"stage{stage}.conv{number}"
                last = self.pooling == "stride" and number == self.convolutions
                x = graph.conv(
                    layer,
                    x,
                    channels,
                    self.kernel,
                    stride=2 if last else 1,
                    bias=not self.batch_norm,
                    initial=he(sizes(x)[1] * self.kernel**2, gain(self.activation)),
                )
                if self.batch_norm:
                    x = graph.batch_norm(f"stage{stage}.norm{number}", x)
                x = graph.activation(f"stage{stage}.{self.activation}{number}", x, self.activation)
            if self.pooling != "stride":
                x = graph.pool(f"stage{stage}.pool", x, self.pooling, 2)
        x = graph.flatten("flat", x) if self.head == "flatten" else graph.global_average("average", x)
        x = graph.dropout("dropout", x, self.dropout)
        return self.end(graph, x, outputs, task)
