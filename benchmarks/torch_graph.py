"""The differentiable executor against its goals: every file, ONNX's own tests, and a step of training beside plain PyTorch.

``python benchmarks/torch_graph.py --data DIR`` measures everything and prints Markdown; sections can be named: ``files`` (outputs
beside ONNX Runtime, gradients beside finite differences), ``conformance`` and ``speed``, which needs an idle machine.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

_ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(_ROOT), str(_ROOT / "benchmarks")]  # the suite of conformance is among the tests

from quantization.table import Section  # noqa: E402  (found by the line above)
from torch_graph import coverage, files, speed  # noqa: E402

_SECTIONS = ("files", "conformance", "speed")
_TURNS = 5


def main() -> int:
    """Measure, print, and say whether every goal was met (0) or not (1)."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sections", nargs="*", choices=[*_SECTIONS, []], help="all if left out")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="folder of models with their data")
    parser.add_argument("--models", nargs="*", type=Path, help="files instead of all of the folder and the example")
    parser.add_argument("--turns", type=int, default=_TURNS, help="how often the speed of each side is measured")
    parser.add_argument("--child", nargs=2, metavar=("WAY", "NETWORK"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(speed.child(*options.child, options.data)))
        return 0
    models = options.models or [*sorted(options.data.glob("*.onnx")), _ROOT / "examples/fashion_cnn.onnx"]
    goals = []
    for name in options.sections or _SECTIONS:
        section = Section(name)
        match name:
            case "files":
                files.measure(models, options.data, section)
            case "conformance":
                coverage.measure(section)
            case "speed":
                speed.measure(options.data, options.turns, section)
        print(section.markdown() + "\n", flush=True)
        goals += section.goals
    met = sum(goal.met is True for goal in goals)
    print(f"{met} of {len(goals)} goals met.")
    return 0 if met == len(goals) else 1


if __name__ == "__main__":
    sys.exit(main())
