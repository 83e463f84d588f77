"""The whole life of a job, with real processes: its happy ways, and what goes wrong on them."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper

from accel.report import BenchmarkReport, CompressReport, EvaluateReport
from store import comparison, job_files, jobs, models, workers
from store.broker import CeleryPublisher
from store.errors import UnfitReference
from store.states import JobState
from tests.models import assemble, convnet
from tests.stack import Stack, parent_of, stack, until

_SLOW = {"starts": 20, "rounds": 200, "seconds_per_round": 0.1}
"""A benchmark that takes a minute, unless somebody ends it."""
_QUICK = {"starts": 1, "rounds": 4, "seconds_per_round": 0.02, "budget_seconds": 10}
_STEPS = [{"technique": "optimize_graph"}]


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    folder = tmp_path_factory.mktemp("life")
    with stack(
        folder,
        *("valkey", "worker", "dispatcher", "reaper"),
        lease_seconds=3,
        dispatch_retry_seconds=2,
        max_attempts=2,
        shutdown_grace_seconds=1,
    ) as made:
        yield made


@pytest.fixture(scope="module")
def model_id(system: Stack) -> object:
    return system.model(convnet())


@pytest.fixture(scope="module")
def dataset_id(system: Stack, model_id: object) -> object:
    with system.database.read() as session:
        (port,) = models.get(session, model_id).summary.inputs
    chance = np.random.default_rng(0)
    shape = [n for n in (port.shape or ())[1:] if isinstance(n, int)]
    path = system.folder / "labelled.npz"
    rows = {split: chance.standard_normal((n, *shape)).astype(np.float32) for split, n in (("train", 20), ("test", 60))}
    labels = {split: chance.integers(0, 3, len(x)) for split, x in rows.items()}
    np.savez(path, **{f"x_{s}": x for s, x in rows.items()}, **{f"y_{s}": y for s, y in labels.items()})
    return system.dataset(path)


def test_compress_evaluate_benchmark_and_compare(system: Stack, model_id: object, dataset_id: object) -> None:
    recipe = [*_STEPS, {"technique": "quantize_static", "samples": 10}]
    compressed = system.finished(
        system.submit("compress", model_id=model_id, dataset_id=dataset_id, steps=recipe, contract={"max_drop": 0.5})
    )
    assert compressed.state == JobState.SUCCEEDED, compressed.error
    assert isinstance(compressed.report, CompressReport)
    assert compressed.report.verdict is not None
    with system.database.read() as session:
        first, second = (models.get(session, made) for made in compressed.model_ids)
    assert (first.parent_id, second.parent_id) == (model_id, first.id)
    assert second.summary.quantized
    assert first.job_id == compressed.id

    both = [model_id, second.id]
    evaluated = system.finished(system.submit("evaluate", model_ids=both, dataset_id=dataset_id))
    assert isinstance(evaluated.report, EvaluateReport), evaluated.error
    measured = system.finished(system.submit("benchmark", model_ids=both, **_QUICK))
    assert isinstance(measured.report, BenchmarkReport), measured.error

    with system.database.read() as session:
        table = comparison.compare(session, [second.id], model_id)
        predictions, samples = (job_files.of_job(session, job.id) for job in (evaluated, measured))
    assert [entry.role for entry in table.models] == ["baseline", "candidate"]
    assert table.models[1].evaluations[0].result.against_baseline is not None
    assert table.models[1].measurements[0].result.speedup is not None
    assert {file.name for file in predictions} == {model.predictions for model in evaluated.report.models}
    assert measured.report.samples in {file.name for file in samples}
    for file in (*predictions, *samples):
        assert system.files.size(file.sha256) == file.size_bytes > 0


def test_what_was_predicted_is_not_predicted_again(system: Stack, model_id: object, dataset_id: object) -> None:
    other = system.model(convnet(seed=9), "other")
    first = system.finished(system.submit("evaluate", model_ids=[model_id], dataset_id=dataset_id))
    asked = {"model_ids": [other], "baseline_id": model_id, "dataset_id": dataset_id}
    second, fresh = (system.finished(system.submit("evaluate", **asked, reuse=reuse)) for reuse in (True, False))
    for job, reused in ((first, None), (second, True), (fresh, False)):
        assert isinstance(job.report, EvaluateReport), job.error
        found = {model.model_id: model for model in job.report.models}
        assert reused is None or found[str(model_id)].reused is reused
        assert found[str(model_id)].metrics == first.report.models[0].metrics
    assert second.report.models[-1].against_baseline == fresh.report.models[-1].against_baseline
    with pytest.raises(UnfitReference, match="'test' of the dataset"):
        system.submit("evaluate", **asked, split="train")


def test_a_failure_has_code_and_hint(system: Stack, model_id: object, dataset_id: object) -> None:
    binding = {"inputs": {"nothing": {"column": "x"}}}
    job = system.finished(system.submit("evaluate", model_ids=[model_id], dataset_id=dataset_id, binding=binding))
    assert job.state == JobState.FAILED
    assert job.error is not None
    assert job.error.code == "binding_mismatch"
    assert "nothing" in job.error.message


def test_a_running_job_is_cancelled(system: Stack, model_id: object) -> None:
    job_id = system.submit("benchmark", model_ids=[model_id], **_SLOW)
    system.running(job_id)
    with system.database.write() as session:
        jobs.request_cancel(session, job_id)
    assert system.finished(job_id, within_s=10).state == JobState.CANCELLED
    until(lambda: not system.engines(), "its engine is gone")


def test_a_job_beyond_its_deadline_fails(system: Stack, model_id: object) -> None:
    spent = {"deadline_seconds": 5, "budget_seconds": 5}
    job_id = system.submit("benchmark", model_ids=[model_id], **spent)
    system.running(job_id)
    for pid in system.engines():
        os.kill(pid, signal.SIGSTOP)
    job = system.finished(job_id, within_s=20)
    assert job.error is not None
    assert job.error.code == "deadline_exceeded"


def test_a_message_that_comes_three_times_runs_once(system: Stack, model_id: object) -> None:
    job_id = system.submit("compress", model_id=model_id, steps=_STEPS)
    publisher = CeleryPublisher(system.environment["ACCEL_BROKER_URL"])
    for _ in range(3):
        publisher.publish("cpu", job_id)
    job = system.finished(job_id)
    assert (job.state, job.attempt) == (JobState.SUCCEEDED, 1)


def test_a_retry_is_a_new_job(system: Stack, model_id: object) -> None:
    first = system.finished(system.submit("compress", model_id=model_id, steps=_STEPS))
    with system.database.write() as session:
        again, _ = jobs.retry(session, first.id, max_attempts=2)
    second = system.finished(again.id)
    assert second.retry_of == first.id
    assert second.state == JobState.SUCCEEDED
    assert system.job(first.id) == first


def test_an_engine_that_is_killed_is_tried_again_up_to_the_cap(system: Stack, model_id: object) -> None:
    job_id = system.submit("benchmark", model_ids=[model_id], **_SLOW)
    for attempt in (1, 2):
        until(lambda attempt=attempt: system.job(job_id).attempt == attempt and system.engines(), f"attempt {attempt}")
        for pid in system.engines():
            os.kill(pid, signal.SIGKILL)
        until(
            lambda attempt=attempt: system.job(job_id).attempt != attempt or not system.engines(), "the engine is gone"
        )
    job = system.finished(job_id)
    assert job.error is not None
    assert job.error.code == "engine_crashed"
    assert "SIGKILL" in job.error.message


def test_a_job_that_waits_out_a_broker_outage(system: Stack, model_id: object) -> None:
    system.kill("valkey")
    begun = time.monotonic()
    job_id = system.submit("compress", model_id=model_id, steps=_STEPS)
    assert time.monotonic() - begun < 1
    assert system.job(job_id).state == JobState.QUEUED
    system.start("valkey")
    assert system.finished(job_id, within_s=60).state == JobState.SUCCEEDED


def test_a_stopped_worker_gives_its_job_back(system: Stack, model_id: object) -> None:
    job_id = system.submit("benchmark", model_ids=[model_id], starts=2, rounds=15, seconds_per_round=0.1)
    system.running(job_id)
    assert system.stop("worker") == 0, system.log("worker")[-2000:]
    given_back = system.job(job_id)
    assert (given_back.state, given_back.attempt) == (JobState.QUEUED, 0)
    assert system.live_workers() == 0
    system.start("worker")
    job = system.finished(job_id)
    assert (job.state, job.attempt) == (JobState.SUCCEEDED, 1)


def test_nothing_outlives_a_killed_worker(system: Stack, model_id: object) -> None:
    job_id = system.submit("benchmark", model_ids=[model_id], **_SLOW)
    system.running(job_id)
    engines = set(system.engines())
    candidates = until(lambda: [p for p in system.processes() if parent_of(p) in engines], "a candidate runs")
    orphans = [*system.pool(), *engines, *candidates]
    system.kill("worker")
    until(lambda: not set(orphans) & set(system.processes()), "pool, engine and candidates are gone", within_s=5)
    with system.database.write() as session:
        jobs.request_cancel(session, job_id)
    assert system.finished(job_id, within_s=20).state == JobState.CANCELLED
    system.start("worker")
    until(lambda: system.live_workers() >= 1, "the next worker announces itself")
    done = system.finished(system.submit("compress", model_id=model_id, steps=_STEPS))
    assert done.state == JobState.SUCCEEDED
    until(lambda: not list(system.scratch.glob("run-*")), "the folder of the dead run is swept")


def test_a_full_disk_fails_the_job_clearly(tmp_path: Path) -> None:
    with stack(tmp_path, "valkey", "worker", "dispatcher", min_free_bytes=1 << 60) as full:
        job = full.finished(full.submit("compress", model_id=full.model(convnet()), steps=_STEPS))
        assert job.error is not None
        assert job.error.code == "disk_full"
        assert job.error.hint


def test_a_model_that_asks_for_too_much_memory_fails_its_job_and_spares_the_worker(tmp_path: Path) -> None:
    nodes = [helper.make_node("Expand", ["x", "shape"], ["wide"]), helper.make_node("ReduceSum", ["wide"], ["y"])]
    ports = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 1]) for name in ("x", "y")]
    bomb = assemble(nodes, ports[:1], ports[1:], {"shape": np.array([60_000, 60_000], np.int64)})  # 14 GB when it runs
    with stack(tmp_path, "valkey", "worker", "dispatcher", engine_memory_bytes=3 << 30) as tight:
        model_id = tight.model(bomb)
        for _ in range(2):
            job = tight.finished(tight.submit("compress", model_id=model_id, steps=_STEPS))
            assert job.error is not None
            assert job.error.code == "out_of_memory", job.error
        assert tight.finished(tight.submit("compress", model_id=tight.model(convnet(), "small"), steps=_STEPS)).report
        with tight.database.read() as session:
            assert len(workers.live(session)) == 1
