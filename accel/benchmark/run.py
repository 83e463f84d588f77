"""Measure models: each in a process of its own, rounds interleaved."""

from __future__ import annotations

import itertools
import os
import queue
import random
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import IO

from accel.benchmark.candidate import Broken, Measure, Order, Ready, Samples, answers
from accel.benchmark.environment import environment
from accel.benchmark.statistics import doubts, speedup, summarize
from accel.context import Tell
from accel.errors import RuntimeUnavailable
from accel.events import Done
from accel.report import BenchmarkReport, Environment, Estimate, Measurement
from accel.request import BenchmarkRequest, ModelFile
from accel.runtimes.discover import discover

_LOADING_S = 300.0
_ROUND_S = 120.0


@dataclass(slots=True)
class _Candidate:
    """A process that measures one model, and what it has said so far."""

    model: ModelFile
    runtime: str
    process: subprocess.Popen[str]
    lines: queue.SimpleQueue[str | None] = field(default_factory=queue.SimpleQueue)
    ready: Ready | None = None
    rounds: list[tuple[float, ...]] = field(default_factory=list)
    peak_memory_bytes: int | None = None
    error: str | None = None

    def order(self, message: Order | Measure, timeout_s: float) -> None:
        """Send an order and take in the answer; a candidate that dies or hangs is out, with the reason."""
        if self.error is not None or self.process.stdin is None:
            return
        try:
            self.process.stdin.write(message.model_dump_json() + "\n")
            self.process.stdin.flush()
            line = self.lines.get(timeout=timeout_s)
        except (BrokenPipeError, queue.Empty) as error:
            self.process.kill()
            self.error = (
                f"It did not answer within {timeout_s:g} s." if isinstance(error, queue.Empty) else self._ended()
            )
            return
        if line is None:
            self.error = self._ended()
            return
        match answers.validate_json(line):
            case Ready() as ready:
                self.ready = ready
            case Samples(samples_ms=samples, peak_memory_bytes=peak):
                self.rounds.append(samples)
                self.peak_memory_bytes = peak
            case Broken(message=text):
                self.error = text

    def _ended(self) -> str:
        from accel.child import how_it_ended

        return f"Its process {how_it_ended(self.process.wait())}."


def benchmark(request: BenchmarkRequest, tell: Tell) -> Done:
    """Measure every model on every runtime, batch size and thread count.

    A model that cannot be loaded, dies or hangs is reported; the others go on.

    Raises:
        RuntimeUnavailable: A runtime that was asked for is not to be had.
    """
    there = [runtime.name for runtime in discover() if runtime.available]
    runtimes = list(request.runtimes or there)
    for name in runtimes:
        if name not in there:
            reason = next(
                (runtime.reason for runtime in discover() if runtime.name == name), "no such runtime is known"
            )
            raise RuntimeUnavailable(
                f"{name} cannot be used on this host: {reason}.", hint=f"Here there is: {', '.join(there)}."
            )
    where = environment()
    settings = list(itertools.product(request.batch_sizes, request.threads))
    measurements: list[Measurement] = []
    for number, (batch_size, threads) in enumerate(settings):
        with _candidates(request, runtimes) as candidates:
            label = f"batch size {batch_size}, {threads} thread{'s' if threads > 1 else ''}"
            _measure(request, candidates, batch_size, threads, _share(tell, number, len(settings), label))
        measurements += _measurements(request, candidates, runtimes[0], batch_size, threads, where)
    return Done(
        report=BenchmarkReport(
            baseline_id=request.baseline_id,
            reference_runtime=runtimes[0],
            measurements=tuple(measurements),
            environment=where,
        )
    )


@contextmanager
def _candidates(request: BenchmarkRequest, runtimes: list[str]) -> Iterator[list[_Candidate]]:
    started = [_start(model, runtime) for runtime in runtimes for model in request.models]
    try:
        yield started
    finally:
        for candidate in started:
            candidate.process.kill()
            candidate.process.wait()
            for pipe in (candidate.process.stdin, candidate.process.stdout):
                if pipe is not None:
                    pipe.close()


def _start(model: ModelFile, runtime: str) -> _Candidate:
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "accel.benchmark.candidate", str(os.getpid())],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    candidate = _Candidate(model, runtime, process)
    if process.stdout is not None:
        threading.Thread(target=_listen, args=(process.stdout, candidate.lines), daemon=True).start()
    return candidate


def _listen(stdout: IO[str], lines: queue.SimpleQueue[str | None]) -> None:
    for line in stdout:
        lines.put(line)
    lines.put(None)


def _measure(
    request: BenchmarkRequest, candidates: list[_Candidate], batch_size: int, threads: int, tell: Tell
) -> None:
    for number, candidate in enumerate(candidates):
        tell("warming_up", number, len(candidates), "")
        order = Order(
            path=candidate.model.path.resolve(),
            runtime=candidate.runtime,
            threads=threads,
            batch_size=batch_size,
            shapes=request.shapes,
            seed=request.seed,
        )
        candidate.order(order, _LOADING_S)
    chance = random.Random(request.seed)  # noqa: S311  (an order of turns, no secret)
    turns = list(candidates)
    for number in range(request.rounds):
        tell("measuring", number, request.rounds, "")
        # Machines drift: every round has every candidate, in a new order, so that none always comes after the same.
        chance.shuffle(turns)
        for candidate in turns:
            candidate.order(Measure(seconds=request.seconds_per_round), _ROUND_S)
    tell("measuring", request.rounds, request.rounds, "")


def _measurements(
    request: BenchmarkRequest,
    candidates: list[_Candidate],
    reference_runtime: str,
    batch_size: int,
    threads: int,
    where: Environment,
) -> Iterator[Measurement]:
    baselines = {c.runtime: c for c in candidates if c.model.model_id == request.baseline_id}
    for candidate in candidates:
        gain = _gain(baselines[candidate.runtime], candidate, request.seed)
        reference = _gain(baselines[reference_runtime], candidate, request.seed)
        samples = [sample for one in candidate.rounds for sample in one]
        latency = summarize(samples) if samples and candidate.error is None else None
        ready = candidate.ready
        yield Measurement(
            model_id=candidate.model.model_id,
            runtime=candidate.runtime,
            batch_size=batch_size,
            threads=threads,
            latency_ms=latency,
            throughput=batch_size / latency.median * 1e3 if latency else None,
            speedup=gain,
            speedup_over_reference=reference,
            load_ms=ready.load_ms if ready else None,
            peak_memory_bytes=candidate.peak_memory_bytes,
            calls_per_sample=ready.calls_per_sample if ready else 1,
            warmup_ms=ready.warmup_ms if ready else (),
            samples_ms=tuple(candidate.rounds),
            warnings=doubts(latency, gain, load=where.load_before, cores=where.cores) if latency else (),
            error=candidate.error,
        )


def _gain(baseline: _Candidate, candidate: _Candidate, seed: int) -> Estimate | None:
    if baseline is candidate or baseline.error or candidate.error or not candidate.rounds:
        return None
    return speedup(baseline.rounds, candidate.rounds, seed=seed)


def _share(tell: Tell, number: int, settings: int, label: str) -> Tell:
    """Progress of one setting as its part of the whole."""
    return lambda phase, done, total, _: tell(phase, number * (total or 1) + done, settings * (total or 1), label)
