"""Whether benchmarks tell the truth: no difference where there is none, a small one where there is one, and the same latency as others find.

``python benchmarks/fidelity.py`` runs five sections, each in a few minutes, on a host that does nothing else:

- ``same``: the same model as both candidates. At most 5 % of the 95 % intervals may exclude 1.
- ``burner``: the same while another process takes one core half of the time.
- ``slower``: a model with 5 % more of the same layers. At least 90 % of the runs must tell it from its parent.
- ``alone``: the median latency beside ONNX Runtime alone in a bare process, and beside MLPerf's load generator (``--peers``: a
  Python that has ``mlcommons-loadgen``). Within 3 %.
- ``order``: the candidates listed the other way round. The speed-up must be the same.
"""

from __future__ import annotations

import argparse
import math
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from fidelity.models import tower
from quantization.table import Goal

from accel.child import call
from accel.evaluation.statistics import wilson
from accel.report import BenchmarkReport, Estimate, Measurement
from accel.request import BenchmarkRequest, ModelFile

_HERE = Path(__file__).parent
_LAYERS = 20
_BURST_S = 0.05
_TURNS = 5
_ALONE_S = 2.0


@dataclass(frozen=True)
class Bench:
    """How each run is made."""

    folder: Path
    runs: int
    budget_s: float
    peers: str

    def run(self, first: Path, second: Path, number: int, *, swapped: bool = False) -> BenchmarkReport:
        """Benchmark two files, the first as the baseline."""
        with tempfile.TemporaryDirectory(dir=self.folder) as workspace:
            models = (ModelFile(model_id="first", path=first), ModelFile(model_id="second", path=second))
            request = BenchmarkRequest(
                workspace=Path(workspace),
                models=models[::-1] if swapped else models,
                baseline_id="first",
                runtimes=("onnxruntime:cpu",),
                budget_seconds=self.budget_s,
                seed=number,
                profile=False,
            )
            report = call(request, timeout_s=600).report
        if not isinstance(report, BenchmarkReport):
            raise TypeError("a benchmark gives its report")
        return report

    def ratios(self, first: Path, second: Path, what: str) -> list[Estimate]:
        """The speed-up of the second over the first, run after run."""
        found = []
        for number in range(self.runs):
            measured = of(self.run(first, second, number), "second")
            if measured.speedup is None:
                raise RuntimeError(f"no speed-up: {measured.error}")
            found.append(measured.speedup)
            print(f"  {what} {number + 1}/{self.runs}: {told(measured.speedup)}, {measured.starts} starts", flush=True)
        return found


def of(report: BenchmarkReport, model_id: str) -> Measurement:
    """The measurement of one model."""
    return next(measured for measured in report.measurements if measured.model_id == model_id)


def told(estimate: Estimate) -> str:
    """A ratio with its interval."""
    return f"{estimate.value:.3f}x [{estimate.low:.3f}, {estimate.high:.3f}]"


def excludes(estimate: Estimate, value: float) -> bool:
    """Whether an interval leaves a value out."""
    return estimate.low is None or estimate.high is None or not estimate.low <= value <= estimate.high


def half_widths(found: list[Estimate]) -> str:
    """How wide the intervals are."""
    widths = [math.log((e.high or math.inf) / (e.low or math.nan)) / 2 for e in found]
    return f"half-width median {statistics.median(widths):.1%}, largest {max(widths):.1%}"


def same(bench: Bench, model: Path, what: str = "same") -> list[Goal]:
    """The same file twice."""
    twin = bench.folder / f"twin-{model.name}"
    shutil.copyfile(model, twin)
    begun = time.monotonic()
    found = bench.ratios(model, twin, what)
    wrong = sum(excludes(estimate, 1) for estimate in found)
    each = (time.monotonic() - begun) / len(found)
    said = f"{wrong} of {len(found)} ({wrong / len(found):.1%}); {half_widths(found)}; {each:.0f} s a run"
    # 5 % of 40 is two; more may be chance, and the binomial interval says whether it can be.
    return [Goal(f"A/A ({what}), intervals that exclude 1", said, "at most 5 %", wrong <= 0.05 * len(found))]


@contextmanager
def burning() -> Iterator[None]:
    """Another process that takes one core half of the time."""
    code = f"import time\nwhile True:\n  t = time.perf_counter() + {_BURST_S}\n  while time.perf_counter() < t: pass\n  time.sleep({_BURST_S})"
    process = subprocess.Popen([sys.executable, "-c", code])
    try:
        yield
    finally:
        process.kill()
        process.wait()


def burner(bench: Bench, model: Path) -> list[Goal]:
    """The same file twice, beside a burner."""
    with burning():
        return same(bench, model, "one core busy half of the time")


