"""What evaluations cost: a pass over a split beside a bare loop over ONNX Runtime, and memory on ten times as many samples.

``python benchmarks/evaluation.py --data DIR`` needs ``fashion_resnet.onnx`` and ``fashion_mnist.npz`` there. Ours and the bare loop
run in turn, each in a process of its own, with the same batches; what is timed begins with the first batch and ends when every
prediction is kept (ours) or computed (the bare loop). A whole evaluation also computes metrics, intervals and comparisons, whose
arithmetic holds a few vectors of one number a sample.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from quantization.process import Bounds, Ended, run
from quantization.table import Goal, table

_HERE = Path(__file__).resolve()
_ROWS, _MANY = 10_000, 100_000
_BATCHES = (32, 256)
_TURNS = 9
_WARM_UP = 20
"""Batches that are run before anything is timed."""
_RATIO = 1.15
_GROWTH = 0.1
"""How much more memory a pass may take over ten times as many samples."""
_STEPS = [{"step": "scale", "multiply": 1 / 255}, {"step": "add_axis", "axis": 1}]


def bare(model: str, data: str, batch_size: int) -> float:
    """Seconds of a loop as anybody would write it."""
    import onnxruntime as ort

    session = ort.InferenceSession(model, providers=["CPUExecutionProvider"])
    with np.load(data) as arrays:
        x = arrays["x_test"]

    def feed(start: int) -> dict[str, Any]:
        return {"image": (x[start : start + batch_size].astype(np.float32) * np.float32(1 / 255))[:, None]}

    for number in range(_WARM_UP):
        session.run(None, feed(number * batch_size))
    begun = time.perf_counter()
    found = [session.run(None, feed(start))[0] for start in range(0, len(x), batch_size)]
    took = time.perf_counter() - begun
    if len(np.concatenate(found)) != len(x):
        raise RuntimeError("rows are missing")
    return took


def request_of(model: str, data: str, batch_size: int, models: int) -> Any:
    """The evaluation, with a workspace in the current folder."""
    from accel.data.binding import Binding
    from accel.request import DatasetFile, EvaluateRequest, ModelFile

    return EvaluateRequest(
        workspace=Path(tempfile.mkdtemp(dir=Path.cwd())),
        models=tuple(ModelFile(model_id=f"m{number}", path=Path(model)) for number in range(models)),
        baseline_id="m0",
        dataset=DatasetFile(path=Path(data)),
        binding=Binding.model_validate({"inputs": {"image": {"column": "x", "steps": _STEPS}}}),
        batch_size=batch_size,
    )


def ours(model: str, data: str, batch_size: int) -> float:
    """Seconds of the pass of an evaluation: run, read, keep."""
    from accel.benchmark.environment import environment
    from accel.data.dataset import open_dataset
    from accel.evaluation.predict import open_subject
    from accel.evaluation.runs import Work, earlier
    from accel.evaluation.runs import run as run_model
    from accel.evaluation.truth import Truth, labels_of

    request = request_of(model, data, batch_size, 1)
    dataset = open_dataset(request.dataset.path, request.dataset.spec, request.workspace)
    subject = open_subject(request.models[0], dataset, request)
    work = Work(request, dataset, lambda *_: None, environment())
    truth = Truth(labels_of(subject.bound, "classes", 10), ("accuracy",), "classes")
    for start, stop in list(subject.bound.spans(len(subject.bound), batch_size))[:_WARM_UP]:
        subject.session.run(subject.bound.feed(start, stop))
    before = earlier(subject, work)
    begun = time.perf_counter()
    run_model(subject, before, truth, work)
    return time.perf_counter() - begun


def whole(model: str, data: str, batch_size: int, models: int = 2) -> float:
    """Seconds of a whole evaluation of a baseline and another model, with metrics, intervals and comparison."""
    from accel.evaluation.evaluate import evaluate

    begun = time.perf_counter()
    evaluate(request_of(model, data, batch_size, models), lambda *_: None)
    return time.perf_counter() - begun


def child(way: str, model: str, data: str, batch_size: int) -> None:
    """What a process of its own does; the seconds go to standard output."""
    print(json.dumps({"bare": bare, "ours": ours, "whole": whole}[way](model, data, batch_size)))


def measured(way: str, model: Path, data: Path, batch_size: int, folder: Path) -> tuple[float, Ended]:
    """Seconds, and what the process took."""
    command = [sys.executable, str(_HERE), "--child", way, str(model), str(data), str(batch_size)]
    environment = {
        **os.environ,
        "PYTHONPATH": f"{_HERE.parents[1]}:{_HERE.parent}",
        "ORT_DISABLE_TELEMETRY": "1",
        "TMPDIR": str(folder),
    }
    ended = run(command, None, folder=folder, environment=environment, bounds=Bounds(600, 8e9))
    if ended.code:
        raise RuntimeError(ended.reason)
    return float(json.loads(ended.stdout.splitlines()[-1])), ended


def repeated(data: Path, rows: int, folder: Path) -> Path:
    """The test split, as often as it takes."""
    path = folder / f"rows_{rows}.npz"
    with np.load(data) as arrays:
        x, y = arrays["x_test"], arrays["y_test"]
        times = -(-rows // len(x))
        np.savez(path, x_test=np.tile(x, (times, 1, 1))[:rows], y_test=np.tile(y, times)[:rows])
    return path


def throughput(model: Path, data: Path, turns: int, folder: Path) -> list[Goal]:
    """The pass beside the bare loop."""
    rows, goals = [], []
    for batch_size in _BATCHES:
        pairs = []
        for turn in range(turns):
            order = ("bare", "ours") if turn % 2 else ("ours", "bare")
            took = {way: measured(way, model, data, batch_size, folder)[0] for way in order}
            pairs.append((took["ours"], took["bare"]))
        ratios = sorted(one / other for one, other in pairs)
        ratio, (mine, plain) = statistics.median(ratios), map(statistics.median, zip(*pairs, strict=True))
        spread = (
            f"{ratios[0]:.2f} to {ratios[-1]:.2f}, quartiles {ratios[turns // 4]:.2f} and {ratios[-1 - turns // 4]:.2f}"
        )
        rows.append((batch_size, f"{mine:.3f} s", f"{plain:.3f} s", f"{ratio:.3f}", spread))
        goals.append(
            Goal(
                f"a pass over {_ROWS:,} samples over a bare loop, batches of {batch_size}",
                f"{ratio:.3f} ({spread})",
                f"<= {_RATIO}",
                ratio <= _RATIO,
            )
        )
    print(table(("batch size", "ours", "bare loop", "ratio", "of the turns"), rows), "\n", flush=True)
    return goals


def memory(model: Path, few: Path, many: Path, folder: Path) -> list[Goal]:
    """Peaks of the process on few and on many samples."""
    rows, goals = [], []
    for way, what in (("ours", "the pass alone"), ("whole", "a whole evaluation of two models")):
        (first_s, first), (second_s, second) = (measured(way, model, path, 32, folder) for path in (few, many))
        more = (second.peak_bytes - first.peak_bytes) / (_MANY - _ROWS)
        sides = [
            f"{ended.peak_bytes / 1e6:.0f} MB, {took:.2f} s" for took, ended in ((first_s, first), (second_s, second))
        ]
        rows.append((what, *sides, f"{more:,.0f} bytes"))
        if way == "ours":
            growth = second.peak_bytes / first.peak_bytes - 1
            said = f"{growth:+.1%} ({first.peak_bytes / 1e6:.0f} and {second.peak_bytes / 1e6:.0f} MB)"
            title = f"memory of a pass over {_MANY:,} samples over that of {_ROWS:,}"
            goals.append(Goal(title, said, f"<= {_GROWTH:+.0%}", growth <= _GROWTH))
    columns = ("peak memory and time", f"{_ROWS:,} samples", f"{_MANY:,} samples", "for each more")
    print(table(columns, rows), "\n", flush=True)
    return goals


def main() -> int:
    """Measure, print tables and goals; 1 where a goal was missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="folder of the model and its data")
    parser.add_argument("--turns", type=int, default=_TURNS)
    parser.add_argument("--child", nargs=4, metavar=("WAY", "MODEL", "DATA", "BATCH"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        way, model, data, batch_size = options.child
        child(way, model, data, int(batch_size))
        return 0
    model = (options.data / "fashion_resnet.onnx").resolve()
    with tempfile.TemporaryDirectory(prefix="accel-bench-") as name:
        folder = Path(name)
        few, many = (repeated(options.data / "fashion_mnist.npz", rows, folder) for rows in (_ROWS, _MANY))
        goals = [*throughput(model, few, options.turns, folder), *memory(model, few, many, folder)]
    print("\n".join(goal.line() for goal in goals))
    return 1 if any(goal.met is False for goal in goals) else 0


if __name__ == "__main__":
    sys.exit(main())
