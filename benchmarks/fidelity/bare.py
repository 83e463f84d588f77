"""Time one model with nothing but ONNX Runtime: ``python bare.py model.onnx threads seconds`` prints the median in ms."""

from __future__ import annotations

import os
import statistics
import sys
import time

os.environ["ORT_DISABLE_TELEMETRY"] = "1"

import numpy as np
import onnxruntime as ort

_NUMBERS = {"tensor(float)": np.float32, "tensor(int64)": np.int64, "tensor(int32)": np.int32}


def session_of(path: str, threads: int) -> tuple[ort.InferenceSession, dict[str, np.ndarray]]:
    """A session as anybody would open it, and an input of one sample."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    chance = np.random.default_rng(0)
    feed = {
        port.name: chance.standard_normal([d if isinstance(d, int) else 1 for d in port.shape]).astype(
            _NUMBERS[port.type]
        )
        for port in session.get_inputs()
    }
    return session, feed


def main() -> None:
    """Warm up, then time call after call."""
    path, threads, seconds = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
    session, feed = session_of(path, threads)
    samples: list[float] = []
    warm = time.perf_counter() + 0.3
    until = warm + seconds
    while (begun := time.perf_counter()) < until:
        session.run(None, feed)
        if begun > warm:
            samples.append(time.perf_counter() - begun)
    print(1e3 * statistics.median(samples))


if __name__ == "__main__":
    main()
