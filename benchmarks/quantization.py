"""Quantization by Accel beside its peers, ONNX Runtime's quantizers and NNCF, against the goals.

``python benchmarks/quantization.py`` measures everything on the models and data of a folder and prints Markdown; sections
can be named. Every candidate runs in a process of its own, ours as a worker of the service starts it; the peers come from
the extra ``peers``, in this environment or, with ``--peers``, in that of another interpreter. Needs an idle machine.
"""

from __future__ import annotations

import argparse
import json
import resource
import signal
import sys
import tempfile
import traceback
from dataclasses import replace
from pathlib import Path
from typing import Any

from quantization.labelled import MODELS
from quantization.sections import SECTIONS
from quantization.table import Goal, Section
from quantization.workbench import FULL, QUICK, Workbench


def main() -> int:
    """Measure, print, and say whether every goal was met (0) or not (1)."""
    options = _options()
    signal.signal(
        signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM)
    )  # ends the candidate and removes the folder
    sections: dict[str, Section] = {}
    with tempfile.TemporaryDirectory(prefix="accel-bench-") as folder:
        extent = QUICK if options.quick else FULL
        extent = replace(extent, seconds=options.seconds or extent.seconds)
        bench = Workbench(Path(folder), options.data, options.peers, extent)
        where = bench.host["environment"]
        print(
            f"# Quantization\n\n{where['cpu']}, {where['cores']} cores; {_versions(where)}; {', '.join(bench.runtimes)}\n"
        )
        for name in options.sections:
            section = sections[name] = Section(name)
            try:
                SECTIONS[name](bench, options.models, section)
            except Exception as error:  # noqa: BLE001  (one section that fails must not take the others with it)
                traceback.print_exc()
                section.goals.append(
                    Goal(name, f"stopped by {type(error).__name__}: {error}", "all figures", met=False)
                )
            print(section.markdown() + "\n", flush=True)
            if options.json is not None:
                options.json.write_text(json.dumps(_document(bench, sections, quick=options.quick), indent=1))
    goals = [goal for section in sections.values() for goal in section.goals]
    met = sum(goal.met is True for goal in goals)
    print(f"{met} of {len(goals)} goals met, {sum(goal.met is None for goal in goals)} without a figure.")
    return 0 if all(goal.met is not False for goal in goals) else 1


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sections", nargs="*", metavar="section", help=f"what to measure: {', '.join(SECTIONS)} (all)")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="folder of models and labelled data")
    parser.add_argument("--peers", type=Path, default=Path(sys.executable), help="interpreter that has the peers")
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS), metavar="MODEL", help="only these")
    parser.add_argument("--seconds", type=float, help="longest that a candidate may run before it is stopped (3,600)")
    parser.add_argument("--json", type=Path, help="file for all figures")
    parser.add_argument("--quick", action="store_true", help="few rows and one turn: whether it runs, not how well")
    options = parser.parse_args()
    unknown = set(options.sections) - set(SECTIONS)
    if unknown:
        parser.error(f"no such section: {', '.join(sorted(unknown))}; there is {', '.join(SECTIONS)}")
    options.sections = options.sections or list(SECTIONS)
    return options


def _versions(environment: dict[str, Any]) -> str:
    return ", ".join(f"{name} {version}" for name, version in environment["libraries"].items())


def _document(bench: Workbench, sections: dict[str, Section], *, quick: bool) -> dict[str, Any]:
    return {
        "quick": quick,
        "host": bench.host,
        "floor_of_peaks_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "sections": {name: section.json() for name, section in sections.items()},
    }


if __name__ == "__main__":
    sys.exit(main())
