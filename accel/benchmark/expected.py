"""What a file would cost on a processor, and what quantization would make of a float file: nothing is calibrated or timed."""

from __future__ import annotations

import contextlib
import math
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from accel.benchmark.kernel_costs import PARTS, Cost, Costs, costs
from accel.benchmark.kernel_table import Processor
from accel.errors import BadModel
from accel.graph.shapes import Shape, shapes, sized
from accel.report import Estimate

if TYPE_CHECKING:
    import onnx

OPEN_SIZES = (64, 256)
"""Sizes that are tried where a model leaves more open than the batch: a prediction then holds for both."""
_OPERATORS = ("Conv", "Gemm", "MatMul")
BODIES = frozenset({"If", "Loop", "Scan"})
"""Operators with graphs of their own."""
_CUT_OFF = frozenset({"Relu", "Clip"})
_DOUBTS = {
    "float_ns": 1.2, "odd_float_ns": 1.5, "int8_ns": 1.2, "copy_ns": 1.6, "weight_ns": 1.8, "quantize_ns": 1.5, "element_ns": 1.5, "node_ns": 1.6,
}  # fmt: skip
"""By which factor each part of a cost may be wrong, either way."""
_KNOWN_ENOUGH = 0.2
"""Share of the nodes that multiply whose shapes may be unknown."""
_PERSISTENT = 1.12
"""What measuring itself leaves open."""


@dataclass(frozen=True, slots=True)
class Sizes:
    """Of the inputs that a prediction is for."""

    shapes: Mapping[str, Sequence[int]]
    batch_size: int = 1
    open_sizes: Sequence[int] = OPEN_SIZES


def quantized_by_default(path: Path, result: Path, workspace: Path) -> None:
    """Write what ``quantize_static`` would make of a float file by default, with ranges that mean nothing.

    Args:
        path: A float model.
        result: Where to write it.
        workspace: Folder for temporary files.

    Raises:
        TechniqueFailed: It is quantized already, or has nothing to quantize.
    """
    from accel.graph.integer_weights import store
    from accel.graph.layers import layers
    from accel.graph.load import load, save
    from accel.graph.placement import place
    from accel.graph.prepare import prepare, refuse_quantized
    from accel.graph.qdq import QuantizedActivation, QuantizedWeight, insert
    from accel.graph.weights_only import targets, worth
    from accel.numerics.rounding import nearest, table
    from accel.numerics.scales import ACTIVATIONS, WEIGHTS, parameters, quantize_tensor
    from accel.numerics.static import Settings, granularity_of
    from accel.numerics.static_run import choose_layers

    model = load(path)
    refuse_quantized(model)
    ready, _ = prepare(model, workspace)
    names = {layer.name for layer in choose_layers(ready, _OPERATORS, (), ())}
    placement = place([layer for layer in layers(ready.graph) if layer.name in names])
    weights = {}
    for layer in placement.layers:
        granularity = granularity_of(layer, Settings())
        integers, found = quantize_tensor(layer.weight, WEIGHTS, granularity)
        weights[layer.name] = QuantizedWeight(integers, found, WEIGHTS, granularity)
    cut = {node.outputs[0].name for node in ready.graph if node.op_type in _CUT_OFF}
    signs = {
        # A Relu or Clip is computed by the layer itself only where the range begins at 0 and lies within.
        low: QuantizedActivation(parameters(low, 1.0, ACTIVATIONS), ACTIVATIONS)
        for low in (-1.0, 0.0)
    }
    insert(ready, placement, weights, {name: signs[0.0 if name in cut else -1.0] for name in placement.measured})
    for target in targets(ready.graph):
        if not target.layers and worth(target, WEIGHTS.bits, None):
            rounded = (table if target.table else nearest)(target.matrix, WEIGHTS)
            store(ready, target, rounded, "unpack")
    save(ready, result)


def costs_of(path: Path, processor: Processor, sizes: Sizes, workspace: Path) -> tuple[Costs, ...]:
    """The costs of a file's kernels, one for each size of what it leaves open besides the batch.

    Which kernels there are is read off the graph as ONNX Runtime optimises it.

    Raises:
        BadModel: ONNX Runtime cannot load it.
    """
    from accel.graph.kernels import optimised
    from accel.graph.load import load_proto

    model = load_proto(path)
    try:
        graph = optimised(path, workspace, layouts=False).graph
    except Exception as error:
        raise BadModel(f"ONNX Runtime cannot load the model: {' '.join(str(error).split())[:200]}") from error
    tried = sizes.open_sizes if _leaves_open(model, sizes.shapes) else (0,)
    signed = has_signed_activations(model)
    return tuple(
        costs(graph, _shapes(model, sizes, size, workspace), processor, signed=signed) for size in dict.fromkeys(tried)
    )


