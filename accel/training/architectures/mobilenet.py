"""A network of inverted residuals."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from accel.training.architecture import ImageArchitecture
from accel.training.entering import LARGE_IMAGE, image
from accel.training.input_shapes import InputShape
from accel.training.losses import Task

if TYPE_CHECKING:
    import onnx_ir

    from accel.graph.building import Activation, GraphBuilder


@dataclass(frozen=True, slots=True)
class _Stage:
    expansion: bool
    channels: int
    blocks: int
    stride: int


_STAGES = (
    _Stage(False, 16, 1, 1),
    _Stage(True, 24, 2, 2),
    _Stage(True, 32, 3, 2),
    _Stage(True, 64, 4, 2),
    _Stage(True, 96, 3, 1),
    _Stage(True, 160, 3, 2),
    _Stage(True, 320, 1, 1),
)
"""MobileNetV2's table 2, at width 1."""
_STEM, _LAST = 32, 1280
_FIRST_HALVING = 2
"""The first stage that halves; where the stem is small, it does not."""


class Mobilenet(ImageArchitecture):
    """Inverted residuals with depthwise convolutions, for images where multiply-accumulates count: MobileNetV2.

    Source: Sandler et al., CVPR 2018.
    """

    architecture: Literal["mobilenet"] = "mobilenet"

    width: float = Field(
        1.0, ge=0.1, le=4, description="Factor of all numbers of channels, which are rounded to multiples of 8."
    )
    expansion: int = Field(6, ge=1, le=16, description="How many times wider a block is inside.")
    stem: Literal["auto", "small", "large"] = Field(
        "auto",
        description="`large` halves the image five times, `small` leaves out the first two. `auto` is large from 96 pixels a side.",
    )
    batch_norm: bool = Field(
        True, description="Normalise after each convolution; the images may then come in any scale."
    )
    dropout: float = Field(
        0.2, ge=0, lt=1, description="Share of the values before the last layer that is dropped in training."
    )

    def build(
        self, inputs: tuple[InputShape, ...], outputs: int, seed: int, task: Task = "classification"
    ) -> onnx_ir.Model:
        """Write stem, blocks and head."""
        graph = self.begin(inputs, seed)
        from accel.graph.building import sizes

        x = image(graph, inputs[0], self.layout)
        large = min(sizes(x)[2:]) >= LARGE_IMAGE if self.stem == "auto" else self.stem == "large"
        x = self._conv(graph, "stem", x, self._scaled(_STEM), 3, stride=2 if large else 1, activation="relu6")
        for number, stage in enumerate(_STAGES, 1):
            for block in range(1, stage.blocks + 1):
                stride = stage.stride if block == 1 and (large or number > _FIRST_HALVING) else 1
                expansion = self.expansion if stage.expansion else 1
                x = self._block(
                    graph, f"stage{number}.block{block}", x, self._scaled(stage.channels), stride, expansion
                )
        x = self._conv(graph, "last", x, max(_LAST, self._scaled(_LAST)), 1, activation="relu6")
        x = graph.dropout("dropout", graph.global_average("average", x), self.dropout)
        return self.end(graph, x, outputs, task)

    def _scaled(self, channels: int) -> int:
        """A multiple of 8, and no less than nine tenths of what the factor makes of a number of channels."""
        wanted = channels * self.width
        rounded = max(8, int(wanted + 4) // 8 * 8)
        return rounded + 8 if rounded < 0.9 * wanted else rounded

    def _block(
        self, graph: GraphBuilder, name: str, x: onnx_ir.Value, channels: int, stride: int, expansion: int
    ) -> onnx_ir.Value:
        from accel.graph.building import sizes

        given = sizes(x)[1]
        inside = x
        if expansion > 1:
            inside = self._conv(graph, f"{name}.expand", inside, given * expansion, 1, activation="relu6")
        wide = given * expansion
        inside = self._conv(graph, f"{name}.depthwise", inside, wide, 3, stride=stride, groups=wide, activation="relu6")
        residual = stride == 1 and given == channels
        inside = self._conv(graph, f"{name}.project", inside, channels, 1, closed=residual and not self.batch_norm)
        return graph.add(f"{name}.add", inside, x) if residual else inside

    def _conv(
        self,
        graph: GraphBuilder,
        name: str,
        x: onnx_ir.Value,
        channels: int,
        kernel: int,
        *,
        stride: int = 1,
        groups: int = 1,
        activation: Activation | None = None,
        closed: bool = False,
    ) -> onnx_ir.Value:
        """A convolution, its batch norm and its activation; one that is closed gives zeros at first."""
        from accel.graph.building import sizes
        from accel.graph.initial_weights import RELU_GAIN, filled, he

        initial = he(sizes(x)[1] // groups * kernel**2, 1 if activation is None else RELU_GAIN)
        x = graph.conv(
            f"{name}.conv",
            x,
            channels,
            kernel,
            stride=stride,
            groups=groups,
            bias=not self.batch_norm,
            initial=filled(0) if closed else initial,
        )
        if self.batch_norm:
            x = graph.batch_norm(f"{name}.norm", x)
        return x if activation is None else graph.activation(f"{name}.{activation}", x, activation)
