"""What the engine's process may take, and what its parent keeps of what it says."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from accel import child as engine
from accel.child import Child, call
from accel.errors import EngineCrashed, EngineFailed
from accel.request import DescribeHostRequest, InspectModelRequest
from accel.sandbox import Limits
from tests import models

ROOT = Path(__file__).parents[3]

CONFINED = """
import sys
from pathlib import Path
from accel.sandbox import Limits, confine
confine(readable=[], writable=Path(sys.argv[1]), limits=Limits.model_validate_json(sys.argv[2]))
"""


def confined(tmp_path: Path, limits: str, then: str) -> subprocess.CompletedProcess[str]:
    code = CONFINED + then
    return subprocess.run(
        [sys.executable, "-c", code, str(tmp_path), limits], capture_output=True, text=True, cwd=ROOT, check=False
    )


def test_memory_has_a_bound(tmp_path: Path) -> None:
    then = "try:\n    bytearray(1 << 30)\nexcept MemoryError:\n    print('refused')\n"
    assert confined(tmp_path, '{"memory_bytes": 800000000}', then).stdout.strip() == "refused"
    assert confined(tmp_path, "{}", then).stdout.strip() == ""


def test_processor_time_has_a_bound(tmp_path: Path) -> None:
    answer = confined(tmp_path, '{"cpu_seconds": 1}', "while True: pass\n")
    assert answer.returncode in {-signal.SIGKILL, -signal.SIGXCPU}


def test_open_files_have_a_bound(tmp_path: Path) -> None:
    then = (
        "try:\n    kept = [open('/dev/null') for _ in range(100)]\nexcept OSError as error:\n    print(error.errno)\n"
    )
    assert confined(tmp_path, '{"open_files": 64}', then).stdout.strip() == "24"


def test_confinement_goes_over_to_children(tmp_path: Path) -> None:
    then = (
        "import subprocess\n"
        "summary = confine(readable=[], writable=Path(sys.argv[1]), limits=Limits())\n"
        "print('landlock' in summary.active)\n"
        "code = \"open('/etc/passwd').read()\"\n"
        "answer = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)\n"
        "print('PermissionError' in answer.stderr)\n"
    )
    answer = confined(tmp_path, "{}", then)
    active, denied = answer.stdout.split()
    assert active == denied, answer.stderr


def test_an_engine_without_memory_says_so(tmp_path: Path) -> None:
    """Enough to start and to answer, too little for the libraries that the work needs."""
    path = models.save(models.convnet(), tmp_path / "m.onnx")
    workspace = tmp_path / "work"
    workspace.mkdir()
    request = InspectModelRequest(workspace=workspace, model=path, limits=Limits(memory_bytes=120 << 20))
    with pytest.raises((EngineFailed, EngineCrashed)) as caught:
        call(request, timeout_s=30)
    assert caught.value.code in {"out_of_memory", "engine_crashed"}
    assert caught.value.hint


def test_an_engine_out_of_processor_time_is_a_crash(tmp_path: Path) -> None:
    from accel.request import BenchmarkRequest, ModelFile

    path = models.save(models.convnet(), tmp_path / "m.onnx")
    workspace = tmp_path / "work"
    workspace.mkdir()
    request = BenchmarkRequest(
        workspace=workspace,
        models=(ModelFile(model_id="m", path=path),),
        baseline_id="m",
        runtimes=("onnxruntime:cpu",),
        rounds=2,
        seconds_per_round=5,
        limits=Limits(cpu_seconds=2),
    )
    # The candidate burns the time, and is reported as what it is: killed; the engine itself goes on.
    (measurement,) = call(request, timeout_s=60).report.measurements
    assert "killed by SIG" in (measurement.error or "")


def talker(tmp_path: Path, code: str) -> Child:
    """A child that speaks what a test wants, through the same pipes as the engine."""
    return Child(
        subprocess.Popen(
            [sys.executable, "-c", code],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            cwd=tmp_path,
            start_new_session=True,
        )
    )


def test_last_words_are_bounded(tmp_path: Path) -> None:
    for code in (
        "import sys\nfor i in range(200_000): print('line', i, file=sys.stderr)",
        "import sys\nfor i in range(64): sys.stderr.write('x' * (1 << 20))",
    ):
        outcome = talker(tmp_path, code).outcome()
        assert outcome.returncode == 0
        assert 0 < len(outcome.stderr) <= engine._STDERR_LINES * 1000


def test_what_is_no_event_is_kept_as_a_last_word(tmp_path: Path) -> None:
    outcome = talker(tmp_path, "print('hello'); print('{\"event\": \"done\"}'); print('\\udcff'.encode())").outcome()
    assert outcome.answer is None
    assert "not an event: hello" in outcome.stderr


def test_no_zombie_is_left(tmp_path: Path) -> None:
    workspace = tmp_path / "work"
    workspace.mkdir()
    child = Child.start(DescribeHostRequest(workspace=workspace))
    child.outcome()
    assert not Path(f"/proc/{child.pid}").exists()
    stuck = talker(tmp_path, "import time; time.sleep(600)")
    stuck.kill()
    assert not Path(f"/proc/{stuck.pid}").exists()
    assert stuck.outcome().returncode == -signal.SIGKILL


def test_a_child_that_does_not_read_its_request_is_a_crash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It dies before it reads: the pipe breaks, and the outcome tells how it ended."""
    workspace = tmp_path / "work"
    workspace.mkdir()
    stub = tmp_path / "python"
    stub.write_text("#!/bin/sh\nexit 7\n")
    stub.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(stub))
    with pytest.raises(EngineCrashed, match="exit code 7"):
        call(DescribeHostRequest(workspace=workspace), timeout_s=30)
