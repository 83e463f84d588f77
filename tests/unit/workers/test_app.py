"""What Celery is told, and what a worker says of itself."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from store import workers
from store.broker import TASK
from store.ids import new_id
from tests.stack import Stack
from workers import app as worker
from workers import health, tasks


@pytest.fixture
def own_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stack]:
    made = Stack(tmp_path)
    for name, value in made.environment.items():
        if name.startswith("ACCEL_"):
            monkeypatch.setenv(name, value)
    yield made
    made.close()


def test_a_message_is_a_doorbell() -> None:
    settings = worker.app.conf
    assert settings.task_acks_late is False
    assert settings.worker_disable_prefetch is True
    assert settings.task_ignore_result is True
    assert settings.result_backend is None
    assert settings.accept_content == ["json"]
    assert settings.worker_enable_remote_control is False
    assert settings.broker_connection_max_retries is None
    assert [name for name in worker.app.tasks if not name.startswith("celery.")] == [TASK]


def test_nothing_reaches_celery(capsys: pytest.CaptureFixture[str]) -> None:
    tasks.run_job("no job's id")
    assert "run_failed" in capsys.readouterr().out


def test_a_host_is_described_by_the_engine(tmp_path: Path) -> None:
    summary = worker.describe_host(tmp_path / "scratch")
    assert any(runtime.name == "onnxruntime:cpu" and runtime.available for runtime in summary.runtimes)
    assert summary.environment.cores >= 1
    assert list((tmp_path / "scratch").iterdir()) == []


def test_a_pool_process_sees_that_the_worker_stops() -> None:
    assert not worker.stopping()
    ask, told = os.pipe()
    child = os.fork()
    if child == 0:  # only what is safe after a fork: wait for the word, look, end
        os.read(ask, 1)
        os._exit(int(worker.stopping()))
    try:
        worker._stop()
        os.write(told, b"x")
        _, status = os.waitpid(child, 0)
        assert os.waitstatus_to_exitcode(status) == 1
    finally:
        worker._stopping[0] = 0
        os.close(ask)
        os.close(told)


def test_health_asks_for_a_worker_of_this_host(own_store: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["health"])
    assert health.main() == 1
    summary = worker.describe_host(own_store.scratch)
    for host, well in (("elsewhere.example", 1), (socket.gethostname(), 0)):
        with own_store.database.write() as session:
            workers.announce(session, new_id(), host=host, pid=1, queues=["cpu"], summary=summary)
        assert health.main() == well


@pytest.mark.usefixtures("own_store")
def test_the_reapers_health_asks_for_the_database(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["health", "--reaper"])
    assert health.main() == 0
