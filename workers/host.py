"""A benchmark has the host to itself: other jobs share a lock on a file, a benchmark holds it alone."""

from __future__ import annotations

import fcntl
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

_ASK_AGAIN_S = 0.1


@contextmanager
def host(lock: Path, *, alone: bool, waiting: Callable[[], None]) -> Iterator[None]:
    """Hold the host while the block runs.

    Args:
        lock: The host's lock file; the kernel lets go of it when its holder dies.
        alone: Whether nobody else may work meanwhile.
        waiting: Called now and then while others work; what it raises ends the wait.
    """
    lock.parent.mkdir(parents=True, exist_ok=True)
    kind = fcntl.LOCK_EX if alone else fcntl.LOCK_SH
    with lock.open("w") as file:
        # Who waits to be alone keeps the turn, so that later jobs queue behind it: short ones that follow each other
        # closely would else hold the host for ever.
        with lock.with_suffix(".turn").open("w") as turn:
            _wait_for(turn, kind, waiting)
            _wait_for(file, kind, waiting)
        yield


def _wait_for(file: IO[str], kind: int, waiting: Callable[[], None]) -> None:
    while True:
        try:
            fcntl.flock(file.fileno(), kind | fcntl.LOCK_NB)
        except BlockingIOError:
            waiting()
            time.sleep(_ASK_AGAIN_S)
        else:
            return
