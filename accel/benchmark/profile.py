"""Where the time of a model's run goes, operator by operator."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from pydantic import ValidationError

from accel.benchmark.profiled import Order, Profiled, answers
from accel.child import how_it_ended
from accel.errors import RuntimeFailed
from accel.report import Profile

_TIMEOUT_S = 300.0


def profile(
    path: Path,
    runtime: str,
    *,
    threads: int,
    batch_size: int,
    shapes: Mapping[str, tuple[int, ...]],
    seed: int,
    trace: Path | None,
) -> Profile | None:
    """Run a model for about a second under ONNX Runtime's profiler, in a process of its own.

    A share is of the time in all operators. Operators with a sub-graph (If, Loop, Scan) count without what they ran, which
    counts for itself. The profiler knows whole microseconds, and takes two or three for each kernel: the times of kernels that
    take less are its own. Providers that compile a graph (OpenVINO) show as one operator.

    Args:
        path: An ONNX file.
        runtime: Where it runs.
        threads: Threads within one operator.
        batch_size: Size of a first dimension that the model leaves open.
        shapes: Shapes of inputs whose open dimensions must be something else.
        seed: Seed of the inputs.
        trace: Where to write the last three runs as a Chrome trace of 5 MB at most; not written if left out.

    Returns:
        The profile; None where the runtime has no profiler. ``trace`` in it is the name of that file.

    Raises:
        RuntimeFailed: It could not be profiled, with the reason. It may be measured without a profile all the same.
    """
    if runtime.partition(":")[0] != "onnxruntime":
        return None
    with tempfile.TemporaryDirectory(prefix="profile-") as folder:
        order = Order(
            path=path.resolve(),
            runtime=runtime,
            threads=threads,
            batch_size=batch_size,
            shapes=dict(shapes),
            seed=seed,
            folder=Path(folder),
            trace=trace.resolve() if trace is not None else None,
        )
        try:
            done = subprocess.run(
                [sys.executable, "-P", "-m", "accel.benchmark.profiled", str(os.getpid())],
                input=order.model_dump_json() + "\n",
                stdout=subprocess.PIPE,
                text=True,
                timeout=_TIMEOUT_S,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise _failed(f"it did not end within {_TIMEOUT_S:g} s") from error
    try:
        answer = answers.validate_json(done.stdout)
    except ValidationError as error:
        raise _failed(f"its process {how_it_ended(done.returncode)}") from error
    if not isinstance(answer, Profiled):
        raise _failed(answer.message)
    return answer.profile


def _failed(reason: str) -> RuntimeFailed:
    return RuntimeFailed(
        f"The model could not be profiled: {reason}", hint="Its latency does not depend on it; see the warnings there."
    )
