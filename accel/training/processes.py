"""A training in several processes, on this host or on more: torchrun starts and watches them.

Each process has the same weights and a part of every batch; gradients are averaged over all (DistributedDataParallel), so that a
step is the step of one process with the whole batch. What is not the same: BatchNormalization in training takes the statistics of
each process's own rows, and Dropout draws for each process anew.
"""

from __future__ import annotations

import os
import selectors
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import uuid4

from pydantic import ValidationError

from accel.benchmark.environment import usable_cores
from accel.data.dataset import open_dataset
from accel.errors import EngineFailed, TrainingFailed
from accel.events import Checkpoint, Failed, Progress
from accel.request.training import Rendezvous, TrainRequest
from accel.training import telling
from accel.training.fit import Hooks
from accel.training.telling import Ended, EpochEnded, Said
from accel.training.trained import Trained
from accel.training.worker import CANCEL

_LOOK_S = 0.5
"""How often it is asked whether the training is cancelled."""
_LOOPBACK = ("127.", "localhost", "[::1]")


def launch(request: TrainRequest, hooks: Hooks) -> Trained:
    """Start the processes of this host, and follow them to their end. None is left behind.

    Args:
        request: The training.
        hooks: Whom to tell, and who may cancel it.

    Raises:
        EngineFailed: A process answered that it cannot be done; ``code`` is its own, and ``files`` have what was made of use before.
        TrainingFailed: A process ended without an answer, or they did not find together.
    """
    workspace = request.workspace.resolve()
    _unpack(request, workspace)
    (workspace / CANCEL).unlink(missing_ok=True)
    file = workspace / "request.json"
    file.write_text(request.model_dump_json())
    process = subprocess.Popen(
        [
            sys.executable,
            "-P",
            "-m",
            "accel.training.agent",
            "--parent",
            str(os.getpid()),
            *_options(request),
            str(file),
        ],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        cwd=workspace,
        env=_environment(request),
    )
    ended: Trained | None = None
    failed: Failed | None = None
    try:
        for said in _said(process, lambda: _pass_on(hooks.cancelled, workspace)):
            match said:
                case Progress():
                    hooks.tell(said.phase, said.done, said.total, said.message)
                case EpochEnded(point=point):
                    hooks.on_epoch(point)
                case Checkpoint(path=path):
                    hooks.on_checkpoint(path)
                case Ended(trained=trained):
                    ended = trained
                case Failed():
                    failed = failed or said
    finally:
        process.kill()  # its processes die with it
        process.wait()
    if failed is not None:
        error = EngineFailed(failed.code, failed.message, hint=failed.hint)
        error.files = failed.files
        raise error
    if ended is None:
        raise TrainingFailed(
            "The processes of the training ended without an answer.", hint="Look into the worker's log."
        )
    return ended


def _unpack(request: TrainRequest, workspace: Path) -> None:
    """Unpack what is compressed in the dataset once, before several processes want it."""
    dataset = open_dataset(request.dataset.path, request.dataset.spec, workspace)
    for columns in dataset.splits.values():
        for rows in columns.values():
            rows.stored.open(workspace)


def _pass_on(cancelled: Callable[[], bool], workspace: Path) -> None:
    if cancelled():
        (workspace / CANCEL).touch()


def _options(request: TrainRequest) -> list[str]:
    """Of torchrun."""
    meeting = request.rendezvous or Rendezvous(endpoint="127.0.0.1:0", hosts=1, name=uuid4().hex, address="127.0.0.1")
    found = [
        f"--nnodes={meeting.hosts}",
        f"--nproc-per-node={request.settings.processes}",
        "--max-restarts=0",
        "--monitor-interval=0.1",
        "--rdzv-backend=c10d",
        f"--rdzv-endpoint={meeting.endpoint}",
        f"--rdzv-id={meeting.name}",
        "--rdzv-conf=join_timeout=300",
    ]
    if meeting.address is not None:
        found.append(f"--local-addr={meeting.address}")
    return [*found, "-m", "accel.training.worker"]


def _environment(request: TrainRequest) -> dict[str, str]:
    threads = request.settings.threads or max(1, usable_cores() // request.settings.processes)
    found = {
        **os.environ,
        "PYTHONPATH": str(Path(__file__).resolve().parents[2]),
        "PYTHONSAFEPATH": "1",
        "ORT_DISABLE_TELEMETRY": "1",
        "JOBLIB_MULTIPROCESSING": "0",
        "TORCH_CPP_LOG_LEVEL": "ERROR",
        "OMP_NUM_THREADS": str(threads),
        "TMPDIR": str(request.workspace.resolve()),
    }
    if request.rendezvous is None or request.rendezvous.endpoint.startswith(_LOOPBACK):
        found["GLOO_SOCKET_IFNAME"] = "lo"
    return found


def _said(process: subprocess.Popen[bytes], look: Callable[[], None]) -> Iterator[Said]:
    """Yield what the processes say, until the last of them has ended; ``look`` is called now and then."""
    if process.stdout is None:
        raise RuntimeError("the agent was started without a pipe")
    held = b""
    with process.stdout as pipe, selectors.DefaultSelector() as selector:
        selector.register(pipe, selectors.EVENT_READ)
        while True:
            look()
            if not selector.select(_LOOK_S):
                continue
            piece = os.read(pipe.fileno(), 1 << 16)
            if not piece:
                return
            *lines, held = (held + piece).split(b"\n")
            for line in lines:
                try:
                    yield telling.adapter.validate_json(line)
                except ValidationError:
                    sys.stderr.write(f"not said by a training: {line[:200]!r}\n")
