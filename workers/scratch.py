"""Folders of runs. A run's process holds a lock in its folder; the kernel lets go of it, so a dead run's folder is known."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

_PREFIX = "run-"
_OWNER = "owner"


@contextmanager
def run_folder(scratch: Path) -> Iterator[Path]:
    """A new folder for one run, removed when the block ends, or by :func:`sweep` when its process is killed before."""
    scratch.mkdir(parents=True, exist_ok=True)
    held = None
    while held is None:  # a sweep may take the folder for a dead run's before it is held: then there is another
        folder = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=scratch))
        held = _hold(folder)
    with held:
        try:
            yield folder
        finally:
            # What cannot be removed now, a sweep removes later: the run's outcome does not depend on it.
            shutil.rmtree(folder, ignore_errors=True)


def sweep(scratch: Path) -> int:
    """Remove the folders of runs whose process is dead.

    Returns:
        How many there were.
    """
    removed = 0
    for folder in scratch.glob(f"{_PREFIX}*"):
        held = _hold(folder)
        if held is None:
            continue
        with held:
            shutil.rmtree(folder, ignore_errors=True)
        removed += not folder.exists()
    return removed


def _hold(folder: Path) -> IO[str] | None:
    """The folder's lock, or None when somebody else holds it or the folder is gone."""
    owner = folder / _OWNER
    try:
        file = owner.open("w")
    except (FileNotFoundError, NotADirectoryError):
        return None
    try:
        fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
        # The lock counts only while its file is the one in the folder: a sweep may have removed it since the opening,
        # and a run may have made its own.
        if os.path.samestat(os.fstat(file.fileno()), owner.stat()):
            return file
    except (BlockingIOError, FileNotFoundError):
        pass
    file.close()
    return None