def _leaves_open(model: onnx.ModelProto, given: Mapping[str, Sequence[int]]) -> bool:
    """Whether an input has an open dimension besides the batch."""
    constant = {tensor.name for tensor in model.graph.initializer}
    return any(
        dim.WhichOneof("value") != "dim_value" or dim.dim_value < 0
        for value in model.graph.input
        if value.name not in constant and value.name not in given
        for dim in value.type.tensor_type.shape.dim[1:]
    )


def _shapes(model: onnx.ModelProto, sizes: Sizes, open_size: int, workspace: Path) -> dict[str, Shape]:
    """Shapes by inference on the graph, and on the graph with everything folded that follows from the inputs' sizes."""
    import onnx
    import onnxruntime as ort

    given = sized(model, sizes.shapes, batch_size=sizes.batch_size, open_size=open_size)
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.intra_op_num_threads = 1
    found: dict[str, Shape] = {}
    with contextlib.suppress(Exception):  # best effort: what stays unknown widens the range
        found |= shapes(given)
    if any(node.op_type in BODIES for node in given.graph.node):
        return found  # ONNX Runtime 1.32 aborts when it takes an If apart whose condition follows from sizes
    with tempfile.TemporaryDirectory(dir=workspace) as folder, contextlib.suppress(Exception):
        file = Path(folder) / "folded.onnx"
        options.optimized_model_filepath = str(file)
        ort.InferenceSession(given.SerializeToString(), options, providers=["CPUExecutionProvider"])
        found |= shapes(onnx.load(file, load_external_data=False))
    return found


def has_signed_activations(model: onnx.ModelProto) -> bool:
    """Whether activations are quantized to signed bytes."""
    import onnx

    kinds = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    return any(
        node.op_type == "QuantizeLinear"
        and node.input[0] not in kinds
        and len(node.input) > 2  # noqa: PLR2004  (the zero point is the third)
        and kinds.get(node.input[2]) == onnx.TensorProto.INT8
        for node in model.graph.node
    )


def ratio(
    before: Sequence[Costs], after: Sequence[Costs], processor: Processor, *, doubt: float = 1.0
) -> Estimate | None:
    """How many times as fast ``after`` is expected to be, with a range that about four of five measurements lie in.

    Each part of a cost is wrong by a factor of its own, the same in both files; what that does to the ratio adds up as
    independent errors do.

    Args:
        before: Costs of one file, one for each size that is tried.
        after: Those of the other, for the same sizes.
        processor: Where both run.
        doubt: A factor by which the ratio may be wrong besides.

    Returns:
        None where the shapes of too much are unknown.
    """
    if len(before) != len(after) or any(costs.unknown_share > _KNOWN_ENOUGH for costs in (*before, *after)):
        return None
    ranges = [_ratio(*pair, processor, doubt) for pair in zip(before, after, strict=True)]
    low = min(found[1] for found in ranges)
    high = max(found[2] for found in ranges)
    value = math.exp(sum(math.log(found[0]) for found in ranges) / len(ranges))
    return Estimate(value=value, low=low, high=high)


def _ratio(before: Costs, after: Costs, processor: Processor, doubt: float) -> tuple[float, float, float]:
    first, second = before.total, after.total
    middle = math.log(first.total() / second.total())
    squares = math.log(_PERSISTENT) ** 2 + math.log(doubt) ** 2
    for part in PARTS:
        factor = _DOUBTS[part] * (processor.doubt if part == "int8_ns" else 1.0)
        one, other = _sensitivity(first, part, factor), _sensitivity(second, part, factor)
        # Weights of the smaller file may be in a nearer cache; what else is wrong is so in both.
        squares += one**2 + other**2 if part == "weight_ns" else (one - other) ** 2
    unknown = max(before.unknown_share, after.unknown_share)
    half = math.sqrt(squares) + math.log1p(unknown)
    return math.exp(middle), math.exp(middle - half), math.exp(middle + half)


def _sensitivity(cost: Cost, part: str, factor: float) -> float:
    """By how much the logarithm of a cost changes when one part is wrong by a factor."""
    return math.log(cost.total({part: factor}) / cost.total({part: 1 / factor})) / 2
