"""The process of a candidate, seen from its parent: start it, ask it, end it."""

from __future__ import annotations

import collections
import contextlib
import os
import queue
import signal
import subprocess
import sys
import threading
from typing import IO, TypeVar

from accel.benchmark.orders import Answer, Broken, Loaded, Order, Ran, Ready, Samples, Served, answers
from accel.child import how_it_ended
from accel.runtimes.messages import clean

_LAST_LINES = 20
_LAST_WORD_S = 5.0
_LINE_LENGTH = 1000
_WORK = {
    Loaded.__name__: "Loading",
    Ran.__name__: "The first inference",
    Ready.__name__: "Warming up",
    Samples.__name__: "A round",
    Served.__name__: "A probe",
}
_Some = TypeVar("_Some", bound=Answer)


class Lost(Exception):
    """A candidate cannot be measured any more; the text says why."""


class Process:
    """A candidate's process. Use it as a context: whatever happens, it is ended."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "accel.benchmark.candidate", str(os.getpid())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            errors="replace",
        )
        if self._process.stdin is None or self._process.stdout is None or self._process.stderr is None:
            raise RuntimeError("the process was started without pipes")
        self._stdin = self._process.stdin
        self._lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._stderr: collections.deque[str] = collections.deque(maxlen=_LAST_LINES)
        # Threads that sleep in a read: they take no processor time while another candidate is measured.
        self._readers = (
            threading.Thread(target=self._listen, args=(self._process.stdout,), daemon=True),
            threading.Thread(target=self._keep, args=(self._process.stderr,), daemon=True),
        )
        for reader in self._readers:
            reader.start()

    @property
    def pid(self) -> int:
        """The process's id; the model is in its child."""
        return self._process.pid

    def send(self, order: Order) -> None:
        """Give an order; that the process is gone shows when its answer is awaited."""
        with contextlib.suppress(BrokenPipeError):
            self._stdin.write(order.model_dump_json() + "\n")
            self._stdin.flush()

    def hear(self, expected: type[_Some], timeout_s: float) -> _Some:
        """Wait for an answer.

        Raises:
            Lost: The process says that it cannot, has ended, or does not answer in time.
        """
        try:
            line = self._lines.get(timeout=timeout_s)
        except queue.Empty:
            raise Lost(
                f"{_WORK[expected.__name__]} did not end within {timeout_s:.3g} s; its process was killed."
            ) from None
        if line is None:
            raise Lost(self._how_it_ended())
        match answers.validate_json(line):
            case Broken(message=message):
                raise Lost(message)
            case answer if isinstance(answer, expected):
                return answer
            case other:
                raise TypeError(f"{expected.__name__} was expected, not {other.answer}")

    def end(self) -> None:
        """End the process and whatever it started, and wait until its memory is given back; a second time it does nothing."""
        if self._stdin.closed:
            return
        self._process.terminate()
        self._process.send_signal(signal.SIGCONT)  # a process that is stopped hears nothing
        try:
            self._process.wait(_LAST_WORD_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        for reader in self._readers:
            reader.join()
        with contextlib.suppress(BrokenPipeError):
            self._stdin.close()

    def _how_it_ended(self) -> str:
        for reader in self._readers:
            reader.join()
        phrase = f"Its process {how_it_ended(self._process.wait())}"
        last = next((line.strip() for line in reversed(self._stderr) if line.strip()), "")
        return f"{phrase}: {clean(last)}" if last else f"{phrase}."

    def _listen(self, stdout: IO[str]) -> None:
        with stdout:
            for line in stdout:
                self._lines.put(line)
        self._lines.put(None)

    def _keep(self, stderr: IO[str]) -> None:
        with stderr:
            # In pieces: a line may be as long as its writer likes.
            self._stderr.extend(iter(lambda: stderr.readline(_LINE_LENGTH), ""))
