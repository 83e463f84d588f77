"""What is trained: the graph, and beside it what only training needs. Its state can be taken out and put back."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from accel.errors import TrainingFailed
from accel.graph.torch_graph.graph import TorchGraph
from accel.graph.torch_graph.node import Value

State = dict[str, Tensor]

_DECAYED = frozenset({"weight", "latent"})
"""Roles of values that weight decay is for."""


class Learner(nn.Module):
    """A graph, and projections of some of its inner values."""

    def __init__(self, graph: TorchGraph, projections: Mapping[str, nn.Module] | None = None) -> None:
        """Put a graph and what is trained beside it together.

        Args:
            graph: The graph.
            projections: What some of its inner values go through, by their names; not part of the model that comes of it.

        Raises:
            TrainingFailed: The graph has nothing that can be trained.
        """
        super().__init__()
        self.graph = graph
        self._projected = tuple(projections or ())
        self.projections = nn.ModuleList((projections or {}).values())
        if not any(True for _ in graph.trained()):
            raise TrainingFailed(
                "The model has no weights that can be trained.",
                hint="Weights are floats that a layer reads; names in `frozen` are left out.",
            )

    def forward(self, feeds: dict[str, Tensor]) -> dict[str, Value]:
        """What the graph gives, and each projection under the name of its inner value with ``projected:`` before it."""
        found = self.graph(feeds)
        for name, projection in zip(self._projected, self.projections, strict=True):
            found[f"projected:{name}"] = projection(found[name])
        return dict(found)

    def groups(self, weight_decay: float) -> list[dict[str, Any]]:
        """Parameters for an optimiser: those that decay, and those that do not."""
        decayed: list[nn.Parameter] = []
        others = list(self.projections.parameters())
        for candidate, weight in self.graph.trained():
            if not weight.requires_grad:
                continue
            (decayed if candidate.role in _DECAYED else others).append(weight)
        groups = [{"params": decayed, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0}]
        return [group for group in groups if group["params"]]

    def count(self) -> int:
        """Numbers of the graph that are trained."""
        return sum(weight.numel() for _, weight in self.graph.trained() if weight.requires_grad)

    def release(self, without: set[str]) -> None:
        """Train no further what no gradient reaches."""
        for candidate, weight in self.graph.trained():
            if candidate.name in without:
                weight.requires_grad_(False)

    def weights(self) -> State:
        """Weights and running statistics of the graph, copied."""
        found = {f"weight.{place}": weight.detach().clone() for place, (_, weight) in enumerate(self.graph.trained())}
        return found | {f"statistic.{name}": held for name, held in self.graph.get_extra_state().items()}

    def load_weights(self, state: State) -> None:
        """Put weights and running statistics back."""
        with torch.no_grad():
            for place, (_, weight) in enumerate(self.graph.trained()):
                weight.copy_(state[f"weight.{place}"])
        prefix = "statistic."
        self.graph.set_extra_state({n[len(prefix) :]: held for n, held in state.items() if n.startswith(prefix)})

    def whole(self) -> State:
        """All that is trained, with the projections."""
        return self.weights() | {f"projection.{name}": held for name, held in self.projections.state_dict().items()}

    def load_whole(self, state: State) -> None:
        """Put all that is trained back."""
        self.load_weights(state)
        prefix = "projection."
        own = {name[len(prefix) :]: held for name, held in state.items() if name.startswith(prefix)}
        self.projections.load_state_dict(own)

    def even_out(self, mean: Callable[[Tensor], Tensor]) -> None:
        """Replace running statistics by their mean over all processes, each of which saw other rows."""
        self.graph.set_extra_state({name: mean(held) for name, held in self.graph.get_extra_state().items()})