def slower(bench: Bench, _: Path) -> list[Goal]:
    """Twenty layers and twenty-one."""
    parent = tower(bench.folder / "parent.onnx", _LAYERS)
    child = tower(bench.folder / "child.onnx", _LAYERS + 1)
    found = bench.ratios(parent, child, "5 % slower")
    hits = sum(estimate.high is not None and estimate.high < 1 for estimate in found)
    share = wilson(hits, len(found))
    centre = statistics.median(estimate.value for estimate in found)
    said = f"{hits} of {len(found)} ({share.value:.0%}); median {centre:.3f}x for {_LAYERS / (_LAYERS + 1):.3f}x; {half_widths(found)}"
    return [Goal("a model that is 5 % slower is told from its parent", said, "at least 90 %", share.value >= 0.9)]


def alone(bench: Bench, model: Path) -> list[Goal]:
    """Our median, a bare loop's and the load generator's, in turn."""
    ways: dict[str, Callable[[int], float]] = {
        "ours": lambda number: latency(bench.run(model, model, number)),
        "bare": lambda _: script(sys.executable, "bare.py", model),
    }
    if has_loadgen(bench.peers):
        ways["loadgen"] = lambda _: script(bench.peers, "loadgen.py", model)
    found: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(_TURNS):
        for name, way in ways.items():
            # A process start has a state of its own: the others get as many starts as ours has.
            found[name].append(statistics.median(way(number) for _ in range(1 if name == "ours" else _TURNS)))
        print(
            f"  alone {number + 1}/{_TURNS}: " + ", ".join(f"{n} {v[-1]:.4f} ms" for n, v in found.items()), flush=True
        )
    goals = []
    for name in ways:
        if name != "ours":
            ratio = statistics.median(a / b for a, b in zip(found["ours"], found[name], strict=True))
            said = f"{ratio:.3f} ({statistics.median(found['ours']):.4f} and {statistics.median(found[name]):.4f} ms)"
            goals.append(
                Goal(f"median of {model.name} over that of {name}", said, "0.97 to 1.03", abs(ratio - 1) <= 0.03)
            )
    if "loadgen" not in ways:
        goals.append(Goal("median over that of loadgen", "not run: give --peers", "0.97 to 1.03", None))
    return goals


def latency(report: BenchmarkReport) -> float:
    """The first model's median in ms."""
    summary = of(report, "first").latency_ms
    if summary is None:
        raise RuntimeError(f"no latency: {of(report, 'first').error}")
    return summary.median


def script(python: str, name: str, model: Path) -> float:
    """The median in ms that another way of timing prints."""
    command = [python, str(_HERE / "fidelity" / name), str(model), "1", str(_ALONE_S)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-1])


def has_loadgen(python: str) -> bool:
    """Whether a Python has MLPerf's load generator."""
    return (
        subprocess.run(
            [python, "-c", "import mlperf_loadgen, onnxruntime"], check=False, capture_output=True
        ).returncode
        == 0
    )


def order(bench: Bench, _: Path) -> list[Goal]:
    """The list of models in both orders."""
    parent = tower(bench.folder / "parent.onnx", _LAYERS)
    child = tower(bench.folder / "child.onnx", _LAYERS + 1)
    gaps = []
    for number in range(_TURNS):
        one, other = (
            of(bench.run(parent, child, number, swapped=swapped), "second").speedup for swapped in (False, True)
        )
        if one is None or other is None:
            raise RuntimeError("no speed-up")
        gaps.append(math.log(other.value / one.value))
        print(f"  order {number + 1}/{_TURNS}: {told(one)} and {told(other)}", flush=True)
    mean, error = statistics.mean(gaps), statistics.stdev(gaps) / math.sqrt(len(gaps))
    reach = 2.78 * error  # Student's t with 4 degrees of freedom
    said = f"ratio {math.exp(mean):.3f} [{math.exp(mean - reach):.3f}, {math.exp(mean + reach):.3f}]"
    return [Goal("speed-up in one order over that in the other", said, "interval holds 1", abs(mean) <= reach)]


SECTIONS: dict[str, Callable[[Bench, Path], list[Goal]]] = {
    "same": same,
    "burner": burner,
    "slower": slower,
    "alone": alone,
    "order": order,
}


def main() -> int:
    """Run the sections that are named; 1 where a goal is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sections", nargs="*", choices=[*SECTIONS, []], default=[])
    parser.add_argument("--model", type=Path, default=_HERE.parent / "examples" / "fashion_cnn.onnx")
    parser.add_argument("--runs", type=int, default=40)
    parser.add_argument("--budget", type=float, default=20.0, help="seconds for each run")
    parser.add_argument("--peers", default=sys.executable, help="Python that has mlcommons-loadgen and onnxruntime")
    options = parser.parse_args()
    goals = []
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder), options.runs, options.budget, options.peers)
        for name in options.sections or SECTIONS:
            print(f"{name} (load {os.getloadavg()[0]:.1f})", flush=True)
            goals += SECTIONS[name](bench, options.model.resolve())
    print("\n" + "\n".join(goal.line() for goal in goals))
    return 1 if any(goal.met is False for goal in goals) else 0


if __name__ == "__main__":
    sys.exit(main())
