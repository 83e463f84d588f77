"""The arrows that a static tool cannot hold."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = ("torch", "onnx", "onnx_ir", "onnxruntime", "numpy")


@pytest.mark.parametrize(
    ("module", "forbidden"),
    [
        ("api.main", HEAVY),
        ("accel.techniques", HEAVY),
        ("accel.request", HEAVY),
        ("accel.child", HEAVY),
        ("store.jobs", (*HEAVY, "fastapi", "celery")),
        ("workers.app", (*HEAVY, "fastapi")),
        ("client.__main__", (*HEAVY, "fastapi", "celery", "sqlalchemy")),
    ],
)
def test_importing_loads_nothing_heavy(module: str, forbidden: tuple[str, ...]) -> None:
    """What a process does not need it does not load: the API starts without torch, onnx or onnxruntime."""
    code = f"import sys, {module}; print(*[name for name in {forbidden!r} if name in sys.modules])"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stderr
    assert answer.stdout.split() == [], f"{module} loads {answer.stdout}"
