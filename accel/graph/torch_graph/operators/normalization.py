"""Normalisation of each sample by its own statistics."""

from __future__ import annotations

import onnx_ir as ir
import torch
import torch.nn.functional as F  # noqa: N812  (as everybody calls it)
from torch import Tensor

from accel.graph.torch_graph.dtypes import torch_dtype
from accel.graph.torch_graph.node import Node
from accel.graph.torch_graph.registry import Run, operator


@operator("InstanceNormalization")
def instance_normalization(node: Node) -> Run:
    """Each channel of each sample less its mean, by its deviation, scaled and shifted (Ulyanov et al. 2016)."""
    epsilon = node.float("epsilon", 1e-5)

    def run(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
        return torch.instance_norm(x, scale, shift, None, None, True, 0.0, epsilon, torch.backends.cudnn.enabled)

    return run


@operator("GroupNormalization", since=18)
def group_normalization(node: Node) -> Run:
    """Each group of channels less its mean, by its deviation (Wu and He 2018, arXiv 1803.08494).

    Scale and shift are one of each channel, or of each group as version 18 has it.
    """
    groups, epsilon, by_group = node.int("num_groups", 1), node.float("epsilon", 1e-5), node.version < 21  # noqa: PLR2004

    def run(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
        if by_group:
            members = x.shape[1] // groups
            scale, shift = scale.repeat_interleave(members), shift.repeat_interleave(members)
        return torch.group_norm(x, groups, scale, shift, epsilon)

    return run


@operator("LpNormalization")
def lp_normalization(node: Node) -> Run:
    """By its p-norm along an axis; zeros stay zeros."""
    axis, order = node.int("axis", -1), node.int("p", 2)

    def run(x: Tensor) -> Tensor:
        norm: Tensor = torch.linalg.vector_norm(x, order, axis, keepdim=True)
        return x / norm.masked_fill(norm == 0, 1)

    return run


@operator("MeanVarianceNormalization", since=9)
def mean_variance_normalization(node: Node) -> Run:
    """Less the mean, by the deviation, over some axes."""
    axes = node.ints("axes", (0, 2, 3))

    def run(x: Tensor) -> Tensor:
        deviation, mean = torch.std_mean(x, axes, correction=0, keepdim=True)
        return (x - mean) / (deviation + 1e-9)

    return run


@operator("LRN")
def local_response_normalization(node: Node) -> Run:
    """By the squares of the same place in the channels around (Krizhevsky et al. 2012)."""
    size, bias = node.int("size", 1), node.float("bias", 1.0)
    alpha, beta = node.float("alpha", 1e-4), node.float("beta", 0.75)
    before, after = (size - 1) // 2, size // 2

    def run(x: Tensor) -> Tensor:
        squares = x.square().reshape(x.shape[0], 1, x.shape[1], -1)
        if before == after:
            mean = F.avg_pool2d(squares, (size, 1), 1, (before, 0))
        else:
            mean = F.avg_pool2d(F.pad(squares, [0, 0, before, after]), (size, 1), 1)
        return x / (bias + alpha * mean.reshape(x.shape)) ** beta

    return run


@operator("LayerNormalization")
def layer_normalization(node: Node) -> Run:
    """The last axes less their mean, by their deviation (Ba et al. 2016, arXiv 1607.06450); both are outputs if wanted.

    Types of 16 bits are computed in 32 whatever ``stash_type`` says, which only sets the type of these outputs.
    """
    axis, epsilon, wanted = node.int("axis", -1), node.float("epsilon", 1e-5), node.wants(1) or node.wants(2)
    stash = _stash(node)

    def run(x: Tensor, scale: Tensor, shift: Tensor | None = None) -> Tensor | tuple[Tensor, Tensor, Tensor]:
        y = _layer_norm(x, scale, shift, axis, epsilon)
        return (y, *_statistics(x, axis, epsilon, stash)) if wanted else y

    return run


@operator("RMSNormalization", since=23)
def rms_normalization(node: Node) -> Run:
    """The last axes by their root mean square (Zhang and Sennrich 2019, arXiv 1910.07467)."""
    axis, epsilon = node.int("axis", -1), node.float("epsilon", 1e-5)
    return lambda x, scale: _rms_norm(x, scale, axis, epsilon)


@operator("SimplifiedLayerNormalization")
@operator("SimplifiedLayerNormalization", domain="com.microsoft")
def simplified_layer_normalization(node: Node) -> Run:
    """RMSNormalization as ONNX Runtime's optimiser writes it; the inverse of the root mean square is an output if wanted."""
    axis, epsilon, wanted = node.int("axis", -1), node.float("epsilon", 1e-5), node.wants(1)
    stash = _stash(node)

    def run(x: Tensor, scale: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        y = _rms_norm(x, scale, axis, epsilon)
        return (y, _inverse_rms(x, axis, epsilon).to(stash)) if wanted else y

    return run


@operator("SkipLayerNormalization", domain="com.microsoft")
def skip_layer_normalization(node: Node) -> Run:
    """LayerNormalization of a sum, from ONNX Runtime's optimiser; mean, inverse deviation and sum are outputs if wanted."""
    epsilon, stash = node.float("epsilon", 1e-12), torch.float32
    wanted, statistics = any(map(node.wants, range(1, 4))), node.wants(1) or node.wants(2)

    def run(
        x: Tensor, skip: Tensor, scale: Tensor, shift: Tensor | None = None, bias: Tensor | None = None
    ) -> Tensor | tuple[Tensor | None, ...]:
        total = x + skip if bias is None else x + skip + bias
        y = _layer_norm(total, scale, shift, -1, epsilon)
        if not wanted:
            return y
        return (y, *(_statistics(total, -1, epsilon, stash) if statistics else (None, None)), total)

    return run


@operator("SkipSimplifiedLayerNormalization", domain="com.microsoft")
def skip_simplified_layer_normalization(node: Node) -> Run:
    """RMSNormalization of a sum, from ONNX Runtime's optimiser; inverse root mean square and sum are outputs if wanted."""
    epsilon = node.float("epsilon", 1e-12)
    wanted, statistics = any(map(node.wants, range(1, 4))), node.wants(2)

    def run(x: Tensor, skip: Tensor, scale: Tensor, bias: Tensor | None = None) -> Tensor | tuple[Tensor | None, ...]:
        total = x + skip if bias is None else x + skip + bias
        y = _rms_norm(total, scale, -1, epsilon)
        if not wanted:
            return y
        return y, None, _inverse_rms(total, -1, epsilon) if statistics else None, total

    return run


def _layer_norm(x: Tensor, scale: Tensor, shift: Tensor | None, axis: int, epsilon: float) -> Tensor:
    shape = x.shape[axis:]
    if scale.shape == shape and (shift is None or shift.shape == shape):
        return torch.layer_norm(x, shape, scale, shift, epsilon)
    y = torch.layer_norm(x, shape, None, None, epsilon) * scale
    return y if shift is None else y + shift


def _rms_norm(x: Tensor, scale: Tensor, axis: int, epsilon: float) -> Tensor:
    shape = x.shape[axis:]
    if scale.shape == shape and scale.dtype == x.dtype:
        return torch.rms_norm(x, shape, scale, epsilon)
    return torch.rms_norm(x, shape, None, epsilon).to(scale.dtype) * scale


def _statistics(x: Tensor, axis: int, epsilon: float, stash: torch.dtype) -> tuple[Tensor, Tensor]:
    """Mean and inverse deviation, which PyTorch's kernel gives without a gradient."""
    axes = tuple(range(axis % x.ndim, x.ndim))
    variance, mean = torch.var_mean(_wide(x), axes, correction=0, keepdim=True)
    return mean.to(stash), torch.rsqrt(variance + epsilon).to(stash)


def _inverse_rms(x: Tensor, axis: int, epsilon: float) -> Tensor:
    axes = tuple(range(axis % x.ndim, x.ndim))
    return torch.rsqrt(_wide(x).square().mean(axes, keepdim=True) + epsilon)


def _stash(node: Node) -> torch.dtype:
    return torch_dtype(ir.DataType(node.int("stash_type", ir.DataType.FLOAT)))


def _wide(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))
