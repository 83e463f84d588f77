"""The server as a process: it starts as the README says, and stops although somebody follows a job."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import httpx

from store.database import Database
from store.migrate import upgrade
from tests.api_service import linear, until


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def answers(http: httpx.Client) -> bool:
    try:
        return http.get("/livez").status_code == 200
    except httpx.TransportError:
        return False


def test_it_stops_at_once_with_clients_waiting(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'accel.sqlite3'}"
    database = Database(url)
    upgrade(database)
    database.dispose()
    port = free_port()
    environment = {
        **os.environ,
        "ACCEL_DATABASE_URL": url,
        "ACCEL_FILES_URL": f"file://{tmp_path / 'files'}",
        "ACCEL_BROKER_URL": "redis://127.0.0.1:1/0",
        "ACCEL_MIN_FREE_BYTES": "0",
    }
    command = [sys.executable, "-m", "uvicorn", "--factory", "api.main:create_app", "--port", str(port)]
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(
            command, env=environment, cwd=Path(__file__).parents[3], stdout=log, stderr=subprocess.STDOUT
        )
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=20) as http:
            until(lambda: answers(http))
            model = http.post("/v1/models", files={"file": ("m.onnx", linear())}).json()
            job = http.post("/v1/jobs/benchmark", json={"model_ids": [model["id"]]}).json()
            with http.stream("GET", job["links"]["events"]) as stream:
                lines = stream.iter_lines()
                until(lambda: next(lines).startswith("event: state"))
                process.send_signal(signal.SIGTERM)
                assert not [line for line in lines if line.startswith("event:")]
        process.wait(timeout=15)
    finally:
        process.kill()
        process.wait()
    # The signal is raised again once everything is closed, so that whoever started it sees why it ended.
    assert process.returncode in {0, -signal.SIGTERM}, (tmp_path / "log").read_text()
    assert "Traceback" not in (tmp_path / "log").read_text()
