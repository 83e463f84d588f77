"""The layers of a graph: products of an activation with a constant weight."""

from __future__ import annotations

import difflib
import fnmatch
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from accel.errors import TechniqueFailed

if TYPE_CHECKING:
    import onnx_ir as ir

LAYER_OPERATORS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
_ACTIVATIONS = ("Relu", "Clip")
_WEIGHT = 1
"""Position of the weight among a layer's inputs."""


@dataclass(frozen=True, slots=True)
class Layer:
    """A Conv, ConvTranspose, Gemm or MatMul with a constant weight."""

    node: ir.Node
    weight: npt.NDArray[np.float32]
    """As the file has it: [out, in / group, *kernel], [in, out / group, *kernel] (ConvTranspose), or a matrix."""
    bias: npt.NDArray[np.float32] | None
    """[out]; None where there is none, where it is not constant, or where it is not one number a channel."""
    output: ir.Value
    """What comes out, after the Relu or Clip that runtimes compute together with the layer."""

    @property
    def name(self) -> str:
        """The node's name."""
        return str(self.node.name)

    @property
    def operator(self) -> str:
        """The node's operator."""
        return self.node.op_type

    @property
    def input(self) -> ir.Value:
        """The activation."""
        value = self.node.inputs[0]
        if value is None:
            raise ValueError(f"{self.name} has no input")
        return value

    @property
    def channel_axis(self) -> int:
        """The axis of the weight that runs over output channels (for grouped ConvTranspose: within a group)."""
        match self.operator:
            case "Conv":
                return 0
            case "Gemm":
                return 0 if integer(self.node, "transB", 0) else 1
            case "ConvTranspose":
                return 1
            case _:
                return self.weight.ndim - 1

    @property
    def group(self) -> int:
        """Groups of a convolution; 1 for matrix products."""
        return integer(self.node, "group", 1)

    @property
    def spread(self) -> int:
        """Output channels for each index of ``channel_axis``: a grouped ConvTranspose counts them within a group."""
        return self.group if self.operator == "ConvTranspose" else 1

    @property
    def depthwise(self) -> bool:
        """Whether every group has one input channel."""
        return self.operator == "Conv" and self.group > 1 and self.weight.shape[1] == 1

    @property
    def matrix(self) -> npt.NDArray[np.float32]:
        """The weight as [out, products]: what each output channel sums over, in the order of the file."""
        moved = np.moveaxis(self.weight, self.channel_axis, 0)
        return moved.reshape(moved.shape[0], -1)


def layers(graph: ir.Graph, operators: Iterable[str] = LAYER_OPERATORS) -> list[Layer]:
    """The layers of a prepared float graph, in order; sub-graphs are left alone."""
    wanted = set(operators)
    return [found for node in graph if node.op_type in wanted and (found := _layer(node)) is not None]


def _layer(node: ir.Node) -> Layer | None:
    if node.domain not in {"", "ai.onnx"} or len(node.inputs) <= _WEIGHT:
        return None
    if node.op_type == "Gemm" and (
        integer(node, "transA", 0)
        or node.attributes.get_float("alpha", 1.0) != 1.0
        or node.attributes.get_float("beta", 1.0) != 1.0
    ):
        return None
    weight = constant(node.inputs[_WEIGHT])
    if weight is None or weight.dtype != np.float32 or weight.ndim < 2 or constant(node.inputs[0]) is not None:  # noqa: PLR2004
        return None
    found = Layer(node, _floats(weight), None, _after_activation(node.outputs[0]))
    bias = constant(node.inputs[2]) if len(node.inputs) > 2 else None  # noqa: PLR2004
    return found if bias is None else replace(found, bias=_spread(_floats(bias), len(found.matrix) * found.spread))


def _spread(bias: npt.NDArray[np.float32], channels: int) -> npt.NDArray[np.float32] | None:
    """A bias with one number a channel; Gemm's may be broadcast from fewer, or differ by row."""
    flat = bias.reshape(-1) if bias.shape[:-1] in {(), (1,)} else None
    return np.broadcast_to(flat, channels).copy() if flat is not None and flat.size in {1, channels} else None


def _floats(array: npt.NDArray[np.generic]) -> npt.NDArray[np.float32]:
    return array.astype(np.float32, copy=False)


def integer(node: ir.Node, attribute: str, default: int) -> int:
    """An attribute that is a whole number."""
    found = node.attributes.get(attribute)
    return default if found is None else int(found.as_int())


def constant(value: ir.Value | None) -> npt.NDArray[np.generic] | None:
    """The array of an initializer; None for everything that is computed or fed."""
    if value is None or value.const_value is None or value.is_graph_input():
        return None
    return value.const_value.numpy()


def _after_activation(value: ir.Value) -> ir.Value:
    users = value.uses()
    if len(users) != 1 or value.is_graph_output():
        return value
    node: ir.Node = next(iter(users)).node
    if node.graph is not value.graph:
        return value
    if node.op_type not in _ACTIVATIONS or node.inputs[0] is not value:
        return value
    if node.op_type == "Clip" and any(bound is not None and constant(bound) is None for bound in node.inputs[1:]):
        return value
    return node.outputs[0]


def chosen(graph: ir.Graph, include: Sequence[str], exclude: Sequence[str]) -> set[str]:
    """Names of the nodes that ``include`` chooses (all, if it is empty) and ``exclude`` does not.

    Raises:
        TechniqueFailed: A pattern chooses nothing; the hint has similar names.
    """
    operators = {str(node.name): node.op_type for node in graph}
    names = list(operators)
    wanted = matching(names, include, operators) if include else set(names)
    return wanted - matching(names, exclude, operators)


def matching(names: Sequence[str], patterns: Sequence[str], operators: dict[str, str] | None = None) -> set[str]:
    """The names that patterns choose; ``*`` and ``?`` stand for parts of a name.

    Args:
        names: The names there are.
        patterns: Names, patterns, or operator types where ``operators`` is given.
        operators: The operator of each name.

    Raises:
        TechniqueFailed: A pattern chooses nothing; the hint has similar names.
    """
    chosen: set[str] = set()
    operators = operators or {}
    for pattern in patterns:
        plain = pattern.replace("[", "[[]")  # which fnmatch would take for a set of letters
        found = {name for name in names if fnmatch.fnmatchcase(name, plain) or operators.get(name) == pattern}
        if not found:
            close = difflib.get_close_matches(pattern.strip("*"), [*names, *set(operators.values())], 3, 0.3)
            raise TechniqueFailed(
                f"The pattern {pattern!r} matches no node.",
                hint=f"Names are matched after simplification; similar ones: {', '.join(close) or 'none'}.",
            )
        chosen |= found
    return chosen
