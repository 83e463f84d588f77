"""The engine as a child process: confined, followed, and ended whatever happens."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from accel.child import Child, call
from accel.errors import EngineCrashed, EngineFailed, EngineTimeout
from accel.events import Done
from accel.report import HostSummary, ModelSummary
from accel.request import BenchmarkRequest, DescribeHostRequest, InspectModelRequest, ModelFile
from tests import models

ROOT = Path(__file__).parents[3]


def until(ready: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 60
    while not ready():
        assert time.monotonic() < deadline, what
        threading.Event().wait(0.02)


def work(tmp_path: Path) -> Path:
    folder = tmp_path / "work"
    folder.mkdir()
    return folder


def slow(tmp_path: Path) -> BenchmarkRequest:
    model = ModelFile(model_id="m", path=models.save(models.convnet(), tmp_path / "m.onnx"))
    return BenchmarkRequest(
        workspace=work(tmp_path), models=(model,), baseline_id="m", rounds=1000, seconds_per_round=1
    )


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def group(leader: int) -> list[int]:
    """Every process of a group."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if int(fields[2]) == leader and fields[0] != "Z":
                found.append(int(entry.name))
    return found


def test_it_answers(tmp_path: Path) -> None:
    path = models.save(models.convnet(), tmp_path / "m.onnx")
    done = call(InspectModelRequest(workspace=work(tmp_path), model=path), timeout_s=30)
    assert isinstance(done.report, ModelSummary)
    assert done.report.parameters == models.CONVNET_PARAMETERS


