"""A worker forks its pool, and holds its memory for weeks: what works on models runs in the engine's process alone."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = ("fastapi", "starlette", "onnx", "onnx_ir", "onnxruntime", "torch", "numpy")


@pytest.mark.parametrize("module", ["workers.app", "workers.tasks", "workers.reaper", "workers.health"])
def test_a_workers_process_loads_nothing_heavy(module: str) -> None:
    code = f"import sys, {module}; print(*[name for name in {HEAVY!r} if name in sys.modules])"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stderr
    assert answer.stdout.split() == [], f"{module} loads {answer.stdout}"


def test_the_api_and_the_workers_do_not_know_each_other() -> None:
    code = "import sys, workers.tasks, workers.reaper; print(*[name for name in sys.modules if name.split('.')[0] == 'api'])"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.split() == []
