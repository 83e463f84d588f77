"""Makes files by ours and by the peers, scores them, and measures their speed: each in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from quantization.bundle import Bundle
from quantization.metrics import Outcome
from quantization.process import Bounds, Ended, run
from quantization.score import OPENVINO

HERE = Path(__file__).resolve().parents[1]
CPU = "onnxruntime:cpu"
_MEMORY_BYTES = 12e9
_REASON = 220
_PASSED_ON = ("PATH", "LANG", "LC_ALL", "TZ", "LD_LIBRARY_PATH", "OMP_NUM_THREADS", "OPENBLAS_CORETYPE")
_QUIET = {"ORT_DISABLE_TELEMETRY": "1", "NNCF_CI": "1", "PYTHONDONTWRITEBYTECODE": "1"}
"""``NNCF_CI`` is how nncf's own checks keep it from sending usage data."""


@dataclass(frozen=True)
class Extent:
    """How much is measured."""

    repeats: int
    """Turns of each candidate where times are compared."""
    rows: int | None
    """Samples to judge on, at most."""
    many: int
    """Samples for the memory of many samples."""
    rounds: int
    """Rounds of a latency measurement."""
    seconds: float
    """Longest that a process may run."""


FULL = Extent(repeats=3, rows=None, many=5_000, rounds=20, seconds=3_600)
QUICK = Extent(repeats=1, rows=100, many=400, rounds=4, seconds=600)


@dataclass(frozen=True)
class Made:
    """What a side made of a model, or why not."""

    who: str
    path: Path
    error: str | None
    call_s: float | None
    """The compression alone: without imports and, for ours, without the proof that follows each step."""
    wall_s: float
    peak_bytes: int
    """Of the whole process, imports and proof included."""
    report: dict[str, Any] = field(default_factory=dict)

    def figures(self) -> dict[str, Any]:
        """For the JSON file."""
        return {
            "error": self.error,
            "call_s": self.call_s,
            "wall_s": self.wall_s,
            "peak_bytes": self.peak_bytes,
            "size_bytes": self.size_bytes,
            "report": self.report,
        }

    @property
    def size_bytes(self) -> int | None:
        """Size of the file."""
        return None if self.error else self.path.stat().st_size


@dataclass(frozen=True)
class Scored:
    """The outcome of a file on a runtime, or why there is none."""

    outcome: Outcome | None
    error: str | None


