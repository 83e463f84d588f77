"""Checks of a parsed ONNX file, before any library acts on what it says."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import onnx
from google.protobuf.message import Message

from accel.errors import BadModel, ExternalData, TooLarge, UnknownOperator

MAX_NODES = 100_000
MAX_DEPTH = 24
"""Protobuf itself gives up at about thirty, with an error that says nothing."""
MAX_ELEMENTS = 2**40

STANDARD = frozenset({"", "ai.onnx"})
KNOWN_DOMAINS = STANDARD | {"ai.onnx.ml", "com.microsoft"}
_REFUSED = {("com.microsoft", "EPContext"): "it carries a compiled program"}

_BITS = {
    **dict.fromkeys(("FLOAT", "INT32", "UINT32"), 32),
    **dict.fromkeys(("DOUBLE", "INT64", "UINT64", "COMPLEX64"), 64),
    **dict.fromkeys(("FLOAT16", "BFLOAT16", "INT16", "UINT16"), 16),
    **dict.fromkeys(("INT4", "UINT4", "FLOAT4E2M1"), 4),
    **dict.fromkeys(("INT2", "UINT2"), 2),
    "COMPLEX128": 128,
}


@dataclass(frozen=True, slots=True)
class Body:
    """A list of nodes with the tensors that belong to it: a graph, a sub-graph or a function."""

    nodes: list[onnx.NodeProto]
    tensors: list[tuple[str, onnx.TensorProto]]
    depth: int


def bodies(model: onnx.ModelProto) -> Iterator[Body]:
    """The main graph, every sub-graph and every function, outermost first.

    Raises:
        TooLarge: Graphs are nested too deeply.
    """
    for function in model.functions:
        # Defaults of a function's attributes hang on no node, yet a node inside may refer to them.
        defaults = onnx.NodeProto(op_type="function", name=function.name, attribute=function.attribute_proto)
        yield from _walk(list(function.node), _inside(defaults)[0], 0)
    yield from _walk(list(model.graph.node), _tensors(model.graph), 0)


def check(model: onnx.ModelProto) -> None:
    """Refuse a model that is malformed, too large, or reaches outside its file.

    Raises:
        BadModel: It is not valid ONNX.
        ExternalData: A tensor lies in another file.
        UnknownOperator: A node's operator is none that a runtime here has.
        TooLarge: It is beyond the limits.
    """
    _check_texts(model)
    local = {(function.domain, function.name) for function in model.functions}
    nodes = 0
    for body in bodies(model):
        nodes += len(body.nodes)
        if nodes > MAX_NODES:
            raise TooLarge(f"The model has more than {MAX_NODES:,} nodes.", hint="Unrolled loops may be the cause.")
        for owner, tensor in body.tensors:
            _check_tensor(owner, tensor)
        for node in body.nodes:
            _check_node(node, local)
    if not model.graph.output:
        raise BadModel("The model has no output.", hint="The file may be cut off, or not be an ONNX model at all.")
    try:
        onnx.checker.check_model(model)
    except onnx.checker.ValidationError as error:
        raise BadModel(f"The file is not valid ONNX: {_first_line(error)}", hint="Export the model again.") from error


def _walk(nodes: list[onnx.NodeProto], tensors: list[tuple[str, onnx.TensorProto]], depth: int) -> Iterator[Body]:
    if depth > MAX_DEPTH:
        raise TooLarge(f"Sub-graphs are nested more than {MAX_DEPTH} deep.")
    inner: list[onnx.GraphProto] = []
    for node in nodes:
        held, graphs = _inside(node)
        tensors += held
        inner += graphs
    yield Body(nodes, tensors, depth)
    for graph in inner:
        yield from _walk(list(graph.node), _tensors(graph), depth + 1)


def _inside(node: onnx.NodeProto) -> tuple[list[tuple[str, onnx.TensorProto]], list[onnx.GraphProto]]:
    """Tensors and graphs in the attributes of a node."""
    tensors: list[tuple[str, onnx.TensorProto]] = []
    graphs: list[onnx.GraphProto] = []
    for attribute in node.attribute:
        owner = f"{node.op_type} {node.name!r}, attribute {attribute.name!r}"
        tensors += [(owner, tensor) for tensor in (attribute.t, *attribute.tensors) if tensor.ByteSize()]
        for sparse in (attribute.sparse_tensor, *attribute.sparse_tensors):
            tensors += [(owner, part) for part in (sparse.values, sparse.indices) if part.ByteSize()]
        graphs += [graph for graph in (attribute.g, *attribute.graphs) if graph.ByteSize()]
    return tensors, graphs


def _tensors(graph: onnx.GraphProto) -> list[tuple[str, onnx.TensorProto]]:
    found = [(f"initializer {tensor.name!r}", tensor) for tensor in graph.initializer]
    for sparse in graph.sparse_initializer:
        found += [(f"sparse initializer {sparse.values.name!r}", part) for part in (sparse.values, sparse.indices)]
    return found


def _check_texts(message: Message) -> None:
    """Refuse names that could not be shown or stored: every text is UTF-8 without NUL."""
    if isinstance(message, onnx.TensorProto):
        texts = [message.name, message.doc_string]  # and not its elements, which may be gigabytes
    else:
        texts = []
        for field, value in message.ListFields():
            values = value if field.is_repeated else (value,)
            if field.message_type is not None:
                for part in values:
                    _check_texts(part)
            elif field.type == field.TYPE_STRING:
                texts += values
    for text in texts:
        # The parser leaves what it cannot decode as bytes.
        if not isinstance(text, str) or "\0" in text:
            raise BadModel(f"A name or text in the model is not valid UTF-8: {text!r:.80}.", hint="Export it again.")


def _check_tensor(owner: str, tensor: onnx.TensorProto) -> None:
    if tensor.data_location == onnx.TensorProto.EXTERNAL or tensor.external_data:
        raise ExternalData(
            f"The tensor of {owner} lies in another file.",
            hint="Save the model as one file: onnx.save(onnx.load('model.onnx'), 'one.onnx', save_as_external_data=False).",
        )
    if any(size < 0 for size in tensor.dims):
        raise BadModel(f"The tensor of {owner} has a negative dimension: {list(tensor.dims)}.")
    elements = math.prod(tensor.dims)
    if elements > MAX_ELEMENTS:
        raise TooLarge(f"The tensor of {owner} claims {elements:,} elements.")
    if tensor.raw_data and tensor.data_type in onnx.TensorProto.DataType.values():
        bits = _BITS.get(onnx.TensorProto.DataType.Name(tensor.data_type), 8)
        expected = math.ceil(elements * bits / 8)
        if len(tensor.raw_data) != expected:
            raise BadModel(
                f"The tensor of {owner} claims {list(tensor.dims)}, {expected:,} bytes, but holds {len(tensor.raw_data):,}.",
                hint="The file may be damaged; export the model again.",
            )
    elif not tensor.raw_data:
        held = max(
            len(values)
            for values in (
                tensor.float_data, tensor.int32_data, tensor.int64_data,
                tensor.double_data, tensor.uint64_data, tensor.string_data,
            )
        )  # fmt: skip
        if held * 8 < elements:  # eight values, at most, are packed into one entry
            raise BadModel(f"The tensor of {owner} claims {elements:,} elements but holds {held:,}.")


def _check_node(node: onnx.NodeProto, local: set[tuple[str, str]]) -> None:
    if (node.domain, node.op_type) in local:
        return
    reason = _REFUSED.get((node.domain, node.op_type))
    if node.domain not in KNOWN_DOMAINS:
        reason = f"no runtime here has operators of the domain {node.domain!r}"
    elif node.domain in STANDARD and not onnx.defs.has(node.op_type):
        reason = "ONNX has no such operator"
    if reason is not None:
        raise UnknownOperator(
            f"Node {node.name!r} is a {node.op_type} of the domain {node.domain!r}: {reason}.",
            hint="Export the model with standard ONNX operators only.",
        )


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0][:400] if lines else type(error).__name__
