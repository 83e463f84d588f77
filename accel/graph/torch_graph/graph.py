"""An ONNX graph as a PyTorch module whose weights can be trained and written back."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import onnx_ir as ir
import torch
from torch import Tensor, nn

from accel.errors import TrainingFailed, UnsupportedOperator
from accel.graph.torch_graph.dtypes import FLOATS, to_constant, to_torch
from accel.graph.torch_graph.latent import Latent, latent_of
from accel.graph.torch_graph.node import Mode, Value
from accel.graph.torch_graph.parameters import Candidate, candidates, constants
from accel.graph.torch_graph.plan import Plan, Shared

Choose = Callable[[Candidate], bool]


def layers(candidate: Candidate) -> bool:
    """What is trained unless asked otherwise: weights, biases and normalisations; no constants of formulas, no scales."""
    return candidate.role in {"weight", "bias", "normalization", "latent"}


def nothing(candidate: Candidate) -> bool:  # noqa: ARG001  (one of those that choose)
    """For a graph that is only run."""
    return False


class TorchGraph(nn.Module):
    """Runs a graph; gradients reach the values that were chosen.

    ``forward`` takes and gives tensors by the names that the graph has. The graph stays as it was until ``write_back``.
    """

    def __init__(self, model: ir.Model, choose: Choose = layers, inner: Sequence[str] = ()) -> None:
        """Prepare a graph to be run.

        Args:
            model: The graph; its functions are written out where they are called.
            choose: Which values are trained.
            inner: Names of inner values that ``forward`` gives besides the outputs.

        Raises:
            TrainingFailed: There is no inner value of a name.
            UnsupportedOperator: A node is not covered; the message names node and operator, and what still works.
        """
        super().__init__()
        self.mode = Mode()
        graph = model.graph
        if model.functions:
            raise UnsupportedOperator(
                "The model has functions of its own, which must be written out first.",
                hint="Whoever makes a graph for PyTorch does it: accel.graph.torch_graph.executable.",
            )
        self.inputs = tuple(value.name or "" for value in graph.inputs)
        self.outputs = tuple(value.name or "" for value in graph.outputs)
        self._store: dict[ir.Value, Tensor] = {}
        for value, constant in constants(graph):
            if constant.dtype != ir.DataType.STRING:
                self._store[value] = to_torch(constant)
        found = list(candidates(graph))
        self._trained = tuple(candidate for candidate in found if choose(candidate))
        self._statistics = tuple(candidate for candidate in found if candidate.role == "statistic")
        self._latents: dict[ir.Value, Latent] = {}
        self._weights = nn.ParameterList()
        for candidate in self._trained:
            start = self._store[candidate.value]
            if candidate.role == "latent":
                latent = latent_of(candidate, self._store)
                self._latents[candidate.value], start = latent, latent.start
            weight = nn.Parameter(start)
            self._weights.append(weight)
            self._store[candidate.value] = weight
        fixed = set(self._store) - {candidate.value for candidate in (*self._trained, *self._statistics)}
        values = _named(graph, inner)
        self.inner = tuple(dict.fromkeys(name for name in inner if name not in self.outputs))
        shared = Shared(self.mode, dict(model.opset_imports), self._store, fixed)
        self._plan = Plan(graph, shared, [values[name] for name in self.inner])
        self.eval()

    def forward(self, feeds: Mapping[str, Tensor]) -> dict[str, Value]:
        """Compute the outputs, and the inner values that were asked for.

        Args:
            feeds: A tensor for each input, by name.

        Raises:
            TrainingFailed: An input is missing, or a node cannot be run; the message names it.
        """
        absent = [name for name in self.inputs if name not in feeds]
        if absent:
            raise TrainingFailed(f"The model's input {absent[0]!r} is not given.")
        found = self._plan.run([feeds[name] for name in self.inputs], {})
        return dict(zip((*self.outputs, *self.inner), found, strict=True))

    def apart(self, given: Mapping[str, Value]) -> dict[str, Value]:
        """Compute each node for itself, from inputs and inner values that are given by name instead of what other nodes gave.

        Raises:
            TrainingFailed: A node cannot be run; the message names it.
        """
        return self._plan.apart(given)

    def trained(self) -> Iterator[tuple[Candidate, nn.Parameter]]:
        """What can be trained, with the tensor that holds it."""
        yield from zip(self._trained, self._weights, strict=True)

    def train(self, mode: bool = True) -> TorchGraph:  # noqa: FBT001, FBT002  (PyTorch's own signature)
        """Switch Dropout on or off. BatchNormalization follows ``mode.batch_norm``, which is set apart."""
        super().train(mode)
        self.mode.training = mode
        return self

    def write_back(self) -> None:
        """Write what was trained into the graph that this was made of, each value in the type that it has there."""
        with torch.no_grad():
            for candidate, weight in self.trained():
                latent = self._latents.get(candidate.value)
                tensor = weight if latent is None else latent.integers(weight, self._store)
                candidate.write(to_constant(tensor, candidate.constant.dtype, candidate.constant.name))
            for candidate in self._statistics:
                tensor = self._store[candidate.value]
                candidate.write(to_constant(tensor, candidate.constant.dtype, candidate.constant.name))

    def _apply(self, function: Callable[[Tensor], Tensor], recurse: bool = True) -> TorchGraph:  # noqa: FBT001, FBT002
        """Move floats to another device with the weights; integers stay, since shapes are computed on the processor."""
        super()._apply(function, recurse)  # type: ignore[no-untyped-call]
        weights = {candidate.value: weight for candidate, weight in self.trained()}
        for value, tensor in self._store.items():
            if value in weights:
                self._store[value] = weights[value]
            elif tensor.dtype in FLOATS:
                self._store[value] = function(tensor)
        return self

    def get_extra_state(self) -> dict[str, Any]:
        """Running statistics, by name: training changes them without a gradient."""
        return {candidate.name: self._store[candidate.value].clone() for candidate in self._statistics}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Put running statistics back."""
        for candidate in self._statistics:
            self._store[candidate.value].copy_(state[candidate.name])


def _named(graph: ir.Graph, names: Sequence[str]) -> dict[str, ir.Value]:
    """Values of a graph by name.

    Raises:
        TrainingFailed: There is none of a name; names some that there are.
    """
    known = {value.name or "": value for node in graph for value in node.outputs}
    known |= {value.name or "": value for value in graph.inputs}
    for name in names:
        if name not in known:
            some = ", ".join(list(known)[-5:])
            raise TrainingFailed(
                f"The model has no inner value {name!r}.",
                hint=f"Names are those of the graph's edges; the last of them are {some}.",
            )
    return known
