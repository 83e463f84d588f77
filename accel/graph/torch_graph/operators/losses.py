"""Losses of a classification."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812  (as everybody calls it)

from accel.graph.torch_graph.node import Node
from accel.graph.torch_graph.registry import Run, operator, unsupported

Loss = Callable[[Tensor, Tensor, "Tensor | None"], Tensor]
"""Logarithms [batch, classes, ...], true classes [batch, ...], weights [classes] or None: losses, or one of them all."""
_NO_CLASS = -100
"""Stands for no class where nothing is ignored: classes count from zero."""


@operator("NegativeLogLikelihoodLoss")
def negative_log_likelihood(node: Node) -> Run:
    """The negative logarithm of the probability of each true class, weighted by class, and its mean or sum."""
    return _loss(node)


@operator("SoftmaxCrossEntropyLoss")
def softmax_cross_entropy(node: Node) -> Run:
    """The same of scores that are no logarithms yet; these are its second output."""
    loss, wanted = _loss(node), node.wants(1)

    def run(scores: Tensor, classes: Tensor, weight: Tensor | None = None) -> Tensor | tuple[Tensor, Tensor]:
        logarithms = torch.log_softmax(scores, 1)
        found = loss(logarithms, classes, weight)
        return (found, logarithms) if wanted else found

    return run


def _loss(node: Node) -> Loss:
    reduction, ignored = _reduction(node), node.int("ignore_index", _NO_CLASS)

    def run(logarithms: Tensor, classes: Tensor, weight: Tensor | None = None) -> Tensor:
        true = classes.long()
        if weight is None:
            return F.nll_loss(logarithms, true, ignore_index=ignored, reduction=reduction)
        return _weighted(logarithms, true, weight, ignored, reduction)

    return run


def _weighted(logarithms: Tensor, classes: Tensor, weight: Tensor, ignored: int, reduction: str) -> Tensor:
    """PyTorch's own loss has no gradient for the weights."""
    counted = classes != ignored
    known = torch.where(counted, classes, 0)
    weights = torch.where(counted, weight[known], 0.0)
    losses = -logarithms.gather(1, known.unsqueeze(1)).squeeze(1) * weights
    if reduction == "none":
        return losses
    return losses.sum() / weights.sum() if reduction == "mean" else losses.sum()


def _reduction(node: Node) -> str:
    """How losses become one.

    Raises:
        UnsupportedOperator: In a way that ONNX does not know.
    """
    reduction = node.string("reduction", "mean")
    if reduction not in {"mean", "sum", "none"}:
        raise unsupported(node, f"its reduction {reduction!r} is unknown")
    return reduction
