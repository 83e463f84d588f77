"""Dropout: elements set to zero by chance while a model is trained (Srivastava et al. 2014, JMLR 15)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812  (as everybody calls it)

from accel.graph.torch_graph.node import Mode, Node
from accel.graph.torch_graph.registry import Run, operator

_RATIO = 0.5


@operator("Dropout", since=12, random=True)
def dropout(node: Node) -> Run:
    """Drops while the graph is trained, or where the input ``training_mode`` says so.

    Chance comes from the generator of the graph's mode: the attribute ``seed`` is left aside.
    """
    mode, masked = node.mode, node.wants(1)

    def run(x: Tensor, ratio: Tensor | None = None, training: Tensor | None = None) -> Tensor | tuple[Tensor, Tensor]:
        if not (mode.training or (training is not None and bool(training))):
            return _kept(x, masked=masked, dtype=torch.bool)
        return _dropped(x, _RATIO if ratio is None else ratio.item(), mode, masked=masked)

    return run


@operator("Dropout", since=10, random=True)
def dropout_10(node: Node) -> Run:
    """Drops while the graph is trained; the ratio is an attribute."""
    return _by_attribute(node, torch.bool)


@operator("Dropout", since=1, random=True)
def dropout_1(node: Node) -> Run:
    """Drops while the graph is trained; the mask has the type of the input."""
    return _by_attribute(node, None)


def _by_attribute(node: Node, dtype: torch.dtype | None) -> Run:
    mode, masked, ratio = node.mode, node.wants(1), node.float("ratio", _RATIO)

    def run(x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        if not mode.training:
            return _kept(x, masked=masked, dtype=dtype or x.dtype)
        found = _dropped(x, ratio, mode, masked=masked)
        return found if isinstance(found, Tensor) else (found[0], found[1].to(dtype or x.dtype))

    return run


def _kept(x: Tensor, *, masked: bool, dtype: torch.dtype) -> Tensor | tuple[Tensor, Tensor]:
    return (x, torch.ones_like(x, dtype=dtype)) if masked else x


def _dropped(x: Tensor, ratio: float, mode: Mode, *, masked: bool) -> Tensor | tuple[Tensor, Tensor]:
    """Zeros by chance; the others are scaled up, so that the sum is expected to stay as it was."""
    if mode.generator is None and not masked:
        return F.dropout(x, ratio, training=True)
    mask = torch.empty_like(x, dtype=torch.bool).bernoulli_(1 - ratio, generator=mode.generator)
    y = x * mask
    if ratio < 1:
        y = y / (1 - ratio)
    return (y, mask) if masked else y
