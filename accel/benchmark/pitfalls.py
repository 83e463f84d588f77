"""What is known to go wrong with quantized models on some processors and runtimes, and what stays in float."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from accel.benchmark.expected import BODIES, has_signed_activations
from accel.benchmark.kernel_costs import CONVOLUTIONS, PLAIN, RECURRENT, Costs, Kernel
from accel.benchmark.kernel_table import Processor
from accel.report import Environment, FloatOperator

if TYPE_CHECKING:
    import onnx

_TINY_NS = 30_000.0
"""A run below this is mostly the call itself."""
_MUCH = 0.15
"""Share of the time from which on operators that multiply nothing are named."""
_OPENVINO = "onnxruntime:openvino"


def pitfalls(
    model: onnx.ModelProto, expected: Sequence[Costs], runtime: str, environment: Environment, core: Processor
) -> tuple[str, ...]:
    """Failures that others have met with such a model on such a host, in sentences.

    Args:
        model: The file as it was given.
        expected: Costs of the quantized file.
        runtime: Where it would run.
        environment: The host.
        core: Its processor.
    """
    return (
        *_of_the_processor(core),
        *_of_the_file(model, runtime, core),
        *_of_the_runtime(runtime, environment),
        *_of_the_kernels(expected),
    )


def _of_the_processor(core: Processor) -> Iterator[str]:
    if core.saturates:
        yield (
            f"This processor ({core.what}) holds sums of two products in 16 bits: results can saturate, and integers gain about "
            "half of what they do elsewhere. `portable` in quantize_static keeps results the same everywhere."
        )
    elif core.doubt > 1.3:  # noqa: PLR2004  (what was measured has less)
        yield f"Kernels of this kind of processor ({core.what}) were not measured for this prediction; its range is wider."


def _of_the_file(model: onnx.ModelProto, runtime: str, core: Processor) -> Iterator[str]:
    import onnx

    operators = Counter(node.op_type for node in model.graph.node)
    if has_signed_activations(model):
        if core.x86:
            yield "Its activations are signed: on x86-64 the same file with unsigned ones is 1.4 to 3.1 times as fast."
        if runtime == _OPENVINO:
            yield "Its activations are signed: OpenVINO does not load most such networks of convolutions."
    if operators["ConvInteger"]:
        yield "Its convolutions are quantized dynamically: they run 4 to 10 times slower than in float."
    halves = {onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16}
    if any(tensor.data_type in halves and len(tensor.dims) > 1 for tensor in model.graph.initializer):
        yield "Its weights are in 16-bit floats: processors compute them in 32 bits, at no gain and the cost of casts."
    if found := sorted(BODIES & set(operators)):
        yield f"What is inside {', '.join(found)} is left in float, and is not part of this prediction."
    if operators["MatMulNBits"]:
        yield "Its matrices have few bits and are multiplied in float: that saves memory, not time, at one row a call."


def _of_the_runtime(runtime: str, environment: Environment) -> Iterator[str]:
    if runtime == _OPENVINO:
        if "intel" not in environment.cpu.lower():
            yield "OpenVINO's plug-in leaves out processors of other makers than Intel: it may not be available here."
        if {"amx_bf16", "avx512_bf16"} & set(environment.cpu_features):
            yield (
                "OpenVINO runs float models in bf16 by itself on this processor, at a loss of accuracy; Accel asks for f32, "
                "other programs must do so too."
            )


def _of_the_kernels(expected: Sequence[Costs]) -> Iterator[str]:
    if is_tiny(expected):
        yield "A call takes a few microseconds, most of it outside of kernels: models of this size gain nothing."
    costs = expected[0]
    copying = [kernel for kernel in costs.kernels if kernel.cost.copy_ns > 2 * kernel.cost.int8_ns]
    share = sum(kernel.cost.total() for kernel in copying) / costs.total.total()
    if share > _MUCH:
        yield (
            f"{len(copying)} convolutions with few input channels spend their time in copying bytes ({share:.0%} of the run): "
            f"in float they may be faster, such as {copying[0].name}. Leave them out by `exclude`."
        )
    if costs.unknown_share:
        yield "The shapes of some layers are not known: give `shapes` for a narrower range."


def is_tiny(expected: Sequence[Costs]) -> bool:
    """Whether a run is so short that no kernel's speed matters."""
    return all(costs.total.total() < _TINY_NS for costs in expected)


def stays_float(costs: Costs, *, written: bool) -> tuple[FloatOperator, ...]:
    """The operators of a quantized file that are computed in float, and why.

    Args:
        costs: Costs of its kernels.
        written: Whether the file is the caller's own, not one that would be made.
    """
    groups: dict[tuple[str, str], list[Kernel]] = {}
    for kernel in costs.kernels:
        if kernel.macs != 0 and not kernel.in_integers:
            operator = PLAIN.get(kernel.operator, kernel.operator)
            groups.setdefault((operator, _why(operator, kernel, written=written)), []).append(kernel)
    total = costs.macs or 1
    found = [
        FloatOperator(
            operator=operator,
            count=len(kernels),
            macs_share=sum(kernel.macs or 0 for kernel in kernels) / total,
            reason=reason,
        )
        for (operator, reason), kernels in groups.items()
    ]
    return tuple(sorted((*found, *_around(costs)), key=lambda one: -one.macs_share))


def _around(costs: Costs) -> Iterator[FloatOperator]:
    """Operators that multiply nothing, and take much of the time all the same."""
    times: Counter[str] = Counter()
    counts: Counter[str] = Counter()
    for kernel in costs.kernels:
        if kernel.macs == 0 and not kernel.operator.startswith(("QLinear", "Quantize", "Dequantize")):
            times[kernel.operator] += round(kernel.cost.total())
            counts[kernel.operator] += 1
    whole = costs.total.total()
    for operator, spent in times.most_common():
        if spent > _MUCH * whole:
            reason = (
                f"It multiplies nothing and is bound by memory: about {spent / whole:.0%} of the time, as in float."
            )
            yield FloatOperator(operator=operator, count=counts[operator], macs_share=0.0, reason=reason)


def _why(operator: str, kernel: Kernel, *, written: bool) -> str:
    if operator in RECURRENT:
        return "It has no integer kernel between quantizing and dequantizing; quantize_dynamic has one for LSTM."
    if operator == "ConvTranspose":
        return "It has no integer kernel in ONNX Runtime."
    if operator == "MatMulNBits":
        return "Its weights have few bits, and are multiplied in float."
    if operator in CONVOLUTIONS or kernel.has_weight:
        return "The file leaves it in float." if written else "Its weight is not constant, or not in 32-bit floats."
    return "Both factors are computed while the model runs: there is no weight to quantize."