def test_a_refusal_keeps_code_and_hint(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_text("hello")
    with pytest.raises(EngineFailed) as caught:
        call(InspectModelRequest(workspace=work(tmp_path), model=tmp_path / "m.onnx"), timeout_s=30)
    assert caught.value.code == "bad_model"
    assert caught.value.hint


def test_a_killed_engine_is_a_crash_with_its_signal(tmp_path: Path) -> None:
    child = Child.start(slow(tmp_path))
    until(lambda: child.next_event(0.05) is not None, "it says something")
    os.kill(child.pid, signal.SIGSEGV)
    outcome = child.outcome()
    assert (outcome.returncode, outcome.answer) == (-signal.SIGSEGV, None)
    until(
        lambda: group(child.pid) == [], "what it started dies too"
    )  # a kill takes effect when there is a core to die on


def test_killing_ends_the_whole_group(tmp_path: Path) -> None:
    child = Child.start(slow(tmp_path))
    until(lambda: len(group(child.pid)) >= 2, "a candidate runs")
    child.kill()
    until(lambda: group(child.pid) == [], "all of it is dead")


def test_a_call_that_takes_too_long_is_killed(tmp_path: Path) -> None:
    with pytest.raises(EngineTimeout, match="benchmark within 1 s"):
        call(slow(tmp_path), timeout_s=1)


def test_a_crash_says_how(tmp_path: Path) -> None:
    request = slow(tmp_path)
    killer = threading.Timer(1.0, lambda: [os.kill(pid, signal.SIGKILL) for pid in engines_in(request.workspace)])
    killer.start()
    with pytest.raises(EngineCrashed, match="killed by SIGKILL"):
        call(request, timeout_s=30)
    killer.join()


def engines_in(folder: Path) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                inside = (entry / "cwd").readlink() == folder
                words = (entry / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if inside and b"accel" in words:
                found.append(int(entry.name))
    return found


def test_it_dies_with_its_parent(tmp_path: Path) -> None:
    request = tmp_path / "request.json"
    request.write_text(slow(tmp_path).model_dump_json())
    code = textwrap.dedent(
        f"""
        from accel import request
        from accel.child import Child
        child = Child.start(request.adapter.validate_json(open({str(request)!r}).read()))
        print(child.pid, flush=True)
        child.outcome()
        """
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, cwd=ROOT) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        until(lambda: len(group(pid)) >= 2, "the engine and its candidate run")
        family = group(pid)
        parent.kill()
        parent.wait()
        until(lambda: not any(map(alive, family)), "all die with the parent")


def by_hand(request: str, folder: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, "-m", "accel"],
        input=request,
        capture_output=True,
        text=True,
        cwd=folder,
        env=environment,
        check=False,
    )


@pytest.mark.parametrize("request_text", ["", "{", "[]", '{"kind": "dance"}', '{"kind": "inspect_model"}', "\x00\xff"])
def test_garbage_is_refused_as_such(request_text: str, tmp_path: Path) -> None:
    answer = by_hand(request_text, tmp_path)
    assert answer.returncode == 1
    (event,) = map(json.loads, answer.stdout.splitlines())
    assert (event["event"], event["code"]) == ("failed", "bad_request")


def test_by_hand_with_relative_paths(tmp_path: Path) -> None:
    models.save(models.convnet(), tmp_path / "m.onnx")
    request = {
        "kind": "compress",
        "model": {"model_id": "m", "path": "m.onnx"},
        "steps": [{"technique": "optimize_graph"}],
        "result_ids": ["result"],
    }
    answer = by_hand(json.dumps(request), tmp_path)
    assert answer.returncode == 0, answer.stdout
    events = [json.loads(line) for line in answer.stdout.splitlines()]
    assert [event["event"] for event in events][-1] == "done"
    assert (tmp_path / "result.onnx").exists()


CONFINED = """
import json, os, socket, sys
from pathlib import Path
from accel.sandbox import Limits, confine
summary = confine(readable=[Path(sys.argv[1])], writable=Path(sys.argv[2]), limits=Limits(file_bytes=1 << 20))
tried = {}
def attempt(name, action):
    try:
        action()
        tried[name] = "allowed"
    except (OSError, PermissionError) as error:
        tried[name] = type(error).__name__
attempt("read its input", lambda: Path(sys.argv[1]).read_bytes())
attempt("write its folder", lambda: Path(sys.argv[2], "out").write_bytes(b"x"))
attempt("read passwords", lambda: Path("/etc/passwd").read_bytes())
attempt("write outside", lambda: Path(sys.argv[3]).write_bytes(b"x"))
attempt("list home", lambda: os.listdir(sys.argv[4]))
attempt("open a socket", lambda: socket.socket().connect(("127.0.0.1", int(sys.argv[5]))))
attempt("read its parent", lambda: Path(f"/proc/{os.getppid()}/environ").read_bytes())
attempt("kill its parent", lambda: os.kill(os.getppid(), 0))
attempt("write a large file", lambda: Path(sys.argv[2], "large").write_bytes(bytes(2 << 20)))
print(json.dumps({"active": summary.active, "tried": tried}))
"""


def test_confinement_holds(tmp_path: Path) -> None:
    folder, home = work(tmp_path), tmp_path / "home"
    home.mkdir()
    given = tmp_path / "input"
    given.write_bytes(b"x")
    with socket.create_server(("127.0.0.1", 0)) as server:
        arguments = [str(given), str(folder), str(tmp_path / "outside"), str(home), str(server.getsockname()[1])]
        answer = subprocess.run(
            [sys.executable, "-c", CONFINED, *arguments], capture_output=True, text=True, cwd=ROOT, check=False
        )
    assert answer.returncode == 0, answer.stderr
    said = json.loads(answer.stdout)
    tried, active = said["tried"], set(said["active"])
    assert tried["read its input"] == tried["write its folder"] == "allowed"
    assert {"rlimits", "no_new_privs"} <= active
    assert tried["write a large file"] == "OSError"
    if "landlock" in active:
        refused = ("read passwords", "write outside", "list home", "read its parent", "kill its parent")
        assert {name: tried[name] for name in refused} == dict.fromkeys(refused, "PermissionError")
        assert not (tmp_path / "outside").exists()
    if "seccomp" in active:
        assert tried["open a socket"] == "PermissionError"


def test_the_engine_says_how_it_is_confined(tmp_path: Path) -> None:
    report = call(DescribeHostRequest(workspace=work(tmp_path)), timeout_s=60).report
    assert isinstance(report, HostSummary)
    assert "rlimits" in report.sandbox.active
    known = {"landlock", "seccomp"}
    assert known <= set(report.sandbox.active) | set(report.sandbox.missing)


def test_a_hostile_environment_does_not_reach_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACCEL_DATABASE_URL", "postgresql://secret")
    request = slow(tmp_path)
    # A file in its folder must not shadow a library.
    (request.workspace / "json.py").write_text("raise SystemExit('shadowed')")
    child = Child.start(request)
    until(lambda: child.next_event(0.05) is not None, "it says something")
    environment = Path(f"/proc/{child.pid}/environ").read_bytes()
    child.kill()
    assert b"secret" not in environment
    assert b"ORT_DISABLE_TELEMETRY=1" in environment.split(b"\0")


def test_done_is_the_last_word(tmp_path: Path) -> None:
    path = models.save(models.convnet(), tmp_path / "m.onnx")
    child = Child.start(InspectModelRequest(workspace=work(tmp_path), model=path))
    outcome = child.outcome()
    assert isinstance(outcome.answer, Done)
    assert child.ended
    assert child.next_event(0.01) is None
