"""What is in a model."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path

import onnx
from onnx import TensorProto, helper

from accel.errors import BadModel
from accel.graph.check import bodies
from accel.graph.load import load_proto
from accel.report import ModelSummary, TensorSummary

QUANTIZED = frozenset({
    "QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "QLinearConv", "QLinearMatMul", "ConvInteger",
    "MatMulInteger", "MatMulNBits", "QGemm", "QAttention", "DynamicQuantizeMatMul", "DynamicQuantizeLSTM",
})  # fmt: skip

_WEIGHTS = frozenset({
    TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE, TensorProto.INT8,
    TensorProto.UINT8, TensorProto.INT4, TensorProto.UINT4,
})  # fmt: skip

_SMALL = frozenset({
    TensorProto.INT8, TensorProto.UINT8, TensorProto.INT4, TensorProto.UINT4, TensorProto.INT2, TensorProto.UINT2,
})  # fmt: skip
_SCALED = frozenset({"QuantizeLinear", "DequantizeLinear"})

Shape = tuple[int | None, ...]


def inspect_file(path: Path) -> ModelSummary:
    """Check an uploaded file and describe the model in it (see :func:`accel.graph.load.load_proto` for refusals)."""
    return summarize(load_proto(path))


def summarize(model: onnx.ModelProto) -> ModelSummary:
    """Describe a model: signature, operators, parameters, multiply-accumulates."""
    operators: Counter[str] = Counter()
    nested = False
    for body in bodies(model):
        operators.update(node.op_type for node in body.nodes)
        nested |= body.depth > 0
    macs, notes = _macs(model)
    if nested and macs is not None:
        notes.append("Multiply-accumulates inside If, Loop and Scan are not counted.")
    given = {tensor.name for tensor in model.graph.initializer}
    return ModelSummary(
        inputs=tuple(_tensor(value) for value in model.graph.input if value.name not in given),
        outputs=tuple(_tensor(value) for value in model.graph.output),
        opset={entry.domain or "ai.onnx": entry.version for entry in model.opset_import},
        operators=dict(sorted(operators.items())),
        parameters=_parameters(model),
        macs=macs,
        quantized=not QUANTIZED.isdisjoint(operators) or _unpacked(model),
        notes=tuple(notes),
    )


def _unpacked(model: onnx.ModelProto) -> bool:
    """Whether weights are stored as integers that are cast when the model is loaded."""
    small = {tensor.name for tensor in model.graph.initializer if tensor.data_type in _SMALL and len(tensor.dims) > 1}
    return any(node.op_type == "Cast" and node.input[0] in small for node in model.graph.node)


def _tensor(value: onnx.ValueInfoProto) -> TensorSummary:
    kind = value.type.WhichOneof("value") or "unknown"
    if kind != "tensor_type":
        return TensorSummary(name=value.name, dtype=kind.removesuffix("_type"), shape=None)
    tensor = value.type.tensor_type
    dims: list[int | str | None] = []
    for dim in tensor.shape.dim:
        which = dim.WhichOneof("value")
        known = dim.dim_value if which == "dim_value" and dim.dim_value >= 0 else None
        dims.append(dim.dim_param or None if which == "dim_param" else known)
    return TensorSummary(
        name=value.name,
        dtype=_dtype(tensor.elem_type),
        shape=tuple(dims) if tensor.HasField("shape") else None,
    )


def _dtype(element: int) -> str:
    if element not in TensorProto.DataType.values():
        raise BadModel(f"An input or output has elements of the type {element}, which ONNX does not have.")
    name: str = TensorProto.DataType.Name(element).lower()
    return {"float": "float32", "double": "float64"}.get(name, name)


def _parameters(model: onnx.ModelProto) -> int:
    """Weights and biases, wherever they are kept; scales and zero points of quantization are not counted."""
    total = 0
    for body in bodies(model):
        scaling = {name for node in body.nodes if node.op_type in _SCALED for name in node.input[1:]}
        dequantized = {node.input[0] for node in body.nodes if node.op_type == "DequantizeLinear"}
        total += sum(
            math.prod(tensor.dims)
            for _, tensor in body.tensors
            if tensor.name not in scaling and (tensor.data_type in _WEIGHTS or tensor.name in dequantized)
        )
    return total


def _macs(model: onnx.ModelProto) -> tuple[int | None, list[str]]:
    """Multiply-accumulates of one sample, where the shapes tell."""
    try:
        inferred = onnx.shape_inference.infer_shapes(_single(model), data_prop=True).graph
    except Exception as error:  # noqa: BLE001  (inference is best effort; what it said goes into the notes)
        return None, [f"Shapes could not be inferred: {str(error).splitlines()[0][:200]}"]
    shapes = {tensor.name: tuple(tensor.dims) for tensor in inferred.initializer}
    shapes |= {value.name: _shape(value) for value in (*inferred.input, *inferred.value_info, *inferred.output)}
    shapes |= {
        node.output[0]: tuple(attribute.t.dims)
        for node in inferred.node
        for attribute in node.attribute
        if node.op_type == "Constant" and attribute.name == "value"
    }
    counts = {node.output[0]: _node_macs(node, shapes) for node in inferred.node if node.output}
    unknown = [name for name, count in counts.items() if count is None]
    if unknown:
        return None, [f"Multiply-accumulates are unknown: shapes at {unknown[0]!r} depend on more than the batch."]
    return sum(count for count in counts.values() if count is not None), []


def _single(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy that takes one sample, where the batch is open."""
    single = onnx.ModelProto()
    single.CopyFrom(model)
    for value in single.graph.input:
        dims = value.type.tensor_type.shape.dim
        if dims and (dims[0].WhichOneof("value") != "dim_value" or dims[0].dim_value < 0):
            dims[0].dim_value = 1
    del single.graph.value_info[:]
    for value in single.graph.output:
        value.type.tensor_type.ClearField("shape")
    return single


