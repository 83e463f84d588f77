"""Gradients of a graph beside finite differences."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import onnx_ir as ir
import torch
from torch import Tensor

from accel.graph.torch_graph.dtypes import to_torch
from accel.graph.torch_graph.executable import executable
from accel.graph.torch_graph.graph import TorchGraph
from torch_graph.doubles import in_doubles
from torch_graph.rows import Rows

_SAMPLE = 8
"""Weights that are looked at in a model, spread over all of them."""
_STEPS = (1e-6, 1e-7, 1e-8, 1e-9, 1e-10)
"""Of a weight, as shares of its largest value. The larger ones cross edges of ReLU, the smaller ones lose digits: the one that
comes closest is taken, and no wrong gradient comes close to any."""
_LEAST = 1e-2
"""What is taken for the largest value of a weight that is zero or nearly so."""
_CLOSE = 1e-6
"""Close enough for no other step to be tried."""


@dataclass(frozen=True)
class Gradients:
    """How far the gradients of a model are from what they should be, as shares."""

    weights: int
    """That get a gradient."""
    sampled: int
    from_differences: float
    """Of float64, along one direction for each weight: the largest distance to the finite difference."""
    worst: str
    """The weight that this is of."""
    from_doubles: float
    """Of float32: the largest distance of a weight's gradient to that of float64, by Euclid's norm."""


def gradients_of(model: ir.Model, rows: Rows) -> Gradients:
    """Compare the gradients of a sum of all outputs with random factors, of float64 with differences and of float32 with those."""
    ready = executable(model)
    single, double = TorchGraph(ready), TorchGraph(in_doubles(ready))
    feeds = {name: to_torch(ir.tensor(array)) for name, array in rows.items()}
    wide = {name: feed.double() if feed.dtype == torch.float32 else feed for name, feed in feeds.items()}
    exact, found = _gradients(double, wide), _gradients(single, feeds)
    weights = {candidate.name: weight for candidate, weight in double.trained()}
    names = [name for name, gradient in exact.items() if gradient.any()]
    chosen = names[:: max(1, len(names) // _SAMPLE)]
    apart = {name: _from_difference(double, wide, weights[name], exact[name]) for name in chosen}
    worst = max(apart, key=lambda name: apart[name])
    doubts = [_share(found[name].double() - exact[name], exact[name]) for name in names]
    return Gradients(len(names), len(chosen), apart[worst], worst, max(doubts))


def _gradients(graph: TorchGraph, feeds: Mapping[str, Tensor]) -> dict[str, Tensor]:
    _loss(graph, feeds).backward()
    return {candidate.name: weight.grad for candidate, weight in graph.trained() if weight.grad is not None}


def _loss(graph: TorchGraph, feeds: Mapping[str, Tensor]) -> Tensor:
    chance = torch.Generator().manual_seed(0)
    total = torch.zeros((), dtype=torch.float64)
    for value in graph(feeds).values():
        if isinstance(value, Tensor) and value.dtype.is_floating_point:
            factors = torch.randn(value.shape, generator=chance, dtype=torch.float64).to(value.dtype)
            total = total + (value * factors).sum()
    return total


def _share(difference: Tensor, gradient: Tensor) -> float:
    share = float(difference.norm() / gradient.norm())
    return math.inf if math.isnan(share) else share


def _from_difference(graph: TorchGraph, feeds: Mapping[str, Tensor], weight: Tensor, gradient: Tensor) -> float:
    """The distance of a directional derivative to the central difference, as a share.

    The direction is the gradient's own and half as much of a random one, so that the derivative is not small beside what is rounded.
    """
    random = torch.randn(weight.shape, generator=torch.Generator().manual_seed(1), dtype=weight.dtype)
    direction = gradient / gradient.norm() + 0.5 * random / random.norm()
    derivative = float((gradient * direction).sum())
    scale = max(float(weight.detach().abs().max()), _LEAST) / float(direction.abs().max())
    best = math.inf
    with torch.no_grad():
        start = weight.clone()
        for step in (scale * share for share in _STEPS):
            sides = []
            for sign in (1, -1):
                weight.copy_(start + sign * step * direction)
                sides.append(float(_loss(graph, feeds)))
            best = min(best, abs((sides[0] - sides[1]) / (2 * step) - derivative) / abs(derivative))
            if best < _CLOSE:
                break
        weight.copy_(start)
    return best
