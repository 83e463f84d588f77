"""Store weights in a narrower float, and compute in float32."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from accel.graph.layers import constant
from accel.graph.load import copied
from accel.graph.prepare import graph_constant

if TYPE_CHECKING:
    import onnx_ir as ir

_WORTH = 128
"""Constants with fewer numbers are not worth a node of their own."""
_NAMED = 5
_TYPES = {"float16": (65504.0, 2.0**-14), "bfloat16": (3.3895313892515355e38, 2.0**-126)}
"""The largest number of each type, and the smallest of full precision."""


@dataclass(frozen=True, slots=True)
class Narrowed:
    """What became of the constants of a graph."""

    type: str
    stored: int
    numbers: int
    kept: tuple[tuple[str, float], ...]
    """Constants that the type cannot hold, with their largest magnitude."""

    def notes(self) -> list[str]:
        """The same in words."""
        notes = [
            f"{self.stored} constants with {self.numbers} numbers are stored as {self.type}, and converted to float32 "
            "when the file is loaded."
            if self.stored
            else f"No constant has {_WORTH} numbers or more: nothing was converted."
        ]
        notes += [
            f"The constant {name!r} stays in float32: {self.type} does not hold its {largest:.4g}."
            for name, largest in self.kept[:_NAMED]
        ]
        if len(self.kept) > _NAMED:
            notes.append(f"The same goes for {len(self.kept) - _NAMED} other constants.")
        return notes


def narrow(
    model: ir.Model, dtype: Literal["float16", "bfloat16"], *, stored: Mapping[ir.Value, ir.Value] | None = None
) -> Narrowed:
    """Store the float constants of a graph in 16 bits in place, each with a Cast to float32 in front of its use.

    Constants of fewer than 128 numbers stay, and so do those that the type cannot hold. Sub-graphs are converted too.

    Args:
        model: The graph, with its constants as initializers, of opset 13 at least for bfloat16.
        dtype: The type to store.
        stored: Constants that are there in 16 bits already.
    """
    import onnx_ir as ir

    count = numbers = 0
    kept = []
    there = stored or {}
    for graph in (model.graph, *model.graph.subgraphs()):
        for value in list(graph.initializers.values()):
            array = constant(value)
            if array is None or array.dtype != np.float32 or array.size < _WORTH or value.is_graph_output():
                continue
            if not value.uses():
                continue
            largest, smallest = _TYPES[dtype]
            top = float(np.abs(array[np.isfinite(array)]).max(initial=0.0))
            if top > largest or 0 < top < smallest:
                kept.append((str(value.name), top))
                continue
            made = there.get(value)
            if made is None:
                narrowed = array.astype(_numpy(dtype))
                made = graph_constant(graph, f"{value.name}_{dtype}", narrowed, ir.DataType[dtype.upper()])
            _replace(graph, value, made)
            count += 1
            numbers += array.size
    return Narrowed(dtype, count, numbers, tuple(kept))


def lifted(model: ir.Model) -> ir.Model:
    """A copy whose constants are all initializers, those of its sub-graphs too; nothing else is changed."""
    from onnx_ir.passes.common import LiftConstantsToInitializersPass

    copy = copied(model)
    LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(copy)
    return copy


def _replace(graph: ir.Graph, value: ir.Value, made: ir.Value) -> None:
    """Give what reads a constant the same from its narrow form."""
    import onnx_ir as ir

    cast = ir.Node("", "Cast", [made], [ir.AttrInt64("to", int(ir.DataType.FLOAT))], name=f"{value.name}_to_float32")
    result = cast.outputs[0]
    result.type, result.shape = ir.TensorType(ir.DataType.FLOAT), value.shape
    value.replace_all_uses_with(result)
    if value.name is not None:
        del graph.initializers[value.name]
    result.name = value.name
    graph.insert_before(graph[0], cast)


def _numpy(dtype: str) -> np.dtype[np.generic]:
    import ml_dtypes

    return np.dtype(np.float16) if dtype == "float16" else np.dtype(ml_dtypes.bfloat16)
