"""What reasons are drawn from: both files, both graphs as ONNX Runtime optimised them, and the time of each operator."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from accel.benchmark.reasons.operators import WEIGHTED
from accel.benchmark.reasons.weights import every_node, zeros_by_layer
from accel.errors import RuntimeFailed
from accel.report import Profile
from accel.runtimes.messages import clean

if TYPE_CHECKING:
    import onnx

CPU = "CPUExecutionProvider"

_ADDED = re.compile(r"^(?:fused |InsertedPrecisionFreeCast_)+|_nchwc$")
"""What ONNX Runtime puts around the name of a layer, or of its output, when it fuses or moves it."""
_STEPS = 8


@dataclass(frozen=True, slots=True, eq=False)
class Kernel:
    """A node of an optimised graph and its time in a run."""

    name: str
    operator: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    ms: float
    activation_bytes: int | None
    """None where it is not among the nodes that the profile has by name: then its time is the mean of its kind."""

    @property
    def measured(self) -> bool:
        """Whether the time is its own."""
        return self.activation_bytes is not None


@dataclass(frozen=True)
class Side:
    """One of the two models."""

    profile: Profile
    file: onnx.ModelProto
    optimised: onnx.ModelProto
    zeros: dict[str, tuple[int, int]]
    """For each layer of the file, its weights and how many of them are zero."""

    @classmethod
    def load(cls, path: Path, profile: Profile, workspace: Path) -> Side:
        """Read a file, and have ONNX Runtime optimise it.

        Raises:
            AccelError: The file cannot be read.
            RuntimeFailed: ONNX Runtime refuses it.
        """
        from accel.graph.kernels import optimised
        from accel.graph.load import load_proto

        file = load_proto(path)
        zeros = zeros_by_layer(file)
        _forget_weights(file)
        try:
            graph = optimised(path, workspace)
        except Exception as error:
            raise RuntimeFailed(
                f"The optimised graph is not to be had: {clean(str(error))}", hint="The message is the runtime's own."
            ) from error
        _forget_weights(graph)
        return cls(profile, file, graph, zeros)

    @cached_property
    def total_ms(self) -> float:
        """Time in all operators of a run."""
        return sum(row.milliseconds for row in self.profile.operators)

    @cached_property
    def operators(self) -> dict[str, float]:
        """Milliseconds of each operator."""
        found: dict[str, float] = defaultdict(float)
        for row in self.profile.operators:
            found[row.operator] += row.milliseconds
        return dict(found)

    @cached_property
    def kernels(self) -> tuple[Kernel, ...]:
        """Nodes of the optimised graph and its sub-graphs; nodes that the profile does not name share the rest evenly."""
        rows = {(row.name, row.operator): row for row in self.profile.layers}
        nodes = list(every_node(self.optimised))
        listed = Counter(node.op_type for node in nodes if (node.name, node.op_type) in rows)
        unlisted = Counter(node.op_type for node in nodes) - listed
        rest = defaultdict(float, self.operators)
        for key, known in rows.items():
            rest[key[1]] -= known.milliseconds
        found = []
        for node in nodes:
            row = rows.get((node.name, node.op_type))
            ms = row.milliseconds if row else max(0.0, rest[node.op_type]) / unlisted[node.op_type]
            found.append(
                Kernel(
                    node.name,
                    node.op_type,
                    tuple(node.input),
                    tuple(node.output),
                    ms,
                    row.activation_bytes if row else None,
                )
            )
        return tuple(found)

    @cached_property
    def producers(self) -> dict[str, Kernel]:
        """The kernel that each value comes from."""
        return {name: kernel for kernel in self.kernels for name in kernel.outputs if name}

    @cached_property
    def consumers(self) -> dict[str, list[Kernel]]:
        """The kernels that read each value."""
        found: dict[str, list[Kernel]] = defaultdict(list)
        for kernel in self.kernels:
            for name in kernel.inputs:
                found[name].append(kernel)
        return found

    @cached_property
    def initializers(self) -> dict[str, onnx.TensorProto]:
        """Constants of the optimised graph."""
        return {tensor.name: tensor for tensor in self.optimised.graph.initializer}

    @cached_property
    def layers(self) -> Layers:
        """Layers of the file as it is written."""
        return Layers(self.file)


@dataclass(frozen=True)
class Evidence:
    """A pair of models, and the machine."""

    before: Side
    after: Side
    threads: int
    cores: int
    latency_ms: float | None
    """Of the model without the profiler, where it is known."""

    def share(self, ms: float) -> float:
        """Part of the model's time in operators, 0 to 1."""
        total = self.after.total_ms
        return min(1.0, ms / total) if total else 0.0

    def layer(self, kernel: Kernel) -> str | None:
        """The layer of the baseline, or else of the model, that a kernel computes."""
        return self.before.layers.of(kernel) or self.after.layers.of(kernel)


def _forget_weights(model: onnx.ModelProto) -> None:
    """Leave only the types and shapes of tensors: four copies of large weights would be too many."""
    from accel.graph.check import bodies

    for body in bodies(model):
        for _, tensor in body.tensors:
            for name in ("raw_data", "float_data", "int32_data", "int64_data", "double_data", "uint64_data"):
                tensor.ClearField(name)


class Layers:
    """Which layer of a file became which kernel, told by names."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self._nodes: dict[str, onnx.NodeProto] = {}
        self._makers: dict[str, onnx.NodeProto] = {}
        for node in every_node(model):
            self._nodes.setdefault(node.name, node)
            for output in node.output:
                self._makers.setdefault(output, node)
        self._nodes.pop("", None)
        self._found: dict[str, str | None] = {}

    def of(self, kernel: Kernel) -> str | None:
        """The layer's name (the name of its output where it has none); None where it cannot be told."""
        if kernel.operator not in WEIGHTED:
            return None
        if kernel.name not in self._found:
            self._found[kernel.name] = self._find(kernel.name)
        return self._found[kernel.name]

    def _find(self, name: str) -> str | None:
        # Kernels are called after the node, with something behind it, or after the value that came out of it.
        stem = _ADDED.sub("", name)
        ends = [len(stem), *(match.start() for match in reversed(list(re.finditer(r"[_/]", stem))))]
        for end in ends:
            node = self._makers.get(stem[:end]) or self._nodes.get(stem[:end])
            layer = self._weighted(node) if node is not None else None
            if layer is not None:
                return layer.name or layer.output[0]
        return None

    def _weighted(self, node: onnx.NodeProto) -> onnx.NodeProto | None:
        """The node, or the layer before it whose activation or bias it is."""
        for _ in range(_STEPS):
            if node.op_type in WEIGHTED:
                return node
            before = next((self._makers[name] for name in node.input if name in self._makers), None)
            if before is None:
                return None
            node = before
        return None
