"""Content-addressed files: a folder or S3, the name of a file is the SHA-256 of its bytes."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import unquote, urlsplit

import obstore
from obstore.store import LocalStore, from_url

from store.errors import DigestMismatch, NoSpace, NotFound
from store.ids import new_id

_BLOCK = 1 << 20
_GONE = "It was removed from where the files are kept; upload it again."


class Files:
    """The files of the service. Putting the same content twice is the same as once."""

    def __init__(self, url: str, *, spool_dir: Path | None = None) -> None:
        """Open the place.

        Args:
            url: ``file:///folder`` or ``s3://bucket/prefix``.
            spool_dir: Folder for files that are not complete yet; for a folder it must be on the same file system.
        """
        parts = urlsplit(url)
        self._root = Path(unquote(parts.path)) if parts.scheme == "file" else None
        if self._root is not None:
            self._root.mkdir(parents=True, exist_ok=True)
        self._store = from_url(url) if self._root is None else LocalStore(self._root)
        self.spool_dir = spool_dir or (self._root or Path.home() / ".cache" / "accel") / "spool"
        self.spool_dir.mkdir(parents=True, exist_ok=True)

    def put_file(self, path: Path, sha256: str) -> None:
        """Take over a complete file of ``spool_dir``, whose bytes are on the disk already (fsync).

        Raises:
            NoSpace: The disk is full.
        """
        key = _key(sha256)
        try:
            if self._root is None:
                obstore.put(self._store, key, path)
                path.unlink()
                return
            target = self._root / key
            target.parent.mkdir(parents=True, exist_ok=True)
            path.replace(target)
            _sync_folder(target.parent)
        except OSError as error:
            if error.errno in {errno.ENOSPC, errno.EDQUOT}:
                raise NoSpace("The disk of the files is full.", hint="Free some space, or delete models.") from error
            raise

    def keep(self, path: Path) -> tuple[str, int]:
        """Hash a file of any folder and keep a copy.

        Returns:
            SHA-256 and size in bytes.
        """
        spooled = self.spool_dir / f"{new_id()}.part"  # process ids repeat where several containers share the folder
        digest = hashlib.sha256()
        try:
            with path.open("rb") as source, spooled.open("wb") as copy:
                while block := source.read(_BLOCK):
                    digest.update(block)
                    copy.write(block)
                copy.flush()
                os.fsync(copy.fileno())
            size = spooled.stat().st_size
            self.put_file(spooled, digest.hexdigest())
        except OSError as error:
            if error.errno in {errno.ENOSPC, errno.EDQUOT}:
                raise NoSpace("The disk of the files is full.", hint="Free some space, or delete models.") from error
            raise
        finally:
            spooled.unlink(missing_ok=True)
        return digest.hexdigest(), size

    def local_path(self, sha256: str) -> Path | None:
        """Where the file lies, when the store is a folder of this host."""
        return self._root / _key(sha256) if self._root is not None else None

    def fetch(self, sha256: str, to: Path) -> Path:
        """A path to read the file from: its own place where that is local, else ``to``, where it is copied and checked.

        Raises:
            NotFound: There is no such file.
            DigestMismatch: The bytes are not those that were put.
        """
        here = self.local_path(sha256)
        if here is not None:
            if not here.exists():
                raise NotFound("file", sha256, hint=_GONE)
            return here
        digest = hashlib.sha256()
        with to.open("wb") as file:
            for block in self.read(sha256):
                digest.update(block)
                file.write(block)
        if digest.hexdigest() != sha256:
            raise DigestMismatch(f"The file {sha256} was damaged in the store.")
        return to

    def read(self, sha256: str, start: int = 0, end: int | None = None) -> Iterator[bytes]:
        """The bytes from ``start`` to ``end`` (which is not included), block by block."""
        stop = self.size(sha256) if end is None else end
        for place in range(start, stop, _BLOCK):
            yield bytes(obstore.get_range(self._store, _key(sha256), start=place, end=min(place + _BLOCK, stop)))

    def size(self, sha256: str) -> int:
        """Size in bytes.

        Raises:
            NotFound: There is no such file.
        """
        try:
            return int(obstore.head(self._store, _key(sha256))["size"])
        except FileNotFoundError as error:
            raise NotFound("file", sha256, hint=_GONE) from error

    def exists(self, sha256: str) -> bool:
        """Whether there is such a file."""
        try:
            obstore.head(self._store, _key(sha256))
        except FileNotFoundError:
            return False
        return True

    def free_bytes(self) -> int:
        """Space left where uploads are written."""
        return shutil.disk_usage(self.spool_dir).free

    def check(self) -> None:
        """Raise when the store cannot be written."""
        obstore.put(self._store, "check", b"", mode="overwrite")

    def hashes(self) -> Iterator[tuple[str, datetime]]:
        """Every file, and when it was put."""
        for page in obstore.list(self._store, prefix="sha256"):
            for found in page:
                yield found["path"].rpartition("/")[2], found["last_modified"]

    def collect(self, referenced: Callable[[str], bool], *, older_than_s: float) -> int:
        """Remove files that nothing refers to.

        Args:
            referenced: Whether a hash is needed; asked just before each removal.
            older_than_s: Younger files stay: what puts them may not have written its row yet.

        Returns:
            How many were removed.
        """
        before = datetime.now(UTC) - timedelta(seconds=older_than_s)
        removed = 0
        for sha256, put_at in list(self.hashes()):
            if put_at < before and not referenced(sha256):
                obstore.delete(self._store, _key(sha256))
                removed += 1
        for spooled in self.spool_dir.glob("*.part"):
            if datetime.fromtimestamp(spooled.stat().st_mtime, UTC) < before:
                spooled.unlink(missing_ok=True)
        return removed


def _key(sha256: str) -> str:
    return f"sha256/{sha256[:2]}/{sha256[2:4]}/{sha256}"


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
