"""One candidate of a benchmark, in a process of its own: it loads a model, then measures when it is told to.

It speaks JSON lines: an :class:`Order` first, then one :class:`Measure` a round; it answers :class:`Ready` and
:class:`Samples`, or :class:`Broken`. Between rounds it sleeps in a read of standard input and takes no processor time.
"""

from __future__ import annotations

import os
import resource
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

import accel  # noqa: F401  (sets the environment that onnxruntime reads at its import)
from accel.sandbox import die_with_parent

_SAMPLE_S = 100e-6
"""A sample lasts at least this long: shorter calls are grouped, or the clock and the loop would be measured."""
_WARMUP_CALLS = 5
_WARMUP_S = 0.2


class _Message(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Order(_Message):
    """What to load."""

    path: Path
    runtime: str
    threads: int
    batch_size: int
    shapes: dict[str, tuple[int, ...]]
    seed: int


class Measure(_Message):
    """Measure for so long, at least once."""

    seconds: float


class Ready(_Message):
    """Loaded and warm."""

    answer: Literal["ready"] = "ready"
    load_ms: float
    warmup_ms: tuple[float, ...]
    calls_per_sample: int


class Samples(_Message):
    """Time of one call in each sample of a round, and the most memory that the process has held."""

    answer: Literal["samples"] = "samples"
    samples_ms: tuple[float, ...]
    peak_memory_bytes: int


class Broken(_Message):
    """It cannot be measured."""

    answer: Literal["broken"] = "broken"
    message: str


Answer = Annotated[Ready | Samples | Broken, Field(discriminator="answer")]
answers: TypeAdapter[Ready | Samples | Broken] = TypeAdapter(Answer)


def main() -> None:
    """Serve one benchmark."""
    die_with_parent(int(sys.argv[1]))
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as out:
        os.dup2(2, 1)
        for answer in _serve():
            out.write(answer.model_dump_json() + "\n")
            out.flush()


def _serve() -> Iterator[Ready | Samples | Broken]:
    from accel.benchmark.inputs import random_inputs
    from accel.errors import AccelError
    from accel.runtimes.onnxruntime import open_session

    order = Order.model_validate_json(sys.stdin.readline())
    try:
        started = time.perf_counter()
        session = open_session(order.path, order.runtime, threads=order.threads)
        load_ms = (time.perf_counter() - started) * 1e3
        (feed,) = random_inputs(session.inputs, seed=order.seed, batch_size=order.batch_size, shapes=order.shapes)
        names = [port.name for port in session.outputs]
        session.run(feed)  # errors are told apart here, outside of what is timed
        native = session.native.run
        warmup: list[float] = []
        until = time.perf_counter() + _WARMUP_S
        while len(warmup) < _WARMUP_CALLS or time.perf_counter() < until:
            begin = time.perf_counter_ns()
            native(names, feed)
            warmup.append((time.perf_counter_ns() - begin) / 1e6)
        calls = max(1, round(_SAMPLE_S * 1e3 / sorted(warmup)[len(warmup) // 2]))
        yield Ready(load_ms=load_ms, warmup_ms=_rounded(warmup), calls_per_sample=calls)
        for line in sys.stdin:
            seconds = Measure.model_validate_json(line).seconds
            samples: list[float] = []
            until = time.perf_counter() + seconds
            while not samples or time.perf_counter() < until:
                begin = time.perf_counter_ns()
                for _ in range(calls):
                    native(names, feed)
                samples.append((time.perf_counter_ns() - begin) / 1e6 / calls)
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
            yield Samples(samples_ms=_rounded(samples), peak_memory_bytes=peak)
    except AccelError as error:
        yield Broken(message=error.message)


def _rounded(milliseconds: list[float]) -> tuple[float, ...]:
    """To five digits: the clock tells no more."""
    return tuple(float(f"{value:.5g}") for value in milliseconds)


if __name__ == "__main__":
    main()
