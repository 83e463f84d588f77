"""A benchmark has the host to itself: other jobs share a lock on a file, a benchmark holds it alone."""

from __future__ import annotations

import fcntl
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

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
    with lock.open("w") as file:
        kind = fcntl.LOCK_EX if alone else fcntl.LOCK_SH
        while not _try(file.fileno(), kind):
            waiting()
            time.sleep(_ASK_AGAIN_S)
        yield


def _try(descriptor: int, kind: int) -> bool:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
