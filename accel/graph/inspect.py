"""What is in a model."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import onnx
from onnx import TensorProto, helper

from accel.errors import BadModel
from accel.graph.check import bodies
from accel.graph.load import load_proto
from accel.graph.shapes import Shape, elements, shapes, sized
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
        known = shapes(sized(model))
    except Exception as error:  # noqa: BLE001  (inference is best effort; what it said goes into the notes)
        return None, [f"Shapes could not be inferred: {str(error).splitlines()[0][:200]}"]
    counts = {node.output[0]: node_macs(node, known) for node in model.graph.node if node.output}
    unknown = [name for name, count in counts.items() if count is None]
    if unknown:
        return None, [f"Multiply-accumulates are unknown: shapes at {unknown[0]!r} depend on more than the batch."]
    return sum(count for count in counts.values() if count is not None), []


def node_macs(node: onnx.NodeProto, shapes: Mapping[str, Shape]) -> int | None:
    """Multiply-accumulates of a node; None where its shapes are not known.

    Args:
        node: A node with a standard operator or one that ONNX Runtime makes of it.
        shapes: Shapes of values and initializers.
    """
    attributes = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}

    def times(*factors: int | None) -> int | None:
        return None if any(f is None for f in factors) else math.prod(f for f in factors if f is not None)

    out = shapes.get(node.output[0]) or None
    match node.op_type:
        case "Conv" | "ConvInteger":
            weight = shapes.get(node.input[1], (None,))
            return times(elements(out), elements(weight[1:]))
        case "QLinearConv":
            return times(elements(out), elements(shapes.get(node.input[3], (None,))[1:]))
        case "ConvTranspose":
            return times(elements(shapes.get(node.input[0])), elements(shapes.get(node.input[1], (None,))[1:]))
        case "Gemm":
            left = shapes.get(node.input[0], (None,))
            return times(elements(out), left[0] if attributes.get("transA") else left[-1])
        case "MatMul" | "MatMulInteger" | "QLinearMatMul":
            return times(elements(out), (shapes.get(node.input[0]) or (None,))[-1])
        case "LSTM" | "GRU" | "RNN":
            steps = (shapes.get(node.input[0]) or (None, None))[:2]
            return times(*steps, elements(shapes.get(node.input[1])), 1) and _recurrent(node, shapes, steps)
        case _:
            return 0


def _recurrent(node: onnx.NodeProto, shapes: Mapping[str, Shape], steps: Shape) -> int | None:
    weights = [shapes.get(name) for name in node.input[1:3]]
    sizes = [math.prod(d for d in dims if d is not None) for dims in weights if dims]
    return math.prod(d for d in steps if d is not None) * sum(sizes) if len(sizes) == len(weights) else None
