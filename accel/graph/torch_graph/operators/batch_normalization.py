"""Batch normalisation, with stored statistics or with those of the batch.

Source: Ioffe and Szegedy 2015, arXiv 1502.03167.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from accel.graph.torch_graph.node import Node
from accel.graph.torch_graph.registry import Run, operator

_Normalize = Callable[..., "Tensor | tuple[Tensor, ...]"]
"""Input, scale, shift, mean, variance: output; or output, new mean and variance, mean and variance of the batch."""


@operator("BatchNormalization", since=14)
def batch_normalization(node: Node) -> Run:
    """Each channel less its mean, by its deviation, scaled and shifted.

    With ``mode.batch_norm == "train"`` the batch's own statistics are used, and the stored ones move towards them in place:
    ``stored = momentum * stored + (1 - momentum) * batch``, with the unbiased variance, as in PyTorch. ONNX's ``momentum`` is
    the share of the old value, 1 less PyTorch's. A node whose ``training_mode`` is set uses the batch's statistics in either
    mode and gives new ones, of the biased variance, as outputs, as the specification says; its inputs stay as they are.
    """
    return _from_batch(node) if node.int("training_mode", 0) else _normalization(node)


@operator("BatchNormalization", since=1)
def batch_normalization_1(node: Node) -> Run:
    """The same where more than one output, and no attribute, tells that a node is for training.

    Without ``spatial`` each element of an input has statistics of its own, not each channel.
    """
    run: _Normalize = _from_batch(node) if any(map(node.wants, range(1, 5))) else _normalization(node)
    if node.int("spatial", 1):
        return run

    def each(x: Tensor, *parameters: Tensor) -> Tensor | tuple[Tensor, ...]:
        found = run(x.flatten(1), *(parameter.reshape(-1) for parameter in parameters))
        if not isinstance(found, tuple):
            return found.reshape(x.shape)
        return (found[0].reshape(x.shape), *(statistic.reshape(x.shape[1:]) for statistic in found[1:]))

    return each


def _normalization(node: Node) -> _Normalize:
    epsilon, new_share, mode = node.float("epsilon", 1e-5), 1 - node.float("momentum", 0.9), node.mode
    cudnn = torch.backends.cudnn.enabled

    def run(x: Tensor, scale: Tensor, shift: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
        learns = mode.batch_norm == "train"
        if learns and x.numel() == mean.numel():
            raise ValueError(
                "training needs more than one value of each channel in a batch: the variance of one is unknown"
            )
        if x.ndim == 1:  # as many samples of one channel
            return run(x[:, None], scale, shift, mean, variance)[:, 0]
        if mean.requires_grad or variance.requires_grad:
            return _by_formula(x, scale, shift, mean, variance, epsilon)
        if scale.dtype == mean.dtype:
            return torch.batch_norm(x, scale, shift, mean, variance, learns, new_share, epsilon, cudnn)
        wide = torch.promote_types(scale.dtype, mean.dtype)
        stored, spread = mean.to(wide), variance.to(wide)
        y = torch.batch_norm(x, scale.to(wide), shift.to(wide), stored, spread, learns, new_share, epsilon, cudnn)
        if learns:
            mean.copy_(stored)
            variance.copy_(spread)
        return y

    return run


def _from_batch(node: Node) -> _Normalize:
    epsilon, momentum = node.float("epsilon", 1e-5), node.float("momentum", 0.9)

    def run(x: Tensor, scale: Tensor, shift: Tensor, mean: Tensor, variance: Tensor) -> tuple[Tensor, ...]:
        if x.ndim == 1:
            y, *rest = run(x[:, None], scale, shift, mean, variance)
            return y[:, 0], *rest
        y = torch.batch_norm(x, scale, shift, None, None, True, 0.0, epsilon, torch.backends.cudnn.enabled)
        axes = tuple(axis for axis in range(x.ndim) if axis != 1)
        spread, middle = torch.var_mean(x.to(torch.promote_types(x.dtype, torch.float32)), axes, correction=0)
        moved = tuple(
            (old * momentum + new * (1 - momentum)).to(old.dtype) for old, new in ((mean, middle), (variance, spread))
        )
        return (y, *moved, middle.to(mean.dtype), spread.to(variance.dtype))

    return run


def _by_formula(x: Tensor, scale: Tensor, shift: Tensor, mean: Tensor, variance: Tensor, epsilon: float) -> Tensor:
    """With a gradient for the statistics, which PyTorch's kernel does not give."""
    shape = [-1 if axis == 1 else 1 for axis in range(x.ndim)]
    factor = scale * torch.rsqrt(variance + epsilon)
    return x * factor.reshape(shape) + (shift - mean * factor).reshape(shape)
