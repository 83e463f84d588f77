"""Run one candidate in a process of its own and see what it takes: wall time and peak memory."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

_LOOK_S = 0.05
_PAGE = os.sysconf("SC_PAGE_SIZE")
_REASON = 220


@dataclass(frozen=True)
class Ended:
    """How a process ended."""

    code: int
    wall_s: float
    peak_bytes: int
    stdout: str
    stderr: str
    stopped: str | None
    """Why it was stopped, where it was."""

    @property
    def reason(self) -> str:
        """Why there is no result, in a line."""
        if self.stopped is not None:
            return self.stopped
        lines = [line.strip() for line in self.stderr.splitlines() if line.strip()]
        how = f"exit code {self.code}" if self.code >= 0 else f"killed by {signal.Signals(-self.code).name}"
        return f"{how}: {lines[-1]}"[:_REASON] if lines else how


@dataclass(frozen=True)
class Bounds:
    """What a process may take before it is stopped."""

    seconds: float
    memory_bytes: float


def run(
    command: Sequence[str], message: object, *, folder: Path, environment: Mapping[str, str], bounds: Bounds
) -> Ended:
    """Run a command to its end.

    The peak is the kernel's figure (``ru_maxrss`` of :func:`os.wait4`). It cannot be below what this process itself held
    when it started the command, so this one stays small and says how large it is.

    Args:
        command: Program and arguments.
        message: What it reads from standard input, as JSON.
        folder: Its working directory, where its output is kept too.
        environment: All of its environment.
        bounds: Time and memory.
    """
    streams = {name: folder / f"{name}.txt" for name in ("stdin", "stdout", "stderr")}
    streams["stdin"].write_text(json.dumps(message))
    with contextlib.ExitStack() as stack:
        stdin = stack.enter_context(streams["stdin"].open())
        stdout, stderr = (stack.enter_context(streams[name].open("w")) for name in ("stdout", "stderr"))
        begun = time.perf_counter()
        process = subprocess.Popen(
            list(command), stdin=stdin, stdout=stdout, stderr=stderr, cwd=folder, env=dict(environment)
        )
        stops: list[str] = []
        over = threading.Event()
        guard = threading.Thread(target=_guard, args=(process.pid, os.pidfd_open(process.pid), bounds, over, stops))
        guard.start()
        try:
            _, status, usage = os.wait4(process.pid, 0)
        except BaseException:
            process.kill()
            raise
        finally:
            wall_s = time.perf_counter() - begun
            over.set()
            guard.join()
        process.returncode = os.waitstatus_to_exitcode(status)
    return Ended(
        process.returncode,
        wall_s,
        usage.ru_maxrss * 1024,
        streams["stdout"].read_text(errors="replace"),
        streams["stderr"].read_text(errors="replace"),
        stops[0] if stops else None,
    )


def _guard(pid: int, handle: int, bounds: Bounds, over: threading.Event, stops: list[str]) -> None:
    """Stop a process that takes more than it may; the handle stays that process's, whatever becomes of its number."""
    until = time.monotonic() + bounds.seconds
    while not over.wait(_LOOK_S):
        if _resident(pid) > bounds.memory_bytes:
            stops.append(f"stopped: it needed more than {bounds.memory_bytes / 1e9:.0f} GB of memory")
        elif time.monotonic() > until:
            stops.append(f"stopped after {bounds.seconds:,.0f} s")
        if stops:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(handle, signal.SIGKILL)
            break
    os.close(handle)


def _resident(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE
    except (FileNotFoundError, ProcessLookupError, IndexError):
        return 0
