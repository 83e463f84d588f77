"""ONNX's own tests of operators, by the suite in ``tests/conformance.py``."""

from __future__ import annotations

import re
from collections import Counter

import onnx_ir as ir
from quantization.table import Goal, Section

from accel.graph.torch_graph.chance import by_chance
from tests.conformance import Case, cases, check

_MISSING = "not covered: "


def measure(section: Section) -> None:
    """Fill the section."""
    section.begin(
        "Conformance", ("not compared", "tests"), "ONNX's backend tests of nodes, and of models of a few of them."
    )
    passed, missing, failed = 0, Counter[str](), []
    for case in cases():
        said = check(case)
        if not said:
            passed += 1
        elif said.startswith(_MISSING):
            missing[_reason(said.removeprefix(_MISSING))] += 1
        elif _is_by_chance(case):
            missing["other random numbers than ONNX's reference draws"] += 1
        else:
            failed.append(f"{case.name}: {said}")
    section.rows += [(why, count) for why, count in missing.most_common()]
    section.remarks += [f"failed: {said}" for said in failed]
    section.figures = {"passed": passed, "failed": len(failed), "not compared": missing.total()}
    tried = passed + len(failed)
    section.goals.append(
        Goal(
            "tests of covered operators that pass",
            f"{passed:,} of {tried:,}, and {missing.total():,} are not compared",
            "all",
            met=not failed,
        )
    )


def _is_by_chance(case: Case) -> bool:
    """Whether the outputs are drawn at random, and another generator draws others."""
    graph = ir.from_proto(case.model).graph
    return bool(by_chance(graph) & set(graph.outputs))


def _reason(said: str) -> str:
    """Operator and reason, without the name of the node."""
    return re.sub(r"^The node '.*' \((.+?)\) cannot be run in PyTorch", r"\1", said).rstrip(".")
