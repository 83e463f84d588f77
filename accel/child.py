"""The engine as a child process, seen from its parent: start it, follow its events, end it."""

from __future__ import annotations

import collections
import contextlib
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from pydantic import ValidationError

from accel import events
from accel.benchmark.environment import THREAD_SETTINGS
from accel.errors import EngineCrashed, EngineFailed, EngineTimeout
from accel.events import Done, Event, Failed, Progress
from accel.request import EngineRequest
from accel.runtimes.plugins import SETTING

_STDERR_LINES = 40
_LINE_LENGTH = 1 << 28
"""Longest event: what is longer is no report but a child gone wrong, and must not fill its parent's memory."""
_LAST_WORD_S = 10.0
"""Time that a child has to end after it has closed its output."""
_PASSED_ON = ("PATH", "LANG", "LC_ALL", "TZ", "LD_LIBRARY_PATH", "OPENBLAS_CORETYPE", SETTING, *THREAD_SETTINGS)


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a child ended: its exit code (minus the signal that killed it), its answer, its last words."""

    returncode: int
    answer: Done | Failed | None
    stderr: str


class Child:
    """One run of the engine in a process group of its own."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self._events: queue.SimpleQueue[Event | None] = queue.SimpleQueue()
        self._stderr: collections.deque[str] = collections.deque(maxlen=_STDERR_LINES)
        self._answer: Done | Failed | None = None
        self.ended = False
        """Whether the child said its last word."""
        # Reading in threads: select() on a pipe together with buffered lines delays those that came in one write.
        self._readers = [
            threading.Thread(target=self._read_events, args=(_pipe(process.stdout),), daemon=True),
            threading.Thread(target=self._read_stderr, args=(_pipe(process.stderr),), daemon=True),
        ]
        for reader in self._readers:
            reader.start()

    @classmethod
    def start(cls, request: EngineRequest) -> Child:
        """Start the engine in ``request.workspace``, with an environment that holds no secret.

        The kernel kills the child when the calling thread ends, so call from one that lives as long as the work.
        """
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "accel", "--parent", str(os.getpid())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            errors="replace",
            cwd=request.workspace,
            env=_environment(request.workspace),
            start_new_session=True,
        )
        child = cls(process)
        stdin = _pipe(process.stdin)
        try:
            with stdin:
                stdin.write(request.model_dump_json())
        except BrokenPipeError:
            pass  # it died before it could read; its outcome tells
        return child

    @property
    def pid(self) -> int:
        """The child's process id, which is also that of its group."""
        return self._process.pid

    def next_event(self, timeout_s: float) -> Event | None:
        """The next event, or None when none came in time or the child has ended (see ``ended``)."""
        if self.ended:
            return None
        try:
            event = self._events.get(timeout=timeout_s)
        except queue.Empty:
            return None
        if event is None:
            self.ended = True
        elif isinstance(event, Done | Failed):
            self._answer = event
        return event

    def ask_to_stop(self) -> None:
        """Ask the child to come to an end and answer with what it has; most work takes no notice."""
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """End the child and whatever it started, at once."""
        # The group outlives its leader while a grandchild holds it, so it is killed even after the child has ended.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        for reader in self._readers:
            reader.join()

    def outcome(self) -> Outcome:
        """Wait for the end, and make sure that nothing is left of the child."""
        while not self.ended:
            self.next_event(timeout_s=60)
        try:
            code = self._process.wait(_LAST_WORD_S)
        except subprocess.TimeoutExpired:  # it closed its output and lives on
            self.kill()
            code = self._process.wait()
        self.kill()
        return Outcome(code, self._answer, "".join(self._stderr).strip())

    def _read_events(self, stdout: IO[str]) -> None:
        with stdout:
            for line in iter(lambda: stdout.readline(_LINE_LENGTH), ""):
                try:
                    self._events.put(events.adapter.validate_json(line))
                except ValidationError:
                    self._stderr.append(f"not an event: {line[:200]}\n")
        self._events.put(None)

    def _read_stderr(self, stderr: IO[str]) -> None:
        with stderr:
            # In pieces: a line may be as long as its writer likes.
            self._stderr.extend(iter(lambda: stderr.readline(1000), ""))


def call(request: EngineRequest, *, timeout_s: float, on_progress: Callable[[Progress], None] | None = None) -> Done:
    """Run the engine to its end.

    Raises:
        EngineFailed: It answered that the work cannot be done; ``code`` is its own.
        EngineCrashed: It ended without an answer.
        EngineTimeout: It took longer than ``timeout_s`` and was killed.
    """
    child = Child.start(request)
    until = time.monotonic() + timeout_s
    try:
        while not child.ended:
            left = until - time.monotonic()
            if left <= 0:
                raise EngineTimeout(
                    f"The engine did not finish {request.kind} within {timeout_s:g} s.",
                    hint="The file may be too large or made to be slow.",
                )
            event = child.next_event(left)
            if isinstance(event, Progress) and on_progress is not None:
                on_progress(event)
    finally:
        if not child.ended:
            child.kill()
    return answer(child.outcome(), request.kind)


def answer(outcome: Outcome, kind: str) -> Done:
    """What the engine answered.

    Raises:
        EngineFailed: The work cannot be done.
        EngineCrashed: There is no answer; the message says how the process ended.
    """
    match outcome.answer:
        case Done():
            return outcome.answer
        case Failed(code=code, message=message, hint=hint):
            raise EngineFailed(code, message, hint=hint)
        case None:
            raise EngineCrashed(
                f"The engine's process {how_it_ended(outcome.returncode)} in the middle of {kind}.",
                hint="Killed processes often ran out of memory: use a smaller batch or model, or a larger worker.",
            )


def how_it_ended(returncode: int) -> str:
    """A phrase for an exit code, such as "was killed by SIGSEGV"."""
    if returncode >= 0:
        return f"ended with exit code {returncode}"
    try:
        return f"was killed by {signal.Signals(-returncode).name}"
    except ValueError:
        return f"was killed by signal {-returncode}"


def _environment(workspace: Path) -> dict[str, str]:
    here = str(Path(__file__).resolve().parents[1])
    kept = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    return {
        **kept,
        "HOME": str(workspace),
        "TMPDIR": str(workspace),
        "PYTHONPATH": here,
        "PYTHONDONTWRITEBYTECODE": "1",
        "ORT_DISABLE_TELEMETRY": "1",
    }


def _pipe(stream: IO[str] | None) -> IO[str]:
    if stream is None:
        raise RuntimeError("the child was started without pipes")
    return stream
