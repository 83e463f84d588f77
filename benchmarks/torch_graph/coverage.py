"""ONNX's own tests of operators, by the suite in ``tests/conformance.py``."""

from __future__ import annotations

import re
from collections import Counter

from quantization.table import Goal, Section

from tests.conformance import cases, check

_MISSING = "not covered: "


def measure(section: Section) -> None:
    """Fill the section."""
    section.begin(
        "Conformance", ("not covered", "tests"), "ONNX's backend tests of nodes, and of models of a few of them."
    )
    passed, missing, failed = 0, Counter[str](), []
    for case in cases():
        said = check(case)
        if not said:
            passed += 1
        elif said.startswith(_MISSING):
            missing[_reason(said.removeprefix(_MISSING))] += 1
        else:
            failed.append(f"{case.name}: {said}")
    section.rows += [(why, count) for why, count in missing.most_common()]
    section.remarks += [f"failed: {said}" for said in failed]
    section.figures = {"passed": passed, "failed": len(failed), "not covered": missing.total()}
    tried = passed + len(failed)
    section.goals.append(
        Goal(
            "tests of covered operators that pass",
            f"{passed:,} of {tried:,}, and {missing.total():,} are not covered",
            "all",
            met=not failed,
        )
    )


def _reason(said: str) -> str:
    """Operator and reason, without the name of the node."""
    return re.sub(r"^The node '.*' \((.+?)\) cannot be run in PyTorch", r"\1", said).rstrip(".")
