"""A model under ONNX Runtime's profiler, in a process of its own, since profiling slows what else runs there.

It reads one :class:`Order` from standard input and answers one :class:`Profiled` or :class:`Unprofiled`.
"""

from __future__ import annotations

import collections
import os
import sys
import time
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

import accel  # noqa: F401  (sets the environment that onnxruntime reads at its import)
from accel.report import Profile
from accel.sandbox import die_with_parent

_RUNS = 20
_SECONDS = 1.0
_WARMUP_RUNS = 3
_WARMUP_S = 0.3
_TRACED_RUNS = 3


class _Message(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Order(_Message):
    """What to profile, and where to write."""

    path: Path
    runtime: str
    threads: int
    batch_size: int
    shapes: dict[str, tuple[int, ...]]
    seed: int
    folder: Path
    """For the profiler's own file; whoever orders removes it."""
    trace: Path | None


class Profiled(_Message):
    """Where the time goes."""

    answer: Literal["profiled"] = "profiled"
    profile: Profile


class Unprofiled(_Message):
    """It could not be profiled."""

    answer: Literal["unprofiled"] = "unprofiled"
    message: str


Answer = Annotated[Profiled | Unprofiled, Field(discriminator="answer")]
answers: TypeAdapter[Profiled | Unprofiled] = TypeAdapter(Answer)


def main() -> None:
    """Profile one model."""
    die_with_parent(int(sys.argv[1]))
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as out:
        os.dup2(2, 1)
        out.write(_answer(Order.model_validate_json(sys.stdin.readline())).model_dump_json() + "\n")


def _answer(order: Order) -> Profiled | Unprofiled:
    from accel.benchmark.kernel_times import Run, Summary, read, trace
    from accel.errors import AccelError

    try:
        written, warmup = _run(order)
    except AccelError as error:
        return Unprofiled(message=error.message)
    summary = Summary()
    last: collections.deque[Run] = collections.deque(maxlen=_TRACED_RUNS)
    with written.open(encoding="utf-8", errors="replace") as lines:
        for number, run in enumerate(read(lines)):
            if number >= warmup:
                summary.add(run)
                last.append(run)
    profile = summary.profile()
    if profile is None:
        return Unprofiled(message="The profiler wrote no complete run: the model may have more kernels than it keeps.")
    if order.trace is not None:
        order.trace.write_text(trace(tuple(last)), encoding="utf-8")
        profile = profile.model_copy(update={"trace": order.trace.name})
    return Profiled(profile=profile)


def _run(order: Order) -> tuple[Path, int]:
    """Run the model for about a second; the profiler's file, and how many of its first runs are warm-up."""
    from accel.benchmark.inputs import random_inputs
    from accel.runtimes.onnxruntime import open_session

    session = open_session(order.path, order.runtime, threads=order.threads, profile_to=order.folder / "kernels")
    (feed,) = random_inputs(session.inputs, seed=order.seed, batch_size=order.batch_size, shapes=order.shapes)

    def until(seconds: float, most: int) -> int:
        end = time.perf_counter() + seconds
        for number in range(1, most + 1):
            session.run(feed)
            if time.perf_counter() > end:
                return number
        return most

    warmup = until(_WARMUP_S, _WARMUP_RUNS)
    until(_SECONDS, _RUNS)
    return Path(session.native.end_profiling()), warmup


if __name__ == "__main__":
    main()
