"""What an operator is given of its node: attributes, version, and how the graph runs at the moment."""

from __future__ import annotations

import builtins
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeVar

import onnx_ir as ir
import torch
from torch import Tensor

from accel.graph.torch_graph.dtypes import to_torch

T = TypeVar("T")
Value = Tensor | list[Tensor] | None
"""What flows along an edge: a tensor, a sequence of tensors, or nothing (an optional that is empty)."""
Body = Callable[[Sequence[Value], dict[ir.Value, Value]], list[Value]]
"""A sub-graph: its inputs, and the values of the graphs around it that it reads; it gives its outputs."""


@dataclass(slots=True)
class Mode:
    """How a graph runs at the moment. Operators read it each time they run."""

    training: bool = False
    """Whether Dropout drops."""
    batch_norm: Literal["train", "hold"] = "hold"
    """Whether BatchNormalization takes the statistics of its batch, and learns running ones, or keeps those that it has."""
    generator: torch.Generator | None = None
    """Where chance comes from; PyTorch's own if None."""


@dataclass(frozen=True, slots=True)
class Node:
    """One node, as its operator sees it when the plan is made."""

    native: ir.Node
    version: int
    """Of the operator set that its domain is imported in."""
    mode: Mode
    bodies: dict[str, Body] = field(default_factory=dict)
    """Its sub-graphs by the names of their attributes."""

    @property
    def name(self) -> str:
        """How messages call it."""
        return self.native.name or next((v.name for v in self.native.outputs if v.name), "without a name")

    @property
    def operator(self) -> str:
        """Its operator; with the domain where that is not ONNX's own."""
        domain = self.native.domain
        return f"{domain}.{self.native.op_type}" if domain else self.native.op_type

    @property
    def inputs(self) -> builtins.int:
        """How many inputs it names; those in between may be left out."""
        return len(self.native.inputs)

    @property
    def outputs(self) -> builtins.int:
        """How many outputs it names."""
        return len(self.native.outputs)

    def wants(self, output: builtins.int) -> bool:
        """Whether anything could read an output."""
        return output < len(self.native.outputs) and bool(self.native.outputs[output].name)

    def has(self, attribute: str) -> bool:
        """Whether an attribute is given."""
        return attribute in self.native.attributes

    def int(self, attribute: str, default: builtins.int) -> builtins.int:
        """An integer attribute."""
        return self.native.attributes[attribute].as_int() if self.has(attribute) else default

    def ints(self, attribute: str, default: Sequence[builtins.int] = ()) -> tuple[builtins.int, ...]:
        """An attribute of several integers."""
        return tuple(self.native.attributes[attribute].as_ints() if self.has(attribute) else default)

    def float(self, attribute: str, default: builtins.float) -> builtins.float:
        """A number attribute."""
        return self.native.attributes[attribute].as_float() if self.has(attribute) else default

    def floats(self, attribute: str, default: Sequence[builtins.float] = ()) -> tuple[builtins.float, ...]:
        """An attribute of several numbers."""
        return tuple(self.native.attributes[attribute].as_floats() if self.has(attribute) else default)

    def string(self, attribute: str, default: str) -> str:
        """A text attribute."""
        return self.native.attributes[attribute].as_string() if self.has(attribute) else default

    def strings(self, attribute: str, default: Sequence[str] = ()) -> tuple[str, ...]:
        """An attribute of several texts."""
        return tuple(self.native.attributes[attribute].as_strings() if self.has(attribute) else default)

    def tensor(self, attribute: str) -> Tensor | None:
        """A tensor attribute; None if it is not given."""
        return to_torch(self.native.attributes[attribute].as_tensor()) if self.has(attribute) else None

    def type_of(self, attribute: str) -> ir.DataType | None:
        """An attribute that is the number of an element type; None if it is not given."""
        return ir.DataType(self.int(attribute, 0)) if self.has(attribute) else None

    def input_type(self, place: builtins.int) -> ir.DataType | None:
        """Element type of an input where the file says it; int4 is held in int8 and only this tells."""
        value = self.native.inputs[place] if place < len(self.native.inputs) else None
        return None if value is None else value.dtype

    def output_type(self, place: builtins.int = 0) -> ir.DataType | None:
        """Element type of an output where the file says it."""
        return self.native.outputs[place].dtype if place < len(self.native.outputs) else None
