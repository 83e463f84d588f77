"""Bring a graph into the one shape that rewriting relies on."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from accel.errors import TechniqueFailed
from accel.graph.load import copied

if TYPE_CHECKING:
    from pathlib import Path

    import onnx_ir as ir

QDQ_OPSET = 17
"""QDQ per channel needs opset 13; 17 is the newest that every runtime in use knows."""
_IR_VERSION = 8
"""What opset 17 came with; below 4, weights had to be inputs."""
BLOCK_OPSET = 21
"""Blocks, 4-bit integers and 16-bit integers need opset 21."""


def prepare(model: ir.Model, workspace: Path, *, opset: int = QDQ_OPSET) -> tuple[ir.Model, list[str]]:
    """A simplified copy: constants as initializers, batch norms folded, every node named, opset ``opset`` at least.

    The same model gives the same names each time, so that two techniques can speak of the same node.

    Returns:
        The copy, and remarks for the report.

    Raises:
        TechniqueFailed: The opset cannot be raised, or ONNX Runtime cannot load the model.
    """
    from onnx_ir.passes.common import LiftConstantsToInitializersPass

    from accel.graph.simplify import simplify

    notes = []
    # Constant nodes first: simplification folds what hangs on initializers.
    ready = copied(model)
    have = ready.opset_imports.get("", 0)
    if have < opset:
        ready = _raised(ready, have, opset)
        notes.append(f"The opset was raised from {have} to {opset}.")
    LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(ready)
    _name(ready.graph)  # the runtime loads no graph with a name twice
    for value in [value for value in ready.graph.inputs if value.name in ready.graph.initializers]:
        ready.graph.inputs.remove(value)  # old exporters list weights as inputs, too
    ready.ir_version = max(ready.ir_version, _IR_VERSION)
    ready = simplify(ready, workspace)
    LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(ready)
    _name(ready.graph)
    _fold_factors(ready.graph)
    return ready, notes


def refuse_quantized(model: ir.Model) -> None:
    """Refuse a model that is quantized already.

    Raises:
        TechniqueFailed: It is; names the operators that show it.
    """
    from accel.graph.inspect import QUANTIZED

    found = {node.op_type for node in model.graph.all_nodes()} & QUANTIZED
    if found:
        raise TechniqueFailed(
            f"The model is quantized already (it has {', '.join(sorted(found))}).",
            hint="Start from the float model: quantizing twice only loses accuracy.",
        )
    unpacked = unpacked_weight(model)
    if unpacked is not None:
        raise TechniqueFailed(
            f"The weights of the model are stored as integers already (see {unpacked!r}).",
            hint="Start from the float model: quantizing twice only loses accuracy.",
        )


def unpacked_weight(model: ir.Model) -> str | None:
    """A weight that is stored as integers and cast when the model is loaded, which no quantizing operator shows."""
    for node in model.graph:
        value = node.inputs[0] if node.op_type == "Cast" else None
        stored = None if value is None else value.const_value
        if value is None or stored is None or len(stored.shape) < 2:  # noqa: PLR2004  (a vector is no weight)
            continue
        if stored.dtype.is_integer() and stored.dtype.bitwidth <= 8:  # noqa: PLR2004  (a byte)
            return str(value.name)
    return None


def _raised(model: ir.Model, have: int, opset: int) -> ir.Model:
    import onnx_ir as ir
    from onnx import version_converter

    try:
        return ir.from_proto(version_converter.convert_version(ir.to_proto(model), opset))
    except Exception as error:
        raise TechniqueFailed(
            f"The model is of opset {have}, and cannot be raised to {opset}: {' '.join(str(error).split())[:200]}",
            hint=f"Export it again with opset {opset} or later.",
        ) from error


def _name(graph: ir.Graph) -> None:
    """Give every node a name that no other has."""
    taken: set[str] = set()
    others = []
    for number, node in enumerate(graph):
        if node.name and node.name not in taken:
            taken.add(node.name)
        else:
            others.append((number, node))
    for number, node in others:
        name = node.name or f"{node.op_type}_{number}"
        while name in taken:
            name += f"_{number}"
        taken.add(name)
        node.name = name


def _fold_factors(graph: ir.Graph) -> None:
    """Multiply alpha and beta of Gemm into its constants: no integer kernel knows them."""
    import onnx_ir as ir

    for node in graph:
        if node.op_type != "Gemm":
            continue
        for attribute, position in (("alpha", 1), ("beta", 2)):
            factor = node.attributes.get_float(attribute, 1.0)
            value = node.inputs[position] if len(node.inputs) > position else None
            if factor == 1.0 or value is None or value.const_value is None:
                continue
            array = value.const_value.numpy()
            scaled = array * array.dtype.type(factor)
            name = f"{value.name}_times_{attribute}_of_{node.name}"
            node.replace_input_with(position, graph_constant(graph, name, scaled))
            node.attributes[attribute] = ir.AttrFloat32(attribute, 1.0)
            if not value.uses() and not value.is_graph_output():
                graph.initializers.pop(str(value.name), None)


def graph_constant(graph: ir.Graph, name: str, array: np.ndarray, dtype: ir.DataType | None = None) -> ir.Value:
    """Add an initializer; the name gets a number where another value has it already.

    Args:
        graph: The graph that gets it.
        name: The wanted name.
        array: Its value, on the way in as NumPy has it.
        dtype: The type of ONNX where NumPy has none (INT4 and the like).
    """
    values = {value.name for node in graph.all_nodes() for value in node.outputs} | {v.name for v in graph.inputs}
    free, number = name, 1
    while free in graph.initializers or free in values:
        free, number = f"{name}_{number}", number + 1
    return named_constant(graph, free, array, dtype)


def named_constant(graph: ir.Graph, name: str, array: np.ndarray, dtype: ir.DataType | None = None) -> ir.Value:
    """Add an initializer under a name that is known to be free, which spares looking at every value of the graph."""
    import onnx_ir as ir

    tensor = ir.Tensor(array, name=name) if dtype is None else ir.Tensor(array, dtype=dtype, name=name)
    value = ir.Value(name=name, shape=tensor.shape, type=ir.TensorType(tensor.dtype), const_value=tensor)
    graph.register_initializer(value)
    return value
