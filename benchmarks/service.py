"""How quick the service itself is, against its goals: starting jobs, answering polls, taking submissions and uploads.

``python benchmarks/service.py`` starts the local stack in a temporary folder and prints a table. The API is pinned to one
core and the load comes from another, so it needs two that are otherwise idle.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import signal
import socket
import statistics
import sys
import tempfile
import time
import uuid
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import onnx
from onnx import TensorProto, helper
from rich.console import Console
from rich.table import Table

from client.http import Accel
from client.local import LocalStack

_JOBS = 40
_LOAD_S = 5.0
_CONNECTIONS = 16
_UPLOAD_BYTES = 1 << 30
_UPLOADS = 4
_BLOCK = 1 << 20

console = Console() if sys.stdout.isatty() else Console(width=110)


@dataclass(frozen=True)
class Figure:
    """One figure beside its goal."""

    what: str
    measured: str
    goal: str
    met: bool


def percentile(values: list[float], share: float) -> float:
    """The value that ``share`` of all do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, round(share * len(ordered)))]


def smallest_model(path: Path) -> Path:
    """A model of one operator."""
    ports = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 4]) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "smallest", ports[:1], ports[1:])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10), path)
    return path


def jobs(api: Accel, model_id: str) -> list[Figure]:
    """One smallest job after the other on an idle service."""
    body = {"model_id": model_id, "steps": [{"technique": "optimize_graph"}]}
    waits, wholes = [], []
    for _ in range(_JOBS):
        sent = time.time()
        job = api.wait(api.submit("compress", body).id)
        wholes.append(time.time() - sent)
        waits.append(datetime.fromisoformat(str((job.model_extra or {})["started_at"])).timestamp() - sent)
    p50, p95 = (1e3 * percentile(waits, share) for share in (0.5, 0.95))
    whole = statistics.median(wholes)
    return [
        Figure("submit to start, idle", f"p50 {p50:.0f} ms, p95 {p95:.0f} ms", "p95 <= 100 ms", p95 <= 100),
        Figure(
            "smallest job, whole", f"{whole:.2f} s (p95 {percentile(wholes, 0.95):.2f} s)", "<= 1.5 s", whole <= 1.5
        ),
    ]


