"""Convolutions and transposed convolutions."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F  # noqa: N812  (as everybody calls it)
from torch import Tensor

from accel.graph.torch_graph.activation import ACTIVATIONS, Activation
from accel.graph.torch_graph.node import Node
from accel.graph.torch_graph.registry import Run, operator, unsupported
from accel.graph.torch_graph.windows import halves, in_pairs, spread, windows_of

Convolve = Callable[..., Tensor]
"""Input [batch, channels, *sizes], weight, bias [outputs] or None: output [batch, outputs, *sizes]."""


@operator("Conv")
def conv(node: Node) -> Run:
    """Convolution over any number of axes up to three."""
    return _convolution(node)


@operator("FusedConv", domain="com.microsoft")
def fused_conv(node: Node) -> Run:
    """Convolution, a sum with a tensor of the same shape if there is one, and an activation; from ONNX Runtime's optimiser."""
    convolve, activate = _convolution(node), _activation(node)

    def run(x: Tensor, weight: Tensor, bias: Tensor | None = None, added: Tensor | None = None) -> Tensor:
        y = convolve(x, weight, bias)
        return activate(y if added is None else y + added)

    return run


@operator("CausalConvWithState", since=27)
def causal_conv_with_state(node: Node) -> Run:
    """Convolution of each channel with what came before it; what the next call needs of this one is its second output."""
    named = node.string("activation", "none")
    if named not in {"none", "silu", "swish"}:
        raise unsupported(node, f"its activation {named!r} is unknown")
    activate = named != "none"

    def run(x: Tensor, weight: Tensor, bias: Tensor | None = None, past: Tensor | None = None) -> tuple[Tensor, Tensor]:
        before = weight.shape[2] - 1
        extended = F.pad(x, [before, 0]) if past is None else torch.cat([past, x], 2)
        y = torch.convolution(extended, weight, bias, [1], [0], [1], False, [0], weight.shape[0])
        return F.silu(y) if activate else y, extended[:, :, extended.shape[2] - before :]

    return run


@operator("ConvTranspose")
def conv_transpose(node: Node) -> Run:
    """Transposed convolution: each input element adds the kernel, scaled by it, to the output."""
    windows, groups = windows_of(node), node.int("group", 1)
    strides, dilations = list(windows.strides), list(windows.dilations)
    extra, wanted = node.ints("output_padding") or (0,), node.ints("output_shape")
    if windows.even and not wanted:
        padding, beyond = list(windows.begins), list(extra)

        def run(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
            return torch.convolution(x, weight, bias, strides, padding, dilations, True, beyond, groups)

        return run

    def cut(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        rank = x.ndim - 2
        whole = torch.convolution(x, weight, None, strides, [0], dilations, True, [0], groups)
        begins, ends = spread(windows.begins, rank), spread(windows.ends, rank)
        added = spread(extra, rank)
        if wanted or windows.same:
            sizes = [size + more for size, more in zip(whole.shape[2:], added, strict=True)]
            goals = (
                wanted[-rank:]
                or [
                    min(size, length * stride)  # a kernel that is shorter than its stride leaves nothing to cut
                    for size, length, stride in zip(sizes, x.shape[2:], spread(windows.strides, rank), strict=True)
                ]
            )
            totals = [size - goal for size, goal in zip(sizes, goals, strict=True)]
            begins, ends = halves(totals, upper=windows.same == "SAME_UPPER")
        ends = tuple(end - more for end, more in zip(ends, added, strict=True))
        y = F.pad(whole, in_pairs([-begin for begin in begins], [-end for end in ends]))
        return y if bias is None else y + bias.reshape(-1, *[1] * rank)

    return cut


def _convolution(node: Node) -> Convolve:
    windows, groups = windows_of(node), node.int("group", 1)
    strides, dilations = list(windows.strides), list(windows.dilations)
    if windows.even:
        padding = list(windows.begins)

        def run(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
            return torch.convolution(x, weight, bias, strides, padding, dilations, False, [0], groups)

        return run

    def padded(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        begins, ends = windows.padding(x.shape[2:], weight.shape[2:])
        if begins == ends and min(begins) >= 0:
            return torch.convolution(x, weight, bias, strides, list(begins), dilations, False, [0], groups)
        wide = F.pad(x, in_pairs(begins, ends))
        return torch.convolution(wide, weight, bias, strides, [0], dilations, False, [0], groups)

    return padded


def _activation(node: Node) -> Activation:
    """What ONNX Runtime's optimiser put behind a convolution."""
    named, given = node.string("activation", ""), node.floats("activation_params")
    if not named:
        return lambda x: x
    if named == "Clip":
        return lambda x: torch.clamp(x, *given)
    if named not in ACTIVATIONS:
        raise unsupported(node, f"its activation {named!r} is unknown")
    return ACTIVATIONS[named](*given)
