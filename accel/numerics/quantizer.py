"""ONNX Runtime's quantizers, given graphs that they can work on."""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt

from accel.errors import AccelError, TechniqueFailed

if TYPE_CHECKING:
    import onnx
    import onnx_ir

    from accel.context import Calibration, Context

_OPSET = 17
"""QDQ per channel needs opset 13; 17 is the newest that every runtime in use knows."""


def quantize_dynamic(
    model: onnx_ir.Model, context: Context, *, operators: Sequence[str], per_channel: bool, reduce_range: bool
) -> onnx_ir.Model:
    """Quantize weights to 8 bits; activations are quantized while the model runs.

    Raises:
        TechniqueFailed: There is nothing to quantize, or the quantizer does not understand the model.
    """
    from onnxruntime.quantization import QuantType
    from onnxruntime.quantization import quantize_dynamic as quantize

    proto = _prepared(model, context, operators)
    return _quantized(
        context,
        lambda path: quantize(
            proto,
            path,
            op_types_to_quantize=list(operators),
            per_channel=per_channel,
            reduce_range=reduce_range,
            weight_type=QuantType.QInt8,
            extra_options={"MatMulConstBOnly": True},
        ),
    )


def quantize_static(
    model: onnx_ir.Model,
    context: Context,
    *,
    operators: Sequence[str],
    exclude: Sequence[str],
    calibration: Calibration,
    samples: int,
    method: Literal["minmax", "percentile"],
    per_channel: bool,
    reduce_range: bool,
) -> onnx_ir.Model:
    """Quantize weights to signed and activations to unsigned 8 bits, as QuantizeLinear and DequantizeLinear pairs.

    Raises:
        TechniqueFailed: There is nothing to quantize, a pattern matches nothing, or the quantizer fails.
    """
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType
    from onnxruntime.quantization import quantize_static as quantize

    proto = _prepared(model, context, operators)
    left_out = _matching(proto, exclude)
    methods = {"minmax": CalibrationMethod.MinMax, "percentile": CalibrationMethod.Percentile}
    return _quantized(
        context,
        lambda path: quantize(
            proto,
            path,
            _Reader(calibration.batches(samples, 1), samples, context),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=list(operators),
            nodes_to_exclude=left_out,
            per_channel=per_channel,
            reduce_range=reduce_range,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=methods[method],
            extra_options={"MatMulConstBOnly": True},
        ),
    )


class _Reader:
    """Calibration samples as ONNX Runtime's calibrator asks for them."""

    def __init__(self, batches: Iterator[dict[str, npt.NDArray[np.generic]]], samples: int, context: Context) -> None:
        self._batches, self._samples, self._context, self._given = batches, samples, context, 0

    def get_next(self) -> dict[str, npt.NDArray[np.generic]] | None:
        batch = next(self._batches, None)
        if batch is None:
            return None
        self._given += 1
        self._context.progress("calibrating", self._given, self._samples, "")
        return batch


def _prepared(model: onnx_ir.Model, context: Context, operators: Sequence[str]) -> onnx.ModelProto:
    """A simplified copy, of a recent opset, with its weights as initializers."""
    import onnx_ir
    from onnx import version_converter
    from onnx_ir.passes.common import LiftConstantsToInitializersPass

    from accel.graph.inspect import QUANTIZED
    from accel.graph.simplify import simplify

    types = {node.op_type for node in model.graph.all_nodes()}
    found = types & QUANTIZED
    if found:
        raise TechniqueFailed(
            f"The model is quantized already (it has {', '.join(sorted(found))}).",
            hint="Start from the float model: quantizing twice only loses accuracy.",
        )
    if not types & set(operators):
        raise TechniqueFailed(
            f"The model has none of the operators that are quantized: {', '.join(operators)}.",
            hint=f"It has {', '.join(sorted(types)[:12])}.",
        )
    opset = model.opset_imports.get("", 0)
    proto = onnx_ir.to_proto(model)
    if opset < _OPSET:
        try:
            proto = version_converter.convert_version(proto, _OPSET)
        except Exception as error:
            raise TechniqueFailed(
                f"The model is of opset {opset}, and cannot be raised to {_OPSET}: {' '.join(str(error).split())[:200]}",
                hint="Export it again with opset 17 or later.",
            ) from error
        context.note(f"The opset was raised from {opset} to {_OPSET}.")
    lifted = onnx_ir.from_proto(proto)
    LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(lifted)
    ready = onnx_ir.to_proto(simplify(lifted, context.workspace))
    for number, node in enumerate(ready.graph.node):
        node.name = node.name or f"{node.op_type}_{number}"  # the quantizer tells nodes apart by their names
    return ready


def _matching(proto: onnx.ModelProto, patterns: Sequence[str]) -> list[str]:
    names = [node.name for node in proto.graph.node]
    chosen: list[str] = []
    for pattern in patterns:
        matches = fnmatch.filter(names, pattern)
        if not matches:
            import difflib

            close = difflib.get_close_matches(pattern.strip("*"), names, 3, 0.3)
            raise TechniqueFailed(
                f"The pattern {pattern!r} matches no node.",
                hint=f"Names are matched after simplification; similar ones: {', '.join(close) or 'none'}.",
            )
        chosen += matches
    return chosen


def _quantized(context: Context, quantize: Callable[[Path], None]) -> onnx_ir.Model:
    import onnx
    import onnx_ir

    path = context.workspace / "quantized.onnx"
    try:
        quantize(path)
        proto = onnx.load(path, load_external_data=False)
    except (AccelError, MemoryError):
        raise
    except Exception as error:
        raise TechniqueFailed(
            f"ONNX Runtime's quantizer does not understand the model: {' '.join(str(error).split())[:300]}",
            hint="Try quantize_dynamic, or leave the node out that the message names.",
        ) from error
    finally:
        path.unlink(missing_ok=True)
    if not any(node.op_type.endswith(("QuantizeLinear", "Integer")) for node in proto.graph.node):
        raise TechniqueFailed(
            "The quantizer changed nothing in this model: its weights are not constant, or in sub-graphs."
        )
    quantized = onnx_ir.from_proto(proto)
    quantized.graph.sort()  # the quantizer does not see what sub-graphs take from outside
    return quantized