def _shape(value: onnx.ValueInfoProto) -> Shape:
    dims = value.type.tensor_type.shape.dim
    return tuple(
        dim.dim_value if dim.WhichOneof("value") == "dim_value" and dim.dim_value >= 0 else None for dim in dims
    )


def _node_macs(node: onnx.NodeProto, shapes: dict[str, Shape]) -> int | None:
    attributes = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}

    def size(dims: Shape | None) -> int | None:
        return None if dims is None or any(d is None for d in dims) else math.prod(d for d in dims if d is not None)

    def times(*factors: int | None) -> int | None:
        return None if any(f is None for f in factors) else math.prod(f for f in factors if f is not None)

    out = shapes.get(node.output[0]) or None
    match node.op_type:
        case "Conv" | "ConvInteger":
            weight = shapes.get(node.input[1], (None,))
            return times(size(out), size(weight[1:]))
        case "QLinearConv":
            return times(size(out), size(shapes.get(node.input[3], (None,))[1:]))
        case "ConvTranspose":
            return times(size(shapes.get(node.input[0])), size(shapes.get(node.input[1], (None,))[1:]))
        case "Gemm":
            left = shapes.get(node.input[0], (None,))
            return times(size(out), left[0] if attributes.get("transA") else left[-1])
        case "MatMul" | "MatMulInteger" | "QLinearMatMul":
            return times(size(out), (shapes.get(node.input[0]) or (None,))[-1])
        case "LSTM" | "GRU" | "RNN":
            steps = (shapes.get(node.input[0]) or (None, None))[:2]
            return times(*steps, size(shapes.get(node.input[1])), 1) and _recurrent(node, shapes, steps)
        case _:
            return 0


def _recurrent(node: onnx.NodeProto, shapes: dict[str, Shape], steps: Shape) -> int | None:
    weights = [shapes.get(name) for name in node.input[1:3]]
    sizes = [math.prod(d for d in dims if d is not None) for dims in weights if dims]
    return math.prod(d for d in steps if d is not None) * sum(sizes) if len(sizes) == len(weights) else None
