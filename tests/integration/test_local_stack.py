"""`accel up` as a user runs it: it starts, it stops, and it leaves nothing behind."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from client.http import Accel, AccelProblem, JobFailed
from tests import models
from tests.stack import until

_MARK = "UP_OF_TESTS"


@contextmanager
def up(home: Path, *, port: int = 0) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A running `accel up`, and its address."""
    with subprocess.Popen(
        [sys.executable, "-m", "client", "up", "--port", str(port), "--home", str(home)],
        env={**os.environ, _MARK: str(home), "COLUMNS": "200"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        assert process.stdout is not None
        said = ""
        while "Ctrl-C stops it" not in said:
            line = process.stdout.readline()
            assert line, f"it ended: {said}"
            said += line
        address = re.search(r"(http://\S+)/docs", said)
        assert address is not None
        yield process, address[1]
        if process.poll() is None:
            process.kill()


def left(home: Path) -> list[int]:
    """Processes that were started for this home, engines included."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                words = (entry / "environ").read_bytes() + (entry / "cmdline").read_bytes()
                running = (entry / "stat").read_text().rpartition(")")[2].split()[0] != "Z"
            except OSError:
                continue
            if running and str(home).encode() in words:
                found.append(int(entry.name))
    return found


def test_it_serves_and_ctrl_c_ends_all_of_it(tmp_path: Path) -> None:
    home = tmp_path / "home"
    for turn in range(2):  # the second time on what the first has left
        with up(home) as (process, url):
            with Accel(url) as api:
                assert len(list(api.models())) == (0 if turn == 0 else 2)
                if turn == 0:
                    use(api, url, tmp_path)
            process.send_signal(signal.SIGINT)
            assert process.wait(30) == 0
        assert left(home) == []
    assert (home / "accel.sqlite3").exists()


def use(api: Accel, url: str, tmp_path: Path) -> None:
    path = models.save(models.convnet(), tmp_path / "tiny.onnx")
    model = api.upload_model(path)
    assert api.upload_model(path).id == model.id
    seen: list[str] = []
    spec = {"model_id": model.id, "steps": [{"technique": "quantize_dynamic"}]}
    job = api.wait(api.submit("compress", spec).id, on_progress=lambda job: seen.append(job.state), timeout_s=60)
    assert seen[-1] == "succeeded"
    events = list(api.events(job.id))
    assert [event.id for event in events] == list(range(1, len(events) + 1))
    assert next(event.id for event in api.events(job.id, after=2)) == 3
    api.download_model(job.model_ids[0], tmp_path / "result.onnx")
    assert (tmp_path / "result.onnx").stat().st_size == api.model(job.model_ids[0]).size_bytes
    assert "tiny" in api.compare([model.id, *job.model_ids])
    assert [found.id for found in api.jobs(state="succeeded")] == [job.id]
    with pytest.raises(AccelProblem) as caught:
        api.submit("compress", {"model_id": model.id, "steps": [{"technique": "quantize_static"}]})
    assert (caught.value.code, caught.value.status) == ("dataset_required", 422)
    few = {"starts": 1, "rounds": 3, "seconds_per_round": 0.02, "budget_seconds": 10}
    quick = api.wait(api.submit("benchmark", {"model_ids": [model.id], **few}).id)
    name = (quick.report or {})["samples"]
    assert name in {file.name for file in api.files(quick.id)}
    samples = api.download_file(quick.id, name, tmp_path / name)
    assert samples.read_bytes()[:4] == samples.read_bytes()[-4:] == b"PAR1"
    with pytest.raises(FileNotFoundError, match=name):
        api.download_file(quick.id, "nothing", tmp_path / "nothing")
    printed = subprocess.run(
        [sys.executable, "-m", "client", "files", quick.id, "--url", url], capture_output=True, text=True, check=True
    )
    assert name in printed.stdout
    preflight = [sys.executable, "-m", "client", "benchmark", model.id, "--preflight", "--url", url]
    told = subprocess.run(preflight, env={**os.environ, "COLUMNS": "200"}, capture_output=True, text=True, check=True)
    assert "nothing was timed" in told.stdout
    slow = {"model_ids": [model.id], "starts": 50, "rounds": 500, "seconds_per_round": 0.1}
    running = api.submit("benchmark", slow)
    api.cancel(running.id)
    with pytest.raises(JobFailed, match="cancelled"):
        api.wait(running.id, timeout_s=30)


def test_even_a_killed_one_leaves_nothing(tmp_path: Path) -> None:
    home = tmp_path / "home"
    with up(home) as (process, url):
        with Accel(url) as api:
            model = api.upload_model(models.save(models.convnet(), tmp_path / "tiny.onnx"))
            slow = {"model_ids": [model.id], "starts": 50, "rounds": 500, "seconds_per_round": 0.1}
            job = api.submit("benchmark", slow)
            until(lambda: api.job(job.id).phase == "measuring", "the benchmark runs")
        assert len(left(home)) >= 6
        process.kill()
        process.wait()
        until(lambda: not left(home), "everything dies with it")


def test_a_home_and_a_port_serve_one(tmp_path: Path) -> None:
    home = tmp_path / "home"
    with up(home) as (process, url):
        second = run_up(home, 0)
        assert second.returncode == 1
        assert "Another `accel up`" in second.stdout
        taken = run_up(tmp_path / "other", int(url.rpartition(":")[2]))
        assert taken.returncode == 1
        assert "--port" in taken.stdout
        assert "Traceback" not in second.stdout + taken.stdout
        assert httpx.get(f"{url}/livez").status_code == 200
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
    assert left(home) == []


def run_up(home: Path, port: int) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "client", "up", "--port", str(port), "--home", str(home)],
        env={**os.environ, "COLUMNS": "200"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
        check=False,
    )


def test_a_piece_that_dies_is_started_again(tmp_path: Path) -> None:
    home = tmp_path / "home"
    with up(home) as (process, url):
        (reaper,) = [pid for pid in left(home) if b"workers.reaper" in Path(f"/proc/{pid}/cmdline").read_bytes()]
        (api_pid,) = [pid for pid in left(home) if b"uvicorn" in Path(f"/proc/{pid}/cmdline").read_bytes()]
        os.kill(reaper, signal.SIGKILL)
        os.kill(api_pid, signal.SIGKILL)
        with Accel(url) as api:
            model = api.upload_model(models.save(models.convnet(), tmp_path / "tiny.onnx"))
            spec = {"model_id": model.id, "steps": [{"technique": "optimize_graph"}]}
            assert api.wait(api.submit("compress", spec).id, timeout_s=60).state == "succeeded"
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0
    assert left(home) == []


def test_a_client_without_a_service_says_what_to_do() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    begun = time.monotonic()
    answer = subprocess.run(
        [sys.executable, "-m", "client", "jobs", "--url", url],
        env={**os.environ, "COLUMNS": "200"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert answer.returncode == 2
    assert "accel up" in answer.stderr
    assert time.monotonic() - begun < 60
