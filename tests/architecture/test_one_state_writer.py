"""A job's state has one writer."""

from __future__ import annotations

import ast
from pathlib import Path

ROOT = Path(__file__).parents[2]
ROOMS = ("accel", "api", "client", "store", "workers")
ALLOWED = {"store/states.py", "store/jobs.py"}
"""The mover itself, and the birth of a job, which is queued."""


def writes_state(node: ast.AST) -> bool:
    if isinstance(node, ast.Assign | ast.AugAssign):
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        return any(isinstance(target, ast.Attribute) and target.attr == "state" for target in targets)
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute | ast.Name):
        name = node.func.attr if isinstance(node.func, ast.Attribute) else node.func.id
        return name in {"values", "JobRow"} and any(keyword.arg == "state" for keyword in node.keywords)
    return False


def test_nobody_else_writes_it() -> None:
    writers = {
        str(path.relative_to(ROOT))
        for room in ROOMS
        for path in (ROOT / room).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if writes_state(node)
    }
    assert writers == ALLOWED, "ask store.states.advance for the move"
