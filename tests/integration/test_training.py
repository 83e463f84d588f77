"""Training jobs, from the queue to the model, and what is left of one that is disturbed."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from typing import Any
from uuid import UUID

import numpy as np
import pytest

from accel.report import TrainReport
from store import checkpoints, jobs, models
from store.database import Database
from store.states import JobState
from store.values import Job, Model
from tests.stack import Stack, stack, until

_ROWS, _FEATURES, _CLASSES = 1200, 12, 4
_MLP = {"architecture": "mlp", "hidden": [32]}
_TRAINING = {"architecture": _MLP, "epochs": 40, "batch_size": 16, "threads": 1, "validation": 0.2, "seed": 3}


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    folder = tmp_path_factory.mktemp("training")
    settings = {"lease_seconds": 10, "dispatch_retry_seconds": 2, "max_attempts": 3}
    with stack(folder, "valkey", "worker", "dispatcher", "reaper", **settings) as made:
        yield made


@pytest.fixture(scope="module")
def dataset_id(service: Stack) -> UUID:
    """Rows whose class is the largest of four sums of their values."""
    chance = np.random.default_rng(5)
    rows = chance.standard_normal((_ROWS, _FEATURES)).astype(np.float32)
    labels = (rows @ chance.standard_normal((_FEATURES, _CLASSES))).argmax(1)
    path = service.folder / "sums.npz"
    half = _ROWS // 4
    np.savez(path, x_train=rows[half:], y_train=labels[half:], x_test=rows[:half], y_test=labels[:half])
    return service.dataset(path)


@pytest.fixture(scope="module")
def undisturbed(service: Stack, dataset_id: UUID) -> Job:
    return service.finished(service.submit("train", dataset_id=dataset_id, **_TRAINING))


def made_by(service: Stack, job: Job) -> Model:
    (model_id,) = job.model_ids
    with service.database.read() as session:
        return models.get(session, model_id)


def checkpoint_of(database: Database, job_id: UUID) -> str | None:
    with database.read() as session:
        return checkpoints.latest(session, job_id)


def report_of(job: Job) -> TrainReport:
    assert isinstance(job.report, TrainReport), job.error
    return job.report


def test_a_network_is_trained_from_scratch_and_kept(service: Stack, dataset_id: UUID, undisturbed: Job) -> None:
    assert undisturbed.state is JobState.SUCCEEDED, undisturbed.error
    report, model = report_of(undisturbed), made_by(service, undisturbed)
    assert (model.parent_id, model.name) == (None, "mlp trained on sums")
    assert report.model_id == str(model.id)
    assert [point.epochs for point in report.curve] == list(range(41))
    assert report.started_from is not None
    assert report.value is not None
    assert report.value.value > report.started_from + 0.3
    evaluation = service.finished(service.submit("evaluate", model_ids=[model.id], dataset_id=dataset_id, split="test"))
    assert evaluation.report.models[0].metrics["accuracy"].value > 0.8


def test_what_it_was_trained_on_is_no_test(service: Stack, dataset_id: UUID, undisturbed: Job) -> None:
    evaluation = service.finished(
        service.submit("evaluate", model_ids=undisturbed.model_ids, dataset_id=dataset_id, split="train")
    )
    (model,) = evaluation.report.models
    assert any("train" in warning for warning in model.warnings), model


def test_a_killed_engine_s_job_goes_on_from_its_checkpoint(service: Stack, dataset_id: UUID, undisturbed: Job) -> None:
    job_id = service.submit("train", dataset_id=dataset_id, **_TRAINING)
    until(lambda: checkpoint_of(service.database, job_id), "the first checkpoint is kept")
    for pid in service.engines():
        os.kill(pid, signal.SIGKILL)
    job = service.finished(job_id)
    assert job.state is JobState.SUCCEEDED, job.error
    assert job.attempt > 1
    report = report_of(job)
    assert report.attempts > 1
    assert len(report.curve) == 41
    assert made_by(service, job).sha256 == made_by(service, undisturbed).sha256, "the weights are others"


def test_a_cancelled_job_keeps_its_best_weights_if_asked(service: Stack, dataset_id: UUID) -> None:
    long = {**_TRAINING, "epochs": 100_000}
    job_id = service.submit("train", dataset_id=dataset_id, on_cancel="keep_best", name="half done", **long)
    until(lambda: checkpoint_of(service.database, job_id), "an epoch is over")
    _cancel(service, job_id)
    job = service.finished(job_id)
    assert job.state is JobState.CANCELLED
    assert report_of(job).stopped_because == "cancelled"
    assert made_by(service, job).name == "half done"


def test_a_cancelled_job_keeps_nothing_otherwise(service: Stack, dataset_id: UUID) -> None:
    job_id = service.submit("train", dataset_id=dataset_id, **{**_TRAINING, "epochs": 100_000})
    service.running(job_id)
    _cancel(service, job_id)
    job = service.finished(job_id)
    assert (job.state, job.model_ids, job.report) == (JobState.CANCELLED, (), None)
    until(lambda: not service.engines(), "the engine is ended")


@pytest.mark.parametrize(
    ("asked", "code", "said"),
    [
        ({"optimizer": {"optimizer": "sgd", "learning_rate": 1e30}}, "training_failed", ("epoch 1", "1e+30")),
        ({"architecture": {"architecture": "cnn"}}, "binding_mismatch", ("cnn", "mlp")),
        ({"loss": {"loss": "mse"}}, None, ("mse",)),
        ({"batch_size": 5000}, None, ("5000", "720")),
        ({"split": "nowhere"}, None, ("nowhere",)),
    ],
    ids=["no number", "no image", "labels are no values", "batch too large", "no such split"],
)
def test_what_cannot_be_done_is_said(
    service: Stack, dataset_id: UUID, asked: dict[str, Any], code: str | None, said: tuple[str, ...]
) -> None:
    job = service.finished(service.submit("train", dataset_id=dataset_id, **{**_TRAINING, **asked}))
    assert job.state is JobState.FAILED
    assert job.error is not None
    text = f"{job.error.message} {job.error.hint}".replace(",", "")
    assert all(part in text for part in said), text
    assert job.error.code == (code or job.error.code) != "internal"


def _cancel(service: Stack, job_id: UUID) -> None:
    with service.database.write() as session:
        jobs.request_cancel(session, job_id)


def test_nothing_is_left(service: Stack) -> None:
    until(lambda: not service.engines() and not list(service.scratch.glob("run-*")), "everything is cleared away")
