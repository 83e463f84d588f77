"""Score one file on one runtime, in a process of its own: ``python -m quantization.score`` with a task on standard input.

The peers' interpreter can run it too, where the runtime is OpenVINO by its own package.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np

from quantization.bundle import Array, Bundle, Samples
from quantization.metrics import Judge

OPENVINO = "openvino"
_BATCH = 16

Feed = dict[str, Array]
Run = Callable[[Feed], Array]


def main() -> int:
    """Run the model on the test split and write the outcome; the last line of standard error says what failed."""
    task = json.load(sys.stdin)
    bundle, model = Bundle.load(Path(task["bundle"])), Path(task["model"])
    samples, output = Samples(bundle, "test"), bundle.binding["output"]
    judge = Judge(bundle, samples)
    try:
        if task["saturating"]:
            model = _saturating(model)
        run = _openvino(model, output) if task["runtime"] == OPENVINO else _session(model, task["runtime"], output)
        for span in samples.spans(batch=_BATCH):
            judge.add(run(samples.feed(*span)), *span)
    except Exception as error:  # noqa: BLE001  (whatever a runtime raises is how it failed)
        lines = str(error).strip().splitlines() or [type(error).__name__]
        print(lines[-1], file=sys.stderr, flush=True)
        return 1
    np.savez(Path(task["outcome"]), allow_pickle=False, **judge.outcome())
    return 0


def _saturating(model: Path) -> Path:
    """A copy beside this process's output that computes as processors without VNNI do."""
    from accel.graph.load import load, save
    from accel.graph.saturating import saturating

    path = Path("saturating.onnx").resolve()
    save(saturating(load(model)), path)
    return path


def _session(model: Path, runtime: str, output: str) -> Run:
    from accel.runtimes.onnxruntime import open_session

    session = open_session(model, runtime)
    return lambda feed: session.run(feed, [output])[output]


def _openvino(model: Path, output: str) -> Run:
    import openvino

    compiled = openvino.Core().compile_model(model, "CPU")
    taken = {name for port in compiled.inputs for name in port.names}
    return lambda feed: np.array(compiled({name: array for name, array in feed.items() if name in taken})[output])


if __name__ == "__main__":
    sys.exit(main())
