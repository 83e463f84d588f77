"""A training in several processes: the same model, and none of them left behind."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from accel.child import Child
from accel.errors import AccelError, EngineFailed, LabelsOutOfRange, TrainingFailed
from accel.events import Done, Progress
from accel.request.training import TrainRequest
from accel.training import agent
from accel.training.train import train
from accel.training.trained import Trained
from tests import models
from tests.stack import until
from tests.trainings import classes, normalized, numbers, request, weights

ROOT = Path(__file__).parents[4]
SETTINGS = {"epochs": 2, "clip_norm": 5.0, "accumulate": 2, "ema_decay": 0.9}
BY = [{"augmentation": "mixup"}, {"augmentation": "noise"}]


def quiet(*_: object) -> None:
    pass


def family(workspace: Path) -> list[tuple[int, str]]:
    """Processes that a training in a workspace started, with the module of each."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            line = (entry / "cmdline").read_bytes().split(b"\0") if entry.name.isdigit() else []
        except OSError:
            continue
        if str(workspace).encode() in b" ".join(line):
            module = next((part.decode() for part in line if part.startswith(b"accel.training.")), "")
            found.append((int(entry.name), module))
    return found


def workers(workspace: Path) -> list[int]:
    return sorted(pid for pid, module in family(workspace) if module == "accel.training.worker")


def close(one: Trained, two: Trained, tolerance: float) -> bool:
    first, second = (weights(trained.files[0].path) for trained in (one, two))
    return all(np.allclose(first[name], second[name], atol=tolerance) for name in first)


def asked(folder: Path, processes: int, **others: Any) -> TrainRequest:
    settings = SETTINGS | {"processes": processes} | others.pop("settings", {})
    return request(folder, models.regression(), folder / "d.npz", settings=settings, augmentation=BY, **others)


def test_two_processes_make_the_model_that_one_makes(tmp_path: Path) -> None:
    numbers(tmp_path / "d.npz", rows=207)
    alone = train(asked(tmp_path, 1), quiet)
    together = asked(tmp_path, 2)
    kept: list[Path] = []
    epochs = []
    found = train(together, quiet, on_checkpoint=kept.append, on_epoch=epochs.append)
    assert close(alone, found, 1e-5)
    assert found.report.processes == 2
    for one, two in zip(alone.report.curve, found.report.curve, strict=True):
        assert two.validation_loss == pytest.approx(one.validation_loss, rel=1e-5)
        assert two.metric == pytest.approx(one.metric, rel=1e-5)
    assert tuple(epochs) == found.report.curve
    assert kept
    assert kept[-1].exists()
    assert family(together.workspace) == []


@pytest.mark.slow
def test_a_state_of_one_process_goes_on_in_two(tmp_path: Path) -> None:
    numbers(tmp_path / "d.npz", rows=207)
    whole = train(asked(tmp_path, 1), quiet)

    class Killed(Exception):
        pass

    kept: list[Path] = []

    def keep(path: Path) -> None:
        kept.append(path)
        if len(kept) == 3:
            raise Killed

    with pytest.raises(Killed):
        train(asked(tmp_path, 1, checkpoint_seconds=0), quiet, on_checkpoint=keep)
    found = train(asked(tmp_path, 2, checkpoint=kept[-1]), quiet)
    assert found.report.attempts == 2
    assert close(whole, found, 1e-5)


@pytest.mark.slow
def test_running_statistics_are_evened_out(tmp_path: Path) -> None:
    """Each process normalises by its own rows, so that the model is near that of one process, but not the same."""
    data = classes(tmp_path / "d.npz", rows=400)
    given = {"optimizer": {"optimizer": "adam", "learning_rate": 0.02}}
    found = [
        train(request(tmp_path, normalized(), data, settings={"epochs": 6, "processes": count}, **given), quiet)
        for count in (1, 2)
    ]
    one, two = (trained.report.value for trained in found)
    assert one is not None
    assert two is not None
    assert abs(one.value - two.value) < 0.2
    mean, other = (weights(trained.files[0].path)["mean"] for trained in found)
    assert np.abs(mean - other).max() < 0.5


def killed_in(folder: Path, which: str) -> tuple[TrainRequest, BaseException]:
    """What comes of a training of which a process is killed in the middle."""
    numbers(folder / "d.npz", rows=207)
    endless = asked(folder, 2, settings={"epochs": 100_000})

    def tell(phase: str, done: int, *_: object) -> None:
        if phase == "training" and done > 5:
            found = {module: pid for pid, module in sorted(family(endless.workspace))}
            os.kill(found[which], signal.SIGKILL)

    with pytest.raises(AccelError) as caught:
        train(endless, tell)
    return endless, caught.value


@pytest.mark.slow
def test_a_dead_process_ends_the_training_with_its_reason(tmp_path: Path) -> None:
    endless, error = killed_in(tmp_path, "accel.training.worker")
    assert isinstance(error, EngineFailed)
    assert error.code == "training_failed"
    assert error.message in {f"Process {rank} of the training was killed by SIGKILL." for rank in (0, 1)}
    assert "memory" in error.hint
    assert family(endless.workspace) == []


@pytest.mark.slow
def test_processes_die_with_their_agent(tmp_path: Path) -> None:
    endless, error = killed_in(tmp_path, "accel.training.agent")
    assert isinstance(error, TrainingFailed)
    assert "without an answer" in error.message
    assert family(endless.workspace) == []


