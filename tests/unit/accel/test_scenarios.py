"""Candidates in processes of their own: what they answer, how they end, and that the others go on."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from accel.benchmark.candidate import _Work
from accel.benchmark.measure import measure
from accel.benchmark.orders import Load, Loaded, Measure, Ran, Ready, Samples, Serve, Served
from accel.benchmark.process import Lost, Process
from accel.benchmark.scenarios.rounds import take_turns
from accel.benchmark.scenarios.server import REQUESTS, Search
from accel.benchmark.setting import Candidate, Setting, Team, patience, teams
from accel.request import BenchmarkRequest, ModelFile
from tests import models

CPU = "onnxruntime:cpu"


@pytest.fixture
def model(tmp_path: Path) -> ModelFile:
    return ModelFile(model_id="m", path=models.save(models.convnet(), tmp_path / "m.onnx"))


@contextmanager
def process() -> Iterator[Process]:
    begun = Process()
    try:
        yield begun
    finally:
        begun.end()


def load(begun: Process, path: Path, batch_size: int = 1) -> Ran:
    begun.send(Load(path=path, runtime=CPU, threads=1, batch_size=batch_size, shapes={}, seed=0))
    begun.hear(Loaded, 30)
    ran = begun.hear(Ran, 30)
    begun.hear(Ready, 30)
    return ran


def child_of(begun: Process) -> int:
    """The process that holds the model."""
    for _ in range(1000):
        if found := Path(f"/proc/{begun.pid}/task/{begun.pid}/children").read_text().split():
            return int(found[0])
        time.sleep(0.01)
    raise AssertionError("it has no child")


def is_there(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


def test_a_candidate_measures_and_leaves_nothing_behind(model: ModelFile) -> None:
    ballast = np.ones(100_000_000 // 8)  # a large parent is no part of its children's peak
    with process() as begun:
        ran = load(begun, model.path, batch_size=3)
        assert (ran.query_size, ran.calls_per_query) == (3, 1)
        begun.send(Measure(seconds=0.02))
        said = begun.hear(Samples, 30)
        assert said.queries >= len(said.samples_ms) > 0
        assert 0 < said.cpu_seconds <= 2 * said.seconds
        both = begun.pid, child_of(begun)
        assert all(map(is_there, both))
        assert 30e6 < said.peak_memory_bytes < 150e6 < ballast.nbytes + 100e6
    assert not any(map(is_there, both))


def test_a_fixed_batch_is_called_until_the_query_is_done(tmp_path: Path) -> None:
    with process() as begun:
        ran = load(begun, models.save(models.fixed_batch(), tmp_path / "f.onnx"), batch_size=6)
    assert (ran.query_size, ran.calls_per_query) == (8, 2)


def test_a_candidate_that_dies_at_its_start_says_how(model: ModelFile) -> None:
    with process() as begun:
        os.kill(child_of(begun), signal.SIGSEGV)
        with pytest.raises(Lost, match=r"killed by SIGSEGV"):
            load(begun, model.path)


def test_the_last_words_of_a_candidate_are_passed_on() -> None:
    with process() as begun:
        begun.send(Measure(seconds=1))
        with pytest.raises(Lost, match=r"exit code 1: TypeError: the first order says what to load"):
            begun.hear(Loaded, 30)


def test_a_file_that_does_not_load(tmp_path: Path) -> None:
    (tmp_path / "bad.onnx").write_bytes(b"not a model")
    with process() as begun, pytest.raises(Lost, match="could not load the model"):
        load(begun, tmp_path / "bad.onnx")


@pytest.mark.parametrize(
    ("by", "says"), [(signal.SIGKILL, "killed by SIGKILL"), (signal.SIGSTOP, "A round did not end within")]
)
def test_one_breaks_in_the_middle_and_the_others_finish(model: ModelFile, by: signal.Signals, says: str) -> None:
    request = BenchmarkRequest(models=(model,), baseline_id="m", budget_seconds=1)
    candidates = [Candidate(model, CPU) for _ in range(3)]
    with teams(candidates, Setting(1, 1), request) as started:
        pids = [child_of(team.processes[0]) for team in started]
        os.kill(pids[1], by)
        take_turns(started, rounds=3, seconds=0.01, budget_s=1, chance=random.Random(0), joules=None)
    assert [len(one.takes[0].rounds) for one in candidates] == [3, 0, 3]
    assert says in (candidates[1].error or "")
    assert candidates[0].error is candidates[2].error is None
    assert (candidates[1].lost_s > 0.5) == (by == signal.SIGSTOP)
    assert not any(map(is_there, pids))


def test_an_idle_candidate_takes_no_processor_time(model: ModelFile) -> None:
    request = BenchmarkRequest(models=(model,), baseline_id="m")
    candidates = [Candidate(model, CPU) for _ in range(2)]
    with teams(candidates, Setting(1, 2), request) as started:
        busy, idle = started
        (before,) = idle.ask(Measure(seconds=0.0), Samples, 30)
        used = _cpu_ticks(idle)
        busy.ask(Measure(seconds=0.3), Samples, 30)
        assert _cpu_ticks(idle) - used <= 1
        assert before.queries >= 1


def _cpu_ticks(team: Team) -> int:
    """Of the process that holds the model."""
    fields = Path(f"/proc/{child_of(team.processes[0])}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def test_hangs_are_told_by_what_was_expected() -> None:
    assert patience(0.05, 60) == 30
    assert patience(0.05, 2) == 2
    assert patience(3, 60) == 60


def test_offline_instances_work_at_the_same_time(model: ModelFile) -> None:
    request = BenchmarkRequest(
        models=(model,), baseline_id="m", scenario="offline", instances=(2,), starts=1, rounds=2, seconds_per_round=0.02
    )
    found = measure(request, [CPU], Setting(4, 1, 2), lambda *_: None)
    (candidate,) = found.candidates
    assert candidate.error is None
    (take,) = candidate.takes
    assert take.cost_ms is not None
    both = 1e3 / take.cost_ms  # samples per second
    each = [1e3 / float(np.median(one.samples_ms)) * 4 for one in take.rounds]
    assert 0 < both < 4 * max(each)


@pytest.mark.parametrize("capacity", [3.0, 40.0, 777.0])
def test_the_search_comes_close_to_the_highest_rate(capacity: float) -> None:
    search = Search(rate_hz=100, floor_hz=1)
    probes = 0
    while not search.is_over:
        search.note(held=search.rate_hz <= capacity)
        probes += 1
    assert search.held is not None
    assert capacity / 1.06 <= search.held <= capacity
    assert probes <= 14


def test_the_search_gives_up_at_its_floor() -> None:
    search = Search(rate_hz=100, floor_hz=10)
    tried = []
    while not search.is_over:
        tried.append(search.rate_hz)
        search.note(held=False)
    assert tried == [100, 50, 25, 12.5, 10]
    assert search.held is None


def test_a_server_counts_the_wait_in_its_queue() -> None:
    """Twenty times as many requests as it can answer: each waits longer than the one before, and it stops when 1 % are late."""
    work = _Work(lambda: time.sleep(0.002), calls_per_query=1)
    order = Serve(rate_hz=10_000, requests=REQUESTS, bound_ms=20, seconds=30, seed=0)
    said = work.serve(order)
    assert len(said.latencies_ms) < REQUESTS
    late = [latency for latency in said.latencies_ms if latency > 20]
    assert len(late) == REQUESTS // 100 + 1
    assert list(said.latencies_ms[5:]) == sorted(said.latencies_ms[5:])
    slow = work.serve(order.model_copy(update={"rate_hz": 20.0, "requests": 5, "bound_ms": 1e6}))
    assert len(slow.latencies_ms) == 5
    assert np.median(slow.latencies_ms) < 20
    cut = work.serve(order.model_copy(update={"rate_hz": 100.0, "seconds": 0.05, "bound_ms": 1e6}))
    assert len(cut.latencies_ms) < 100


def test_a_server_finds_a_rate(model: ModelFile) -> None:
    request = BenchmarkRequest(
        models=(model,), baseline_id="m", scenario="server", bound_ms=1000, starts=1, budget_seconds=10
    )
    (candidate,) = measure(request, [CPU], Setting(1, 1), lambda *_: None).candidates
    assert candidate.error is None
    (take,) = candidate.takes
    assert take.probes
    assert any(probe.held and probe.p99_ms is not None for probe in take.probes)
    assert take.cost_ms is not None
    # However long a queue may be, no rate holds that is above what can be answered.
    assert 1e3 / take.cost_ms < 2e3 / take.query_ms


def test_served_in_a_process_of_its_own(model: ModelFile) -> None:
    with process() as begun:
        load(begun, model.path)
        begun.send(Serve(rate_hz=2000, requests=50, bound_ms=1000, seconds=10, seed=1))
        assert len(begun.hear(Served, 30).latencies_ms) == 50
