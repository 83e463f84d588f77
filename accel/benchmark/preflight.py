"""Will it help here? From a graph and the processor's features, within seconds and without timing anything."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from accel.benchmark.expected import OPEN_SIZES, Sizes, costs_of, quantized_by_default, ratio
from accel.benchmark.kernel_costs import Costs
from accel.benchmark.kernel_table import processor
from accel.benchmark.pitfalls import is_tiny, pitfalls, stays_float
from accel.errors import AccelError
from accel.report import Environment, Estimate, Preflight
from accel.request import ModelFile

_DOUBT = {"onnxruntime:cpu": 1.0, "onnxruntime:openvino": 1.5}
"""Runtimes that the table of kernels is good for, and by which factor their ratios may be wrong besides. OpenVINO's
kernels are of the same speed where they multiply, and fuse more around it; they were not measured."""
_CLEAR = 1.1


def preflight(
    model: ModelFile,
    baseline: ModelFile | None,
    runtime: str,
    environment: Environment,
    *,
    shapes: Mapping[str, Sequence[int]] | None = None,
) -> Preflight:
    """Say what a model would gain on this processor, and what stands in the way.

    For a float model that is what ``quantize_static`` with its defaults would give; for one that is quantized, what this
    file gives over its float baseline.

    Args:
        model: The model in question.
        baseline: Its float baseline, where it is quantized.
        runtime: Where it would run.
        environment: This host.
        shapes: Shapes of inputs that the model leaves open.

    Raises:
        AccelError: The file is no model that can be read.
    """
    from accel.graph.inspect import summarize
    from accel.graph.load import load_proto

    proto = load_proto(model.path)
    quantized = summarize(proto).quantized
    core = processor(environment.cpu_features)
    sizes = Sizes(shapes or {})
    reference = (baseline.path if baseline is not None else None) if quantized else model.path
    refused = ""
    with tempfile.TemporaryDirectory() as folder:
        work, result = Path(folder), model.path
        if not quantized:
            result = work / "quantized.onnx"
            try:
                quantized_by_default(model.path, result, work)
            except AccelError as error:
                result, refused = model.path, error.message
        after = costs_of(result, core, sizes, work)
        before = costs_of(reference, core, sizes, work) if reference is not None else ()
        size_bytes = result.stat().st_size
    gain = None
    if refused:
        gain = Estimate(value=1.0, low=1.0, high=1.0)
    elif runtime in _DOUBT:
        gain = ratio(before, after, core, doubt=_DOUBT[runtime])
    if refused:
        advice = "Keep it as it is: static quantization has nothing to work on here."
    elif gain is None:
        advice = f"Measure it: {_what_is_missing(runtime, with_baseline=bool(before))}."
    else:
        smaller = f"the file has {size_bytes / (reference or model.path).stat().st_size:.0%} of the size"
        what = "this file" if quantized else "quantize_static"
        advice = _advice(gain, f"{what} on {runtime}", smaller, tiny=is_tiny(after))
    return Preflight(
        model_id=model.model_id,
        runtime=runtime,
        already_quantized=quantized,
        int8_share=_int8_share(after) if runtime in _DOUBT else None,
        expected_speedup=gain or Estimate(value=1.0),
        expected_size_bytes=size_bytes,
        size_bytes=model.path.stat().st_size,
        stays_float=stays_float(after[0], written=quantized),
        known_failures=tuple(filter(None, (refused, *pitfalls(proto, after, runtime, environment, core)))),
        advice=advice,
    )


def predicted_speedup(
    baseline: Path,
    model: Path,
    runtime: str,
    environment: Environment,
    *,
    shapes: Mapping[str, Sequence[int]] | None = None,
    batch_size: int = 1,
    open_sizes: Sequence[int] = OPEN_SIZES,
) -> Estimate | None:
    """How many times as fast as its baseline a model is expected to be with one thread, with a range.

    Args:
        baseline: The file that is the measure.
        model: The file in question.
        runtime: Where both run.
        environment: This host.
        shapes: Shapes of inputs.
        batch_size: Size of a first dimension that is open.
        open_sizes: Sizes to try for other dimensions that are open.

    Returns:
        None for runtimes whose kernels are not known here, and where the shapes of too much are unknown.

    Raises:
        AccelError: A file is no model that can be read.
    """
    if runtime not in _DOUBT:
        return None
    core = processor(environment.cpu_features)
    sizes = Sizes(shapes or {}, batch_size, open_sizes)
    with tempfile.TemporaryDirectory() as folder:
        before, after = (costs_of(path, core, sizes, Path(folder)) for path in (baseline, model))
    return ratio(before, after, core, doubt=_DOUBT[runtime])


def _int8_share(found: Sequence[Costs]) -> float | None:
    """Share of multiply-accumulates in integer kernels; None where they are unknown or differ by the inputs' sizes."""
    shares = []
    for costs in found:
        if costs.unknown_share or not costs.macs:
            return None
        by_kind: Counter[bool] = Counter()
        for kernel in costs.kernels:
            by_kind[kernel.in_integers] += kernel.macs or 0
        shares.append(by_kind[True] / costs.macs)
    return sum(shares) / len(shares) if max(shares) - min(shares) < 0.02 else None  # noqa: PLR2004  (two points)


def _what_is_missing(runtime: str, *, with_baseline: bool) -> str:
    """Why nothing is known of the speed-up."""
    if runtime not in _DOUBT:
        return f"nothing is known beforehand of the kernels of {runtime}"
    return (
        "the shapes of most of its layers are unknown"
        if with_baseline
        else "only its float baseline tells what it gains"
    )


def _advice(gain: Estimate, what: str, smaller: str, *, tiny: bool) -> str:
    """One sentence."""
    span = f"{gain.low:.1f} to {gain.high:.1f} times as fast"
    if tiny:
        return (
            f"Keep the float model unless its size matters: a call takes microseconds, most of it overhead ({smaller})."
        )
    if (gain.low or 0.0) >= _CLEAR:
        return f"Yes: {what} should be {span}, and {smaller}."
    if (gain.high or 0.0) <= _CLEAR:
        return f"Not for speed: {what} should be {span}; {smaller}."
    return f"Measure it: {what} may be {span}; {smaller}."
