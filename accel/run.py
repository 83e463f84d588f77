"""From a request to its answer. The work is imported when it is asked for, so that each process loads what it needs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import assert_never

from accel.context import Tell
from accel.events import Done
from accel.report import SandboxSummary
from accel.request import (
    BenchmarkRequest,
    CompressRequest,
    DescribeHostRequest,
    EngineRequest,
    EvaluateRequest,
    InspectDatasetRequest,
    InspectModelRequest,
    TrainRequest,
)


def run(
    request: EngineRequest, sandbox: SandboxSummary, tell: Tell, keep: Callable[[Path], None] = lambda _: None
) -> Done:
    """Do what the request asks.

    Args:
        request: What is asked.
        sandbox: What confines this process.
        tell: Called with progress.
        keep: Called with a file that the same request, asked again, goes on from.

    Raises:
        AccelError: It cannot be done; the class says why.
    """
    match request:
        case InspectModelRequest():
            from accel.graph.inspect import inspect_file

            return Done(report=inspect_file(request.model))
        case InspectDatasetRequest():
            from accel.data.inspect import inspect_file as inspect_dataset

            return Done(report=inspect_dataset(request.dataset.path, request.dataset.spec, request.workspace))
        case DescribeHostRequest():
            from accel.runtimes.describe import describe_host

            return describe_host(sandbox)
        case CompressRequest():
            from accel.compress import compress

            return compress(request, tell)
        case EvaluateRequest():
            from accel.evaluation.evaluate import evaluate

            return evaluate(request, tell)
        case BenchmarkRequest():
            from accel.benchmark.run import benchmark

            return benchmark(request, tell)
        case TrainRequest():
            from accel.training.job import train_job

            return train_job(request, tell, keep)
        case _:
            assert_never(request)
