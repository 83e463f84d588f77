"""What Celery is told, and what a worker says of itself."""

from __future__ import annotations

import socket
import subprocess
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


# Forking belongs into a process without the threads of a test run.
_SEES_THE_STOP = """
import os
from workers import app
assert not app.stopping()
ask, told = os.pipe()
if (child := os.fork()) == 0:
    os.read(ask, 1)
    os._exit(int(app.stopping()))
app._stop()
os.write(told, b"x")
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 1
"""

_FORKS_BESIDE_THE_BEAT = """
import os, threading
from store import workers
from store.database import Database
from store.settings import StoreSettings
from workers import app
app.BEAT_S = 0
beat = threading.Thread(target=app._beat, args=(["cpu"],))
beat.start()
there = []
while not there:
    with app._writing() as session:
        there = workers.live(session)
for _ in range(10):
    if (child := os.fork()) == 0:
        with Database(StoreSettings().database_url).write() as session:
            workers.beat(session, app.worker_id)
        os._exit(7)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
app._beating.set()
beat.join()
with app._writing() as session:
    assert workers.live(session) == []
"""


def run(script: str) -> None:
    ended = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script], check=False, capture_output=True, text=True, timeout=60
    )
    assert ended.returncode == 0, ended.stderr


def test_a_pool_process_sees_that_the_worker_stops() -> None:
    run(_SEES_THE_STOP)


@pytest.mark.usefixtures("own_store")
def test_a_pool_process_that_is_forked_beside_the_beat_can_write() -> None:
    run(_FORKS_BESIDE_THE_BEAT)


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
