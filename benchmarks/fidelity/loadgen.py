"""Time one model with MLPerf's load generator, SingleStream: ``python loadgen.py model.onnx threads seconds`` prints the median in ms."""

from __future__ import annotations

import re
import sys
import tempfile
import time
from pathlib import Path

import mlperf_loadgen as loadgen
from bare import session_of


def main() -> None:
    """Warm up, then let the generator ask."""
    path, threads, seconds = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
    session, feed = session_of(path, threads)
    warm = time.perf_counter() + 0.3
    while time.perf_counter() < warm:
        session.run(None, feed)

    def issue(samples: list[loadgen.QuerySample]) -> None:
        for sample in samples:
            session.run(None, feed)
            loadgen.QuerySamplesComplete([loadgen.QuerySampleResponse(sample.id, 0, 0)])

    settings = loadgen.TestSettings()
    settings.scenario = loadgen.TestScenario.SingleStream
    settings.mode = loadgen.TestMode.PerformanceOnly
    settings.min_duration_ms = settings.max_duration_ms = int(1000 * seconds)
    settings.min_query_count = 1
    with tempfile.TemporaryDirectory() as folder:
        logs = loadgen.LogSettings()
        logs.log_output.outdir = folder
        under_test = loadgen.ConstructSUT(issue, lambda: None)
        library = loadgen.ConstructQSL(1, 1, lambda _: None, lambda _: None)
        loadgen.StartTestWithLogSettings(under_test, library, settings, logs)
        loadgen.DestroyQSL(library)
        loadgen.DestroySUT(under_test)
        summary = Path(folder, "mlperf_log_summary.txt").read_text()
    found = re.search(r"50\.00 percentile latency \(ns\)\s*:\s*(\d+)", summary)
    if found is None:
        raise SystemExit(f"the load generator says no median:\n{summary}")
    print(int(found[1]) / 1e6)


if __name__ == "__main__":
    main()
