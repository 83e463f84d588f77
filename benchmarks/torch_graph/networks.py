"""The networks of two files as anybody would write them in PyTorch, with the weights of the files."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import Tensor, nn

# expansion, kernel, stride, outputs, repeats: Tan and Le 2019, arXiv 1905.11946, table 1
_STAGES = (
    (1, 3, 1, 16, 1), (6, 3, 2, 24, 2), (6, 5, 2, 40, 2), (6, 3, 2, 80, 3), (6, 5, 1, 112, 3), (6, 5, 2, 192, 4),
    (6, 3, 1, 320, 1),
)  # fmt: skip


class _Residual(nn.Module):
    """Two 3x3 convolutions with a shortcut; the first may halve the image."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1)
        self.shortcut = nn.Identity() if (inputs, stride) == (outputs, 1) else nn.Conv2d(inputs, outputs, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        """Images [batch, inputs, h, w] to [batch, outputs, h / stride, w / stride]."""
        return torch.relu(self.conv2(torch.relu(self.conv1(x))) + self.shortcut(x))


class FashionCnn(nn.Module):
    """The example's residual network, batch norms folded."""

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, width, 3, 1, 1)
        widths = ((width, 1), (width, 1), (2 * width, 2), (2 * width, 2))
        inputs = (width, *(size for size, _ in widths))
        self.blocks = nn.Sequential(*(_Residual(size, *to) for size, to in zip(inputs, widths, strict=False)))
        self.head = nn.Linear(2 * width, 10)

    def forward(self, image: Tensor) -> Tensor:
        """Images [batch, 1, 28, 28] to logits [batch, 10]."""
        return self.head(self.blocks(torch.relu(self.stem(image))).mean(dim=(2, 3)))


class _Same(nn.Conv2d):
    """A convolution whose output has ``ceil(size / stride)`` pixels; of an even size, more is added behind than before."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, groups: int = 1) -> None:
        super().__init__(inputs, outputs, kernel, stride, padding=0 if stride > 1 else kernel // 2, groups=groups)
        before, after = (kernel - stride) // 2, kernel - stride - (kernel - stride) // 2
        self.pad = nn.ZeroPad2d((before, after, before, after)) if stride > 1 else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Images [batch, inputs, h, w] to [batch, outputs, h / stride, w / stride]."""
        return super().forward(self.pad(x))


class _Inverted(nn.Module):
    """Inverted bottleneck: wider, filtered channel by channel, narrower."""

    def __init__(self, inputs: int, outputs: int, expansion: int, kernel: int, stride: int) -> None:
        super().__init__()
        inner = inputs * expansion
        expand = (nn.Conv2d(inputs, inner, 1), nn.ReLU6()) if expansion > 1 else ()
        self.layers = nn.Sequential(
            *expand, _Same(inner, inner, kernel, stride, inner), nn.ReLU6(), nn.Conv2d(inner, outputs, 1)
        )
        self.adds = (inputs, stride) == (outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Images [batch, inputs, h, w] to [batch, outputs, h / stride, w / stride]."""
        return self.layers(x) + x if self.adds else self.layers(x)


class EfficientNetLite0(nn.Module):
    """EfficientNet-Lite0, batch norms folded."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = _Same(3, 32, 3, 2)
        self.blocks = nn.Sequential(*_blocks())
        self.top = nn.Conv2d(320, 1280, 1)
        self.head = nn.Linear(1280, 1000)

    def forward(self, image: Tensor) -> Tensor:
        """Images [batch, 3, 224, 224] to logits [batch, 1000]."""
        x = self.blocks(nn.functional.relu6(self.stem(image)))
        return self.head(nn.functional.relu6(self.top(x)).mean(dim=(2, 3)))


def _blocks() -> Iterator[_Inverted]:
    inputs = 32
    for expansion, kernel, stride, outputs, repeats in _STAGES:
        for step in (stride, *(1,) * (repeats - 1)):
            yield _Inverted(inputs, outputs, expansion, kernel, step)
            inputs = outputs


@dataclass(frozen=True)
class Network:
    """A file, and the network that it is."""

    path: Path
    plain: type[nn.Module]
    input_shape: tuple[int, ...]
    batch_size: int


def loaded(network: Network) -> nn.Module:
    """The plain network with the weights of the file, whose layers are in the same order."""
    module = network.plain()
    graph = onnx.load(network.path).graph
    stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    layers = [node for node in graph.node if node.op_type in {"Conv", "Gemm"}]
    modules = [layer for layer in module.modules() if isinstance(layer, nn.Conv2d | nn.Linear)]
    with torch.no_grad():
        for layer, node in zip(modules, layers, strict=True):
            layer.weight.copy_(torch.from_numpy(np.array(stored[node.input[1]])))
            layer.bias.copy_(torch.from_numpy(np.array(stored[node.input[2]])))
    return module
