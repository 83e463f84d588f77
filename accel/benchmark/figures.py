"""From what was measured in a setting to the measurements of a report."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from accel.benchmark import doubts
from accel.benchmark.measure import Measured, logarithms
from accel.benchmark.setting import Candidate, Floats, Round
from accel.benchmark.starts import LEAST, Stopped, ratio
from accel.benchmark.statistics import speedup_of_rounds, summarize
from accel.report import Environment, Estimate, LatencySummary, Measurement
from accel.report.benchmarking import ServerResult
from accel.request import BenchmarkRequest

_CHUNK = 1 << 20
_ZLIB_LEVEL = 6


def measurements(request: BenchmarkRequest, measured: Measured, where: Environment) -> Iterator[Measurement]:
    """The figures of each candidate, in the order of the candidates; of a broken one the reason.

    Args:
        request: What was asked.
        measured: What was found.
        where: The host.
    """
    first_runtime = measured.candidates[0].runtime
    for candidate in measured.candidates:
        if candidate.error is not None:
            yield _broken(request, measured, candidate, where)
            continue
        baseline = measured.baseline(candidate.runtime)
        speedup = _speedup(request, baseline, candidate)
        held = _held(request, candidate)
        latency = _latency(held, request.seed)
        server = _server(request, candidate) if request.scenario == "server" else None
        rounds = [one for take in candidate.takes for one in take.rounds]
        warnings = doubts.of_a_measurement(measured, candidate, latency, speedup, cores=where.cores)
        if server is not None:
            warnings += doubts.of_a_server(server, candidate)
            if speedup is None and candidate is not baseline and server.rate_hz is not None and baseline.error is None:
                warnings += ("There is no speed-up: no start found a rate that the baseline holds too.",)
        if baseline.error is not None:
            warnings += (f"The baseline is broken on {candidate.runtime}, so that there is no speed-up.",)
        samples = candidate.takes[-1].query_size
        yield Measurement(
            model_id=candidate.model.model_id,
            runtime=candidate.runtime,
            scenario=request.scenario,
            batch_size=measured.setting.batch_size,
            threads=measured.setting.threads,
            instances=measured.setting.instances,
            latency_ms=latency,
            throughput=_throughput(request, candidate, server, latency),
            speedup=speedup,
            speedup_over_reference=_speedup(request, measured.baseline(first_runtime), candidate),
            starts=len(candidate.takes),
            stopped=_stopped(measured, candidate),
            server=server,
            load_ms=_median([take.load_ms for take in candidate.takes]),
            first_inference_ms=_median([take.first_ms for take in candidate.takes]),
            peak_memory_bytes=max((take.peak_memory_bytes or 0 for take in candidate.takes), default=0) or None,
            cpu_seconds=_per_sample([one.cpu_seconds for one in rounds], rounds, samples),
            energy_joules=_per_sample([one.joules for one in rounds], rounds, samples),
            calls_per_sample=candidate.takes[-1].queries_per_sample,
            warnings=warnings,
            environment=where.fingerprint,
        )


def _broken(request: BenchmarkRequest, measured: Measured, candidate: Candidate, where: Environment) -> Measurement:
    took = candidate.takes[-1] if candidate.takes else None
    return Measurement(
        model_id=candidate.model.model_id,
        runtime=candidate.runtime,
        scenario=request.scenario,
        batch_size=measured.setting.batch_size,
        threads=measured.setting.threads,
        instances=measured.setting.instances,
        latency_ms=None,
        throughput=None,
        speedup=None,
        starts=len(candidate.takes),
        load_ms=took.load_ms if took else None,
        first_inference_ms=took.first_ms if took else None,
        environment=where.fingerprint,
        error=candidate.error,
    )


def _speedup(request: BenchmarkRequest, baseline: Candidate, candidate: Candidate) -> Estimate | None:
    logs = logarithms(baseline, candidate)
    if baseline is candidate or not logs:
        return None
    if len(logs) >= LEAST or request.scenario in {"server", "offline"}:
        return ratio(logs)
    sides = [
        [one.samples_ms / take.query_size for take in c.takes for one in take.rounds] for c in (baseline, candidate)
    ]
    return speedup_of_rounds(sides[0], sides[1], seed=request.seed)


def _held(request: BenchmarkRequest, candidate: Candidate) -> list[list[Round]]:
    """The rounds of each start that latencies are told from: of a server those of the highest rate that held."""
    if request.scenario != "server":
        return [take.rounds for take in candidate.takes]
    chosen = []
    for take in candidate.takes:
        held = [(probe.rate_hz, one) for probe, one in zip(take.probes, take.rounds, strict=True) if probe.held]
        chosen.append([max(held, key=lambda pair: pair[0])[1]] if held else [])
    return chosen


def _latency(held: list[list[Round]], seed: int) -> LatencySummary | None:
    blocks: list[Floats]
    if len(held) >= LEAST:
        blocks = [np.concatenate([one.samples_ms for one in rounds]) for rounds in held if rounds]
    else:
        blocks = [one.samples_ms for rounds in held for one in rounds]
    return summarize(blocks, seed=seed) if blocks else None


def _throughput(
    request: BenchmarkRequest, candidate: Candidate, server: ServerResult | None, latency: LatencySummary | None
) -> float | None:
    """Samples per second."""
    if server is not None:
        return server.rate_hz * candidate.takes[-1].query_size if server.rate_hz else None
    if request.scenario == "offline":
        costs = [float(np.log(take.cost_ms)) for take in candidate.takes if take.cost_ms]
        return 1e3 / ratio(costs).value
    return candidate.takes[-1].query_size / latency.median * 1e3 if latency else None


def _server(request: BenchmarkRequest, candidate: Candidate) -> ServerResult:
    rates = sorted(1e3 / take.cost_ms / take.query_size for take in candidate.takes if take.cost_ms)
    probes = tuple(probe for take in candidate.takes for probe in take.probes)
    # Of an even number the lower of the two in the middle: a rate that did hold.
    rate = rates[(len(rates) - 1) // 2] if rates else None
    return ServerResult(bound_ms=request.bound_ms or 0.0, rate_hz=rate, probes=probes)


def _stopped(measured: Measured, candidate: Candidate) -> Stopped | None:
    judged = measured.judged(candidate)
    if measured.stopped == "budget" and judged and measured.length.is_precise(judged):
        return "precise"
    return measured.stopped


def _median(values: list[float]) -> float | None:
    return float(np.median(values)) if values else None


def _per_sample(taken: list[float | None], rounds: list[Round], samples: int) -> float | None:
    known = [(value, one.queries) for value, one in zip(taken, rounds, strict=True) if value is not None]
    queries = sum(count for _, count in known)
    return sum(value for value, _ in known) / queries / samples if queries else None


def compressed_bytes(path: Path) -> int:
    """Size of a file after zlib, at the level that downloads are usually packed with."""
    packer = zlib.compressobj(_ZLIB_LEVEL)
    size = 0
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            size += len(packer.compress(chunk))
    return size + len(packer.flush())
