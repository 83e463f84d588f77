"""Score one file on one runtime, in a process of its own: ``python -m quantization.score`` with a task on standard input."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np

from quantization.bundle import Bundle, Samples
from quantization.metrics import Judge

_BATCH = 16


def main() -> int:
    """Run the model on the test split and write the outcome; the last line of standard error says what failed."""
    from accel.errors import AccelError
    from accel.runtimes.onnxruntime import open_session

    task = json.load(sys.stdin)
    bundle = Bundle.load(Path(task["bundle"]))
    samples, output = Samples(bundle, "test"), bundle.binding["output"]
    judge = Judge(bundle, samples)
    try:
        session = open_session(Path(task["model"]), task["runtime"])
        for span in samples.spans(batch=_BATCH):
            judge.add(session.run(samples.feed(*span), [output])[output], *span)
    except AccelError as error:
        print(error.message, file=sys.stderr, flush=True)
        return 1
    np.savez(Path(task["outcome"]), allow_pickle=False, **judge.outcome())
    return 0


if __name__ == "__main__":
    sys.exit(main())
