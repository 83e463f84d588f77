"""ONNX Runtime reports to its maker unless it is told not to before it is imported: every process tells it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from accel.child import Child
from accel.request import BenchmarkRequest, ModelFile
from tests import models
from tests.stack import until

ROOT = Path(__file__).parents[2]
ENTRIES = ("accel.__main__", "accel.benchmark.candidate", "workers.app", "workers.reaper", "api.main", "store.migrate")

PROOF = """
import importlib, os, sys
module = sys.argv[1]
class Gate:
    def find_spec(self, name, path=None, target=None):
        if name == "onnxruntime":
            assert os.environ.get("ORT_DISABLE_TELEMETRY") == "1", "imported before it was told"
        return None
sys.meta_path.insert(0, Gate())
importlib.import_module(module)
assert os.environ["ORT_DISABLE_TELEMETRY"] == "1"
import onnxruntime
"""


@pytest.mark.parametrize("module", ENTRIES)
def test_every_entry_sets_it_before_the_import(module: str) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"}
    answer = subprocess.run(
        [sys.executable, "-c", PROOF, module], env=environment, capture_output=True, text=True, cwd=ROOT, check=False
    )
    assert answer.returncode == 0, answer.stderr


def test_every_process_of_an_engine_has_it_and_leaves_no_queue(tmp_path: Path) -> None:
    folder = tmp_path / "work"
    folder.mkdir()
    model = ModelFile(model_id="m", path=models.save(models.convnet(), tmp_path / "m.onnx"))
    child = Child.start(
        BenchmarkRequest(workspace=folder, models=(model,), baseline_id="m", rounds=50, seconds_per_round=0.2)
    )
    try:
        until(lambda: (event := child.next_event(0.05)) and getattr(event, "phase", "") == "measuring", "it measures")
        until(lambda: len(_family(child.pid)) >= 3, "engine, candidate, and the process that holds its model")
        for pid in _family(child.pid):
            assert b"ORT_DISABLE_TELEMETRY=1" in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    finally:
        child.kill()
    # The engine's HOME is its workspace, where the library would keep what it has to send.
    assert not [path for path in folder.rglob("*") if path.suffix == ".db"]


def _family(group: int) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if int((entry / "stat").read_text().rpartition(")")[2].split()[2]) == group:
                    found.append(int(entry.name))
            except OSError:
                continue
    return found


SESSION = """
import accel, os, sys
assert os.environ["ORT_DISABLE_TELEMETRY"] == "1"
assert "onnxruntime" not in sys.modules
from pathlib import Path
from accel.runtimes.onnxruntime import open_session
open_session(Path(sys.argv[1]), "onnxruntime:cpu")
assert os.environ["ORT_DISABLE_TELEMETRY"] == "1"
"""


def test_a_fresh_interpreter_leaves_nothing_to_send(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    path = models.save(models.convnet(), tmp_path / "m.onnx")
    environment = {name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"}
    environment |= {"HOME": str(home), "XDG_CACHE_HOME": str(home), "TMPDIR": str(home)}
    answer = subprocess.run(
        [sys.executable, "-c", SESSION, str(path)],
        env=environment,
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
    )
    assert answer.returncode == 0, answer.stderr
    assert not [found for found in home.rglob("*") if found.is_file()]