async def load(url: str, request: Callable[[], bytes], expected: int) -> list[float]:
    """Send requests over some connections, each after the answer of the one before; returns seconds of each."""
    parts = urlsplit(url)
    until = time.perf_counter() + _LOAD_S
    took: list[float] = []

    async def one() -> None:
        reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
        while time.perf_counter() < until:
            begun = time.perf_counter()
            writer.write(request())
            head = await reader.readuntil(b"\r\n\r\n")
            status = int(head.split(b" ", 2)[1])
            if status != expected:
                raise RuntimeError(f"HTTP {status} instead of {expected}: {head!r}")
            (length,) = (int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
            await reader.readexactly(length)
            took.append(time.perf_counter() - begun)
        writer.close()

    await asyncio.gather(*(one() for _ in range(_CONNECTIONS)))
    return took


def polls(stack: LocalStack, job_id: str) -> Figure:
    """GET of one job, as callers poll it."""
    request = f"GET /v1/jobs/{job_id} HTTP/1.1\r\nHost: accel\r\n\r\n".encode()
    took = asyncio.run(load(stack.url, lambda: request, 200))
    rate, p99 = len(took) / _LOAD_S, 1e3 * percentile(took, 0.99)
    return Figure(
        "GET of a job, one core",
        f"{rate:,.0f}/s, p99 {p99:.1f} ms",
        ">= 1,500/s, p99 <= 25 ms",
        rate >= 1500 and p99 <= 25,
    )


def submits(stack: LocalStack, model_id: str) -> Figure:
    """POST of jobs, each with an idempotency key."""
    body = json.dumps({"model_id": model_id, "steps": [{"technique": "optimize_graph"}]}).encode()

    def request() -> bytes:
        head = (
            f"POST /v1/jobs/compress HTTP/1.1\r\nHost: accel\r\nContent-Type: application/json\r\n"
            f"Idempotency-Key: {uuid.uuid4()}\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        return head.encode() + body

    took = asyncio.run(load(stack.url, request, 202))
    rate = len(took) / _LOAD_S
    return Figure(
        "submits, one core", f"{rate:,.0f}/s, p99 {1e3 * percentile(took, 0.99):.0f} ms", ">= 300/s", rate >= 300
    )


@contextlib.contextmanager
def paused(pid: int) -> Iterator[None]:
    """Keep a process and what it started from taking processor time."""
    os.killpg(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.killpg(pid, signal.SIGCONT)


def pin(pid: int, core: int) -> None:
    """Bind every thread of a process to one core."""
    for thread in Path(f"/proc/{pid}/task").iterdir():
        os.sched_setaffinity(int(thread.name), {core})


def large_dataset(path: Path, seed: int) -> Path:
    """An npz file of 1 GiB of random bytes; what is known already would not be kept again, so each has its own."""
    rows = _UPLOAD_BYTES >> 20
    chance = np.random.default_rng(seed)
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_STORED, allowZip64=True) as archive,
        archive.open("x_test.npy", "w", force_zip64=True) as member,
    ):
        header = {"descr": "|u1", "fortran_order": False, "shape": (rows, 1024, 1024)}
        np.lib.format.write_array_header_1_0(member, header)
        for _ in range(rows):
            member.write(chance.bytes(_BLOCK))
    return path


def bare(source: Path, target: Path) -> float:
    """Hash, write and fsync of the same file, block by block; MB/s."""
    begun = time.perf_counter()
    digest = hashlib.sha256()
    with source.open("rb") as file, target.open("wb") as copy:
        while block := file.read(_BLOCK):
            digest.update(block)
            copy.write(block)
        copy.flush()
        os.fsync(copy.fileno())
    took = time.perf_counter() - begun
    target.unlink()
    return source.stat().st_size / 1e6 / took


def send(url: str, path: Path) -> float:
    """Upload the file as a dataset, by the kernel's sendfile, so that the sender costs little; MB/s."""
    parts, boundary = urlsplit(url), uuid.uuid4().hex
    lead = (
        f'--{boundary}\r\nContent-Disposition: form-data; name="name"\r\n\r\nlarge\r\n--{boundary}\r\n'
        'Content-Disposition: form-data; name="file"; filename="large.npz"\r\n'
        "Content-Type: application/octet-stream\r\n\r\n"
    ).encode()
    tail = f"\r\n--{boundary}--\r\n".encode()
    size = path.stat().st_size
    begun = time.perf_counter()
    with socket.create_connection((parts.hostname or "", parts.port or 80)) as connection, path.open("rb") as file:
        length = len(lead) + size + len(tail)
        connection.sendall(
            f"POST /v1/datasets HTTP/1.1\r\nHost: accel\r\nContent-Type: multipart/form-data; boundary={boundary}\r\n"
            f"Content-Length: {length}\r\nConnection: close\r\n\r\n".encode()
            + lead
        )
        connection.sendfile(file)
        connection.sendall(tail)
        answer = b"".join(iter(lambda: connection.recv(65_536), b""))
    took = time.perf_counter() - begun
    if not answer.startswith(b"HTTP/1.1 201"):
        raise RuntimeError(answer[:500].decode(errors="replace"))
    return size / 1e6 / took


def uploads(stack: LocalStack, folder: Path) -> list[Figure]:
    """Uploads of 1 GiB, in turn with a bare loop over the same file."""
    ours: list[float] = []
    theirs: list[float] = []
    for seed in range(_UPLOADS):
        path = large_dataset(folder / "large.npz", seed)
        turns = [
            lambda path=path: theirs.append(bare(path, stack.home / "files" / "bare.tmp")),
            lambda path=path: ours.append(send(stack.url, path)),
        ]
        for turn in turns if seed % 2 else reversed(turns):
            os.sync()  # nobody pays for what another has left to be written
            turn()
    ratio = statistics.median(o / t for o, t in zip(ours, theirs, strict=True))
    status = Path(f"/proc/{stack.pids()['api']}/status").read_text()
    peak = int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1]) / 1024
    speed, plain = statistics.median(ours), statistics.median(theirs)
    return [
        Figure(
            "upload of 1 GiB, with its inspection",
            f"{speed:,.0f} MB/s, bare loop {plain:,.0f} MB/s, ratio {ratio:.2f}",
            "ratio >= 0.6",
            ratio >= 0.6,
        ),
        Figure("memory of the API, at most", f"{peak:.0f} MB", "<= 150 MB", peak <= 150),
    ]


def main() -> int:
    """Measure everything, print a table; 1 where a goal was missed."""
    cores = sorted(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory(prefix="accel-bench-") as folder:
        stack = LocalStack(Path(folder) / "home", port=0, say=console.print)
        stack.start()
        try:
            with Accel(stack.url) as api:
                model = api.upload_model(smallest_model(Path(folder) / "smallest.onnx"))
                figures = jobs(api, model.id)
                job = next(api.jobs())
                pids = stack.pids()
                with paused(pids["worker"]), paused(pids["reaper"]):
                    figures += uploads(stack, Path(folder))
                    pin(pids["api"], cores[0])
                    os.sched_setaffinity(0, {cores[-1]})
                    figures += [polls(stack, job.id), submits(stack, model.id)]
        finally:
            os.sched_setaffinity(0, set(cores))
            stack.stop()
    table = Table(title="The service against its goals")
    for heading in ("what", "measured", "goal", ""):
        table.add_column(heading)
    for figure in figures:
        table.add_row(figure.what, figure.measured, figure.goal, "met" if figure.met else "MISSED")
    console.print(table)
    return 0 if all(figure.met for figure in figures) else 1


if __name__ == "__main__":
    sys.exit(main())