class Workbench:
    """Where everything happens: a temporary folder, the interpreter of the peers, the data."""

    def __init__(self, folder: Path, data: Path, peers: Path, extent: Extent) -> None:
        self._folder, self._data, self._peers, self.extent = folder, data, peers, extent
        self._bundles: dict[tuple[str, int | None], Bundle] = {}
        self._count = 0
        available = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        self.bounds = Bounds(extent.seconds, min(_MEMORY_BYTES, 0.75 * available))
        self.host = self._describe_host()

    @cached_property
    def runtimes(self) -> list[str]:
        """Names of the runtimes that this host has, and OpenVINO where the peers' interpreter has its own package."""
        found = [
            runtime["name"]
            for runtime in self.host["runtimes"]
            if runtime["available"] and not runtime["name"].startswith("torch:")  # which no peer is measured on
        ]
        command = [str(self._peers), "-c", "import openvino"]
        return (
            [*found, OPENVINO] if subprocess.run(command, check=False, capture_output=True).returncode == 0 else found
        )

    def bundle(self, name: str, *, repeat_to: int | None = None) -> Bundle:
        """A model with its data, made once.

        Raises:
            RuntimeError: It cannot be made, because data or model are not there.
        """
        key = (name, repeat_to)
        if key not in self._bundles:
            folder = self._new_folder(f"{name}, data")
            task = {
                "name": name,
                "data": str(self._data.resolve()),
                "folder": str(folder),
                "rows": self.extent.rows,
                "repeat_to": repeat_to,
            }
            ended = self._module(sys.executable, "quantization.labelled", task, folder)
            if ended.code:
                raise RuntimeError(f"the data of {name} cannot be made: {ended.reason}")
            self._bundles[key] = Bundle.load(folder / "bundle.json")
        return self._bundles[key]

    def ours(self, bundle: Bundle, steps: Sequence[dict[str, Any]], who: str) -> Made:
        """Apply a recipe by the engine, as a worker of the service starts it."""
        folder = self._new_folder(f"{bundle.name}, {who}")
        names = [f"result-{number}" for number in range(1, len(steps) + 1)]
        ended, answer = self._engine(
            {
                "kind": "compress",
                "model": {"model_id": "parent", "path": str(bundle.model)},
                "dataset": {"path": str(bundle.data), "spec": bundle.spec},
                "binding": bundle.binding,
                "steps": list(steps),
                "result_ids": names,
            },
            folder,
        )
        path = folder / f"{names[-1]}.onnx"
        if answer.get("event") != "done":
            reason = f"{answer['code']}: {answer['message']}" if "message" in answer else ended.reason
            return Made(who, path, reason, None, ended.wall_s, ended.peak_bytes)
        report = answer["report"]
        seconds = sum(step["seconds"] for step in report["steps"])
        return Made(who, path, None, seconds, ended.wall_s, ended.peak_bytes, report)

    def peer(self, bundle: Bundle, who: str) -> Made:
        """Let a peer do its work."""
        folder = self._new_folder(f"{bundle.name}, {who}")
        path = folder / "result.onnx"
        task = {"peer": who, "bundle": str(bundle.data.parent / "bundle.json"), "result": str(path)}
        ended = self._module(str(self._peers), "quantization.peers", task, folder)
        answer = _last_line(ended)
        if "seconds" not in answer or not path.exists():
            reason = " ".join(answer.get("error", ended.reason).split())[:_REASON]
            return Made(who, path, reason, None, ended.wall_s, ended.peak_bytes)
        return Made(who, path, None, answer["seconds"], ended.wall_s, ended.peak_bytes)

    def score(self, bundle: Bundle, model: Path, runtime: str = CPU, *, saturating: bool = False) -> Scored:
        """Run a file on the test split.

        Args:
            bundle: The model's data.
            model: The file.
            runtime: Where it runs: a runtime of this host, or OpenVINO by its own package.
            saturating: Whether sums of two products saturate at 16 bits, by emulation.
        """
        folder = self._new_folder(f"{bundle.name}, score{' with saturation' if saturating else ''} on {runtime}")
        task = {
            "bundle": str(bundle.data.parent / "bundle.json"),
            "model": str(model),
            "runtime": runtime,
            "saturating": saturating,
            "outcome": str(folder / "outcome.npz"),
        }
        python = str(self._peers) if runtime == OPENVINO else sys.executable
        ended = self._module(python, "quantization.score", task, folder)
        if ended.code:
            return Scored(None, ended.reason)
        with np.load(folder / "outcome.npz") as archive:
            return Scored({name: archive[name] for name in archive.files}, None)

    def latency(self, bundle: Bundle, models: Mapping[str, Path], threads: Sequence[int]) -> list[dict[str, Any]]:
        """Measure the first model and the others against it, rounds interleaved.

        Raises:
            RuntimeError: The engine could not.
        """
        folder = self._new_folder(f"{bundle.name}, latency")
        ended, answer = self._engine(
            {
                "kind": "benchmark",
                "models": [{"model_id": name, "path": str(path)} for name, path in models.items()],
                "baseline_id": next(iter(models)),
                "runtimes": [CPU],
                "threads": list(threads),
                "rounds": self.extent.rounds,
                "shapes": bundle.shapes,
            },
            folder,
        )
        if answer.get("event") != "done":
            raise RuntimeError(answer.get("message") or ended.reason)
        return list(answer["report"]["measurements"])

    def _describe_host(self) -> dict[str, Any]:
        ended, answer = self._engine({"kind": "describe_host"}, self._new_folder("host"))
        if answer.get("event") != "done":
            raise RuntimeError(f"the engine does not run: {answer.get('message') or ended.reason}")
        return dict(answer["report"])

    def _engine(self, request: dict[str, Any], folder: Path) -> tuple[Ended, dict[str, Any]]:
        workspace = folder / "workspace"
        workspace.mkdir()
        request = {"workspace": str(workspace), **request}
        environment = self._environment(workspace, HERE.parent)
        ended = run(
            [sys.executable, "-P", "-m", "accel", "--parent", str(os.getpid())],
            request,
            folder=folder,
            environment=environment,
            bounds=self.bounds,
        )
        for result in workspace.glob("result-*.onnx"):
            result.replace(folder / result.name)
        return ended, _last_line(ended)

    def _module(self, python: str, module: str, task: dict[str, Any], folder: Path) -> Ended:
        environment = self._environment(folder, HERE, HERE.parent)
        return run([python, "-P", "-m", module], task, folder=folder, environment=environment, bounds=self.bounds)

    def _environment(self, home: Path, *places: Path) -> dict[str, str]:
        kept = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
        path = os.pathsep.join(str(place) for place in places)
        return {**kept, **_QUIET, "HOME": str(home), "TMPDIR": str(home), "PYTHONPATH": path}

    def _new_folder(self, what: str) -> Path:
        self._count += 1
        print(f"{self._count:4} {what}", file=sys.stderr, flush=True)
        folder = self._folder / f"{self._count:04}"
        folder.mkdir()
        return folder


def _last_line(ended: Ended) -> dict[str, Any]:
    """The answer of a process: the last line that it wrote, nothing where it was stopped or died before."""
    lines = ended.stdout.splitlines()
    try:
        return dict(json.loads(lines[-1])) if lines and not ended.stopped else {}
    except ValueError:  # it died in the middle of the line
        return {}
