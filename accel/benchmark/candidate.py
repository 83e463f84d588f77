"""One candidate of a benchmark, in a process of its own: it loads a model, then measures when it is told to.

It speaks JSON lines (``accel.benchmark.orders``). Between orders it sleeps in a read of standard input and takes no
processor time.
"""

from __future__ import annotations

import gc
import math
import os
import random
import resource
import signal
import sys
import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass

import accel  # noqa: F401  (sets the environment that onnxruntime reads at its import)
from accel.benchmark.orders import (
    LATE_SHARE,
    Answer,
    Broken,
    Load,
    Loaded,
    Measure,
    Ran,
    Ready,
    Samples,
    Serve,
    Served,
    orders,
)
from accel.sandbox import die_with_parent

_SAMPLE_S = 20e-6
"""A sample lasts at least this long: shorter queries are grouped, or the clock and the loop would be measured."""
_WARMUP_QUERIES = 5
_WARMUP_S = 0.2
_WARMUP_MOST_S = 2.0
_AWAKE_S = 300e-6
"""The end of a wait for an arrival is spun: the kernel wakes a sleeper later than it was asked to."""


def main() -> None:
    """Serve one benchmark."""
    die_with_parent(int(sys.argv[1]))
    _step_aside()
    gc.disable()  # a collection would be in some sample, and nothing here makes cycles
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as out:
        os.dup2(2, 1)
        for answer in _answers():
            out.write(answer.model_dump_json() + "\n")
            out.flush()


def _step_aside() -> None:
    """Go on in a child, and end as it ends; SIGTERM ends both.

    The kernel's record of a process's peak memory outlives ``exec``: what a large process starts begins with the peak of
    that one. What is forked begins anew.
    """
    starter = os.getpid()
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    child = os.fork()
    if child == 0:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
        die_with_parent(starter)
        return
    # The child is killed and waited for here, so that none is left to whoever adopts orphans.
    signal.signal(signal.SIGTERM, lambda *_: os.kill(child, signal.SIGKILL))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
    for descriptor in (0, 1, 2):  # the pipe's reader learns of the end when the child closes it
        os.close(descriptor)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if code < 0:
        if -code not in {signal.SIGKILL, signal.SIGSTOP}:
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    os._exit(code)


def _answers() -> Iterator[Answer]:
    from accel.errors import AccelError

    try:
        order = orders.validate_json(sys.stdin.readline())
        if not isinstance(order, Load):
            raise TypeError("the first order says what to load")
        work = yield from _load(order)
        for line in sys.stdin:
            match orders.validate_json(line):
                case Measure(seconds=seconds):
                    yield work.measure(seconds)
                case Serve() as serve:
                    yield work.serve(serve)
                case Load():
                    raise TypeError("a candidate loads one model")
    except AccelError as error:
        yield Broken(message=error.message)


def _load(order: Load) -> Generator[Answer, None, _Work]:
    """Load, run cold, warm up; returns what measures."""
    from accel.benchmark.inputs import random_inputs, samples_of
    from accel.runtimes.sessions import open_session

    begun = time.perf_counter()
    session = open_session(order.path, order.runtime, threads=order.threads)
    opened = time.perf_counter()
    (feed,) = random_inputs(session.inputs, seed=order.seed, batch_size=order.batch_size, shapes=order.shapes)
    made = time.perf_counter()
    call = session.prepared(feed)  # what compiles does it here
    yield Loaded(load_ms=(opened - begun + time.perf_counter() - made) * 1e3)
    samples = samples_of(session.inputs, feed)
    calls = max(1, math.ceil(order.batch_size / samples))
    begun = time.perf_counter()
    session.run(feed)  # errors are told apart here, outside of what is timed
    yield Ran(first_ms=(time.perf_counter() - begun) * 1e3, query_size=samples * calls, calls_per_query=calls)
    work = _Work(call, calls)
    warmup = work.warm_up()
    work.group(sorted(warmup)[len(warmup) // 2])
    yield Ready(warmup_ms=_rounded(warmup), queries_per_sample=work.queries_per_sample)
    return work


@dataclass(slots=True)
class _Work:
    """A loaded model, and how its queries are timed."""

    call: Callable[[], object]
    calls_per_query: int
    queries_per_sample: int = 1

    def group(self, query_ms: float) -> None:
        """Time so many queries together that a sample is long enough."""
        self.queries_per_sample = max(1, round(_SAMPLE_S * 1e3 / query_ms))

    def sample(self, queries: int) -> float:
        """Time of a query in ms, over so many."""
        call, calls = self.call, queries * self.calls_per_query
        begin = time.perf_counter_ns()
        for _ in range(calls):
            call()
        return (time.perf_counter_ns() - begin) / 1e6 / queries

    def warm_up(self) -> list[float]:
        """Queries until the first slow ones are over."""
        samples: list[float] = []
        begun = time.perf_counter()
        while (spent := time.perf_counter() - begun) < _WARMUP_S or (
            len(samples) < _WARMUP_QUERIES and spent < _WARMUP_MOST_S
        ):
            samples.append(self.sample(1))
        return samples

    def measure(self, seconds: float) -> Samples:
        """One round."""
        queries = self.queries_per_sample
        lead = self.sample(queries)
        samples: list[float] = []
        used = _cpu_seconds()
        begun = time.perf_counter()
        until = begun + seconds
        while not samples or time.perf_counter() < until:
            samples.append(self.sample(queries))
        return Samples(
            lead_ms=lead,
            seconds=time.perf_counter() - begun,
            cpu_seconds=_cpu_seconds() - used,
            samples_ms=_rounded(samples),
            queries=queries * len(samples),
            peak_memory_bytes=_peak_memory_bytes(),
        )

    def serve(self, order: Serve) -> Served:
        """Answer queries as they arrive, first come first served, until all are answered or the bound cannot hold."""
        chance = random.Random(order.seed)  # noqa: S311  (arrivals, no secret)
        late_at_most = LATE_SHARE * order.requests
        latencies: list[float] = []
        late = 0
        self.sample(1)
        arrival = time.perf_counter()
        until = arrival + order.seconds
        while len(latencies) < order.requests and late <= late_at_most and arrival < until:
            arrival += chance.expovariate(order.rate_hz)
            _wait(arrival)
            self.sample(1)
            latency = (time.perf_counter() - arrival) * 1e3
            latencies.append(latency)
            late += latency > order.bound_ms
        return Served(latencies_ms=_rounded(latencies), peak_memory_bytes=_peak_memory_bytes())


def _wait(until: float) -> None:
    """Until a request arrives: asleep, and awake for the last moment, since a sleep ends late."""
    left = until - time.perf_counter() - _AWAKE_S
    if left > 0:
        time.sleep(left)
    while time.perf_counter() < until:
        pass


def _cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def _peak_memory_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _rounded(milliseconds: list[float]) -> tuple[float, ...]:
    """To five digits: the clock tells no more."""
    return tuple(float(f"{value:.5g}") for value in milliseconds)


if __name__ == "__main__":
    main()
