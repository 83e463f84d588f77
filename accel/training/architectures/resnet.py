"""A residual network."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, model_validator

from accel.training.architecture import ImageArchitecture
from accel.training.entering import LARGE_IMAGE, image
from accel.training.input_shapes import InputShape
from accel.training.losses import Task

if TYPE_CHECKING:
    import onnx_ir

    from accel.graph.building import GraphBuilder


class Resnet(ImageArchitecture):
    """Residual blocks of two convolutions, for images from about 16 to 512 pixels a side.

    `depths` 2, 2, 2, 2 with `widths` 64, 128, 256, 512 are ResNet-18; 3, 4, 6, 3 are ResNet-34. The defaults are for small images.
    Each block adds to what it is given; at first it adds nothing. Source: He et al., CVPR 2016.
    """

    architecture: Literal["resnet"] = "resnet"

    depths: tuple[Annotated[int, Field(ge=1, le=64)], ...] = Field(
        (2, 2, 2),
        min_length=1,
        max_length=6,
        description="Blocks of each stage; every stage but the first halves the image.",
    )
    widths: tuple[Annotated[int, Field(ge=1, le=4096)], ...] = Field(
        (16, 32, 64), min_length=1, max_length=6, description="Channels of each stage."
    )
    stem: Literal["auto", "small", "large"] = Field(
        "auto",
        description="What the image passes first: a convolution of 3 x 3 that keeps its size, or one of 7 x 7 and a pooling that make "
        "it a quarter as high and wide. `auto` is large from 96 pixels a side.",
    )
    batch_norm: bool = Field(
        True, description="Normalise after each convolution; the images may then come in any scale."
    )
    dropout: float = Field(
        0.0, ge=0, lt=1, description="Share of the values before the last layer that is dropped in training."
    )

    @model_validator(mode="after")
    def _stages_agree(self) -> Resnet:
        if len(self.depths) != len(self.widths):
            raise ValueError("depths and widths must have a number for each stage, the same number of stages")
        return self

    def build(
        self, inputs: tuple[InputShape, ...], outputs: int, seed: int, task: Task = "classification"
    ) -> onnx_ir.Model:
        """Write stem, stages and head."""
        graph = self.begin(inputs, seed)
        x = self._stem(graph, image(graph, inputs[0], self.layout))
        for stage, (depth, width) in enumerate(zip(self.depths, self.widths, strict=True), 1):
            for number in range(1, depth + 1):
                stride = 2 if stage > 1 and number == 1 else 1
                x = self._block(graph, f"stage{stage}.block{number}", x, width, stride)
        x = graph.dropout("dropout", graph.global_average("average", x), self.dropout)
        return self.end(graph, x, outputs, task)

    def _stem(self, graph: GraphBuilder, x: onnx_ir.Value) -> onnx_ir.Value:
        from accel.graph.building import sizes

        large = min(sizes(x)[2:]) >= LARGE_IMAGE if self.stem == "auto" else self.stem == "large"
        x = self._conv(graph, "stem", x, self.widths[0], 7 if large else 3, 2 if large else 1)
        x = graph.activation("stem.relu", x, "relu")
        return graph.pool("stem.pool", x, "max", 3, stride=2, padding=1) if large else x

    def _block(self, graph: GraphBuilder, name: str, x: onnx_ir.Value, width: int, stride: int) -> onnx_ir.Value:
        from accel.graph.building import sizes

        inside = graph.activation(f"{name}.relu1", self._conv(graph, f"{name}.1", x, width, 3, stride), "relu")
        branch = self._conv(graph, f"{name}.2", inside, width, 3, 1, closed=True)
        if stride > 1 or sizes(x)[1] != width:
            x = self._conv(graph, f"{name}.shortcut", x, width, 1, stride, rectified=False)
        return graph.activation(f"{name}.relu2", graph.add(f"{name}.add", branch, x), "relu")

    def _conv(
        self,
        graph: GraphBuilder,
        name: str,
        x: onnx_ir.Value,
        width: int,
        kernel: int,
        stride: int,
        *,
        closed: bool = False,
        rectified: bool = True,
    ) -> onnx_ir.Value:
        """A convolution and its batch norm; one that is closed gives zeros at first."""
        from accel.graph.building import sizes
        from accel.graph.initial_weights import RELU_GAIN, filled, he

        initial = he(sizes(x)[1] * kernel**2, RELU_GAIN if rectified else 1)
        if closed and not self.batch_norm:
            initial = filled(0)
        x = graph.conv(f"{name}.conv", x, width, kernel, stride=stride, bias=not self.batch_norm, initial=initial)
        return graph.batch_norm(f"{name}.norm", x, scale=0 if closed else 1) if self.batch_norm else x
