"""A benchmark: every setting measured, what casts doubt on it, and what explains it."""

from __future__ import annotations

import itertools
import os
from collections.abc import Sequence

from accel.benchmark import doubts
from accel.benchmark.energy import open_meter
from accel.benchmark.environment import environment
from accel.benchmark.explain import Explanations
from accel.benchmark.figures import measurements
from accel.benchmark.measure import measure
from accel.benchmark.preflight import preflight
from accel.benchmark.reference import reference_ms
from accel.benchmark.samples import MEDIA_TYPE, NAME, SampleFile
from accel.benchmark.setting import Setting
from accel.benchmark.system_times import busy_cores, cores_in_use, steal_share, system_times, throttled_share
from accel.context import Tell
from accel.events import Attachment, Done
from accel.report import BenchmarkReport, Environment, Measurement
from accel.request import BenchmarkRequest
from accel.runtimes.discover import discover, measured_unasked, unavailable
from accel.runtimes.names import device_queue

_SCALE = 100


def benchmark(request: BenchmarkRequest, tell: Tell) -> Done:
    """Measure every model on every runtime and in every setting, or predict what a measurement would find.

    A model that cannot be loaded, dies or hangs is reported; the others go on. Every sample is in the file
    ``samples.parquet``.

    Raises:
        RuntimeUnavailable: A runtime that was asked for is not to be had.
    """
    runtimes = usable(request.runtimes)
    where = environment()
    if request.preflight:
        return Done(report=_predicted(request, runtimes, where))
    settings = settings_of(request)
    tell("warming_up", 0, None, "looking at the host")
    busy = busy_cores()
    before, own_s, before_ms = system_times(), _own_cpu_seconds(), reference_ms(request.workspace)
    meter = open_meter(gpu=any(device_queue(runtime) == "cuda" for runtime in runtimes))
    samples = SampleFile(request.workspace)
    found: list[Measurement] = []
    falls: list[float] = []
    for number, setting in enumerate(settings):
        measured = measure(
            request, runtimes, setting, _share(tell, number, len(settings)), meter.joules if meter else None
        )
        samples.add(measured, request.scenario)
        found += measurements(request, measured, where)
        falls += [fall] if (fall := doubts.falls(measured)) is not None else []
    tell("measuring", len(settings) * _SCALE, len(settings) * _SCALE, "timing the reference model")
    after_ms, after = reference_ms(request.workspace), system_times()
    where = where.model_copy(
        update={"steal_share": steal_share(before, after), "throttled_share": throttled_share(before, after)}
    )
    in_use = cores_in_use(before, after)
    others = in_use - (_own_cpu_seconds() - own_s) / (after.at_s - before.at_s) if in_use is not None else None
    drift = after_ms / before_ms - 1 if before_ms and after_ms else None
    explained = Explanations(request, where)
    for number, one in enumerate(found):
        tell("explaining", number, len(found), f"profile of {one.model_id} on {one.runtime}")
        found[number] = explained.add(one)
    return Done(
        report=BenchmarkReport(
            baseline_id=request.baseline_id,
            reference_runtime=runtimes[0],
            measurements=tuple(found),
            samples=NAME,
            warnings=doubts.of_the_host(
                where, busy_before=busy, busy_meanwhile=others, drift=drift, fall=max(falls, default=None)
            ),
            environment=where,
        ),
        attachments=(Attachment(name=NAME, path=samples.close(), media_type=MEDIA_TYPE), *explained.attachments),
    )


def usable(asked: Sequence[str] | None) -> list[str]:
    """The runtimes that were asked for, or those of ONNX Runtime that this host has.

    Raises:
        RuntimeUnavailable: One of them is not to be had.
    """
    if not asked:
        return list(measured_unasked())
    there = {runtime.name for runtime in discover() if runtime.available}
    for name in asked:
        if name not in there:
            raise unavailable(name)
    return list(asked)


def settings_of(request: BenchmarkRequest) -> list[Setting]:
    """Every combination of batch size, threads and instances."""
    sizes = (request.streams,) if request.scenario == "multi_stream" else request.batch_sizes
    return [Setting(*each) for each in itertools.product(sizes, request.threads, request.instances)]


def _predicted(request: BenchmarkRequest, runtimes: Sequence[str], where: Environment) -> BenchmarkReport:
    baseline = next(model for model in request.models if model.model_id == request.baseline_id)
    return BenchmarkReport(
        baseline_id=request.baseline_id,
        reference_runtime=runtimes[0],
        measurements=(),
        preflight=tuple(
            preflight(model, None if model is baseline else baseline, runtime, where, shapes=request.shapes)
            for runtime in runtimes
            for model in request.models
        ),
        environment=where,
    )


def _own_cpu_seconds() -> float:
    """Processor time of this process and of those that it has started and seen end."""
    return sum(os.times()[:4])


def _share(tell: Tell, number: int, settings: int) -> Tell:
    """Progress of one setting as its part of the whole, in hundredths of a setting; it never goes back, though plans do."""
    reached = number * _SCALE

    def told(phase: str, done: int, total: int | None, message: str) -> None:
        nonlocal reached
        reached = max(reached, number * _SCALE + done * _SCALE // (total or 1))
        tell(phase, reached, settings * _SCALE, message)

    return told