@pytest.mark.slow
def test_an_error_of_the_processes_is_the_trainings(tmp_path: Path) -> None:
    data = classes(tmp_path / "d.npz")
    with pytest.raises(EngineFailed, match="The label 3 is outside the model's 2 classes") as caught:
        train(request(tmp_path, normalized(outputs=2), data, settings={"processes": 2, "validation": 0}), quiet)
    assert caught.value.code == LabelsOutOfRange.code


@pytest.mark.slow
def test_several_processes_are_cancelled_together(tmp_path: Path) -> None:
    numbers(tmp_path / "d.npz", rows=207)
    done: list[int] = []
    endless = asked(tmp_path, 2, settings={"epochs": 100_000})
    report = train(
        endless,
        lambda phase, steps, *_: done.append(steps) if phase == "training" else None,
        cancelled=lambda: len(done) > 3,
    ).report
    assert report.stopped_because == "cancelled"
    assert report.steps > 0


@pytest.mark.slow
def test_a_loss_that_is_not_finite_ends_all_and_leaves_the_best_model(tmp_path: Path) -> None:
    numbers(tmp_path / "d.npz", rows=400)
    with pytest.raises(EngineFailed, match="The loss is not finite in epoch") as caught:
        train(
            request(
                tmp_path,
                models.regression(),
                tmp_path / "d.npz",
                settings={"epochs": 60, "processes": 2},
                optimizer={"optimizer": "sgd", "learning_rate": 0.3, "momentum": 0.99},
                schedule={"schedule": "exponential", "factor": 0.99, "warmup": 0.5},
            ),
            quiet,
        )
    (file,) = caught.value.files
    assert all(np.isfinite(held).all() for held in weights(file.path).values())


@pytest.mark.slow
def test_two_hosts_meet_at_an_endpoint(tmp_path: Path) -> None:
    """Each host runs the same request with an endpoint that both know; all end with the model that one process makes."""
    numbers(tmp_path / "d.npz", rows=207)
    alone = train(asked(tmp_path, 1), quiet)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    meeting = {"endpoint": f"127.0.0.1:{port}", "hosts": 2, "name": "test", "address": "127.0.0.1"}
    found: dict[int, Trained] = {}

    def run(host: int, wanted: TrainRequest) -> None:
        found[host] = train(wanted, quiet)

    wanted = [asked(tmp_path, 1, rendezvous=meeting, settings={"batch_size": 32}) for _ in range(2)]
    hosts = [threading.Thread(target=run, args=(number, one)) for number, one in enumerate(wanted)]
    for host in hosts:
        host.start()
    for host in hosts:
        host.join()
    assert sorted(found) == [0, 1]
    assert found[0].report.processes == 2
    assert close(found[0], found[1], 0)
    assert close(alone, found[0], 1e-5)
    assert all(family(one.workspace) == [] for one in wanted)


@pytest.mark.slow
def test_a_confined_engine_trains_in_two_processes_without_a_network(tmp_path: Path) -> None:
    numbers(tmp_path / "d.npz", rows=207)
    wanted = asked(tmp_path, 2)
    child = Child.start(wanted)
    outcome = child.outcome()
    assert isinstance(outcome.answer, Done), outcome.stderr
    assert outcome.answer.report.kind == "train"
    assert outcome.answer.report.processes == 2


@pytest.mark.slow
def test_a_killed_engine_leaves_no_process(tmp_path: Path) -> None:
    """torchrun gives each of its processes a group of its own, so that they are not killed with the engine's."""
    numbers(tmp_path / "d.npz", rows=207)
    wanted = asked(tmp_path, 2, settings={"epochs": 100_000})
    child = Child.start(wanted)

    def steps() -> bool:
        event = child.next_event(0.1)
        return isinstance(event, Progress) and event.phase == "training" and event.done > 3

    until(steps, "it trains", within_s=90)
    assert len(workers(wanted.workspace)) == 2
    child.kill()
    until(lambda: not family(wanted.workspace), "all of them are gone")


def test_the_reason_is_told_of_the_process_that_was_killed() -> None:
    codes = {0: agent.LOST, 1: -signal.SIGTERM, 2: -signal.SIGKILL, 3: 1}
    assert sorted(codes, key=lambda rank: (agent._order(codes[rank]), rank)) == [2, 3, 0, 1]
    assert agent._ended(agent.LOST).startswith("lost the connection")


@pytest.mark.slow
def test_processes_that_do_not_find_together_say_so() -> None:
    """Nobody is at the endpoint, and it is none of this host's."""
    answer = subprocess.run(
        [
            sys.executable, "-m", "accel.training.agent", "--parent", str(os.getpid()),
            "--nnodes=2", "--nproc-per-node=1", "--max-restarts=0", "--rdzv-backend=c10d",
            "--rdzv-endpoint=256.0.0.1:1", "--rdzv-conf=timeout=2,read_timeout=2,join_timeout=2", "-m", "accel.training.worker", "x",
        ],
        capture_output=True, text=True, cwd=ROOT, check=False, timeout=60,
    )  # fmt: skip
    assert answer.returncode == 1
    said = json.loads(answer.stdout.splitlines()[-1])
    assert said["event"] == "failed"
    assert "did not find together" in said["message"]
