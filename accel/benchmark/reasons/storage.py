"""Weights that are stored in fewer bits, and become float32 before anything is computed with them."""

from __future__ import annotations

from collections.abc import Iterator

from accel.benchmark.reasons.evidence import Evidence, Kernel, Side
from accel.benchmark.reasons.integers import in_integers
from accel.benchmark.reasons.operators import WEIGHTED
from accel.benchmark.reasons.weights import every_node
from accel.benchmark.reasons.wording import kinds, some, spent, total
from accel.report import SpeedFinding

_WEIGHT = {"LSTM": (1, 2), "GRU": (1, 2), "RNN": (1, 2)}
"""Positions of weights among the inputs; 1 for all others."""


def storage(evidence: Evidence) -> Iterator[SpeedFinding]:
    """Half floats and integer weights that the CPU provider turns into float32."""
    side = evidence.after
    layers = [kernel for kernel in side.kernels if kernel.operator in WEIGHTED and _float_weights(kernel, side)]
    casts = [kernel for kernel in side.kernels if kernel.operator == "Cast"]
    stored = _stored(side)
    if not layers or stored is None:
        return
    ms, cast_ms = total(layers), total(casts)
    constants = {tensor.name for tensor in side.file.graph.initializer}
    if stored in {"float16", "bfloat16"}:
        between = f", and {spent(cast_ms)} for {len(casts)} Casts in between" if cast_ms else ""
        text = f"Weights are stored in {stored}, but the CPU provider computes {kinds(layers)} in float32: {spent(ms)}{between}. "
        text += "The file is half as large and no faster on processors"
        if any(node.op_type == "Cast" and node.input[0] in constants for node in every_node(side.file)):
            text += "."
        else:
            text += "; convert_float16 with `compute: float32` keeps the fused operators of the float model."
    else:
        text = (
            f"Weights are stored in integers ({stored}) and become float32 when the file is loaded; {kinds(layers)}: "
            f"{spent(ms)}, as in the float model. Quantize activations too (quantize_static, quantize_dynamic) to compute in integers."
        )
        cast_ms = 0.0
    yield SpeedFinding(
        kind="no_integer_kernel", share=evidence.share(ms + cast_ms), nodes=some([*layers, *casts]), text=text
    )


def _float_weights(kernel: Kernel, side: Side) -> bool:
    """Whether a kernel multiplies with constants that are float32 by now."""
    from onnx import TensorProto

    positions = _WEIGHT.get(kernel.operator, (1,))
    weights = [
        side.initializers[kernel.inputs[position]]
        for position in positions
        if position < len(kernel.inputs) and kernel.inputs[position] in side.initializers
    ]
    return any(weight.data_type == TensorProto.FLOAT for weight in weights)


def _stored(side: Side) -> str | None:
    """What most of the file's weights are stored in, where none of them is used as it is stored."""
    from onnx import TensorProto

    if any(in_integers(kernel) or kernel.operator in {"QuantizeLinear", "DequantizeLinear"} for kernel in side.kernels):
        return None
    small = {
        TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.INT8, TensorProto.UINT8, TensorProto.INT4,
        TensorProto.UINT4, TensorProto.INT2, TensorProto.UINT2,
    }  # fmt: skip
    sizes: dict[int, int] = {}
    read = {name for node in every_node(side.file) for name in node.input}
    for tensor in side.file.graph.initializer:
        if tensor.name in read and len(tensor.dims) > 1:
            elements = 1
            for size in tensor.dims:
                elements *= size
            sizes[tensor.data_type] = sizes.get(tensor.data_type, 0) + elements
    if not sizes:
        return None
    most = max(sizes, key=lambda kind: sizes[kind])
    return str(TensorProto.DataType.Name(most)).lower() if most in small else None
