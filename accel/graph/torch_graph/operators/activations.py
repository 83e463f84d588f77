"""Activations."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812  (as everybody calls it)

from accel.graph.torch_graph.activation import ACTIVATIONS, swish
from accel.graph.torch_graph.native import native
from accel.graph.torch_graph.node import Node
from accel.graph.torch_graph.registry import Run, operator, unsupported

_MICROSOFT = "com.microsoft"
_PARAMETERS = ("alpha", "beta", "gamma")
_PER_CHANNEL = 2
"""Axes from which on PyTorch's kernel takes the second one for channels."""


def _named(node: Node) -> Run:
    return ACTIVATIONS[node.native.op_type](**{name: node.float(name, 0.0) for name in _PARAMETERS if node.has(name)})


for _name in ACTIVATIONS:
    operator(_name)(_named)


def _bias_gelu(x: Tensor, bias: Tensor) -> Tensor:
    """Gelu of a sum."""
    return F.gelu(x + bias)


def _fast_gelu(x: Tensor, bias: Tensor | None = None) -> Tensor:
    """Gelu by a hyperbolic tangent, of a sum with a bias if there is one."""
    return F.gelu(x if bias is None else x + bias, approximate="tanh")


native({"Gelu": F.gelu, "BiasGelu": _bias_gelu, "FastGelu": _fast_gelu}, domain=_MICROSOFT)


@operator("PRelu", since=7)
def prelu(_node: Node) -> Run:
    """The element; below zero it is scaled by a slope that is trained."""

    def run(x: Tensor, slope: Tensor) -> Tensor:
        if x.is_floating_point() and (slope.numel() == 1 or _is_per_channel(slope, x)):
            return torch.prelu(x, slope.flatten())
        return torch.where(x < 0, slope * x, x)

    return run


@operator("PRelu", since=1)
def prelu_1(_node: Node) -> Run:
    """The element; below zero it is scaled by the slope of its channel."""
    return torch.prelu


@operator("Shrink")
def shrink(node: Node) -> Run:
    """Zero around zero; beyond, the element moved toward zero by a bias."""
    limit, bias = node.float("lambd", 0.5), node.float("bias", 0.0)

    def run(x: Tensor) -> Tensor:
        wide = x if x.is_floating_point() else x.to(torch.float64)
        found = torch.where(wide < -limit, wide + bias, torch.where(wide > limit, wide - bias, 0.0))
        return found.to(x.dtype)

    return run


@operator("Gelu")
def gelu(node: Node) -> Run:
    """The element times the normal distribution up to it (Hendrycks and Gimpel 2016, arXiv 1606.08415)."""
    approximate = node.string("approximate", "none")
    if approximate not in {"none", "tanh"}:
        raise unsupported(node, f"its approximation {approximate!r} is unknown")
    return lambda x: F.gelu(x, approximate=approximate)


@operator("SwiGLU")
def swiglu(node: Node) -> Run:
    """A gate's swish times a value (Shazeer 2020, arXiv 2002.05202)."""
    activate = swish(node.float("alpha", 1.0))
    return lambda gate, value: activate(gate) * value


@operator("QuickGelu", domain=_MICROSOFT)
def quick_gelu(node: Node) -> Run:
    """Gelu by a sigmoid."""
    return swish(node.float("alpha", 1.702))


@operator("SwiGLU", domain=_MICROSOFT)
def microsoft_swiglu(node: Node) -> Run:
    """A gate's swish times a value, both cut to a limit if it is above zero; gate and value may lie behind each other."""
    activate, shift = swish(node.float("activation_alpha", 1.0)), node.float("activation_beta", 0.0)
    limit = node.float("limit", 0.0)

    def run(gate: Tensor, value: Tensor | None = None) -> Tensor:
        if value is None:
            gate, value = gate.chunk(2, -1)
        if limit > 0:
            gate, value = gate.clamp(max=limit), F.hardtanh(value, -limit, limit)
        return activate(gate) * (value + shift if shift else value)

    return run


def _is_per_channel(slope: Tensor, x: Tensor) -> bool:
    """Whether a slope broadcasts along the second axis alone: [channels, 1, ...], with or without an axis of one before."""
    if x.ndim < _PER_CHANNEL or slope.numel() != x.shape[1] or slope.ndim not in {x.ndim, x.ndim - 1}:
        return False
    return slope.shape[slope.ndim - x.ndim + 1] == slope.numel()
