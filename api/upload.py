"""Files on their way in: from the socket to the disk, hashed as they come, never whole in memory."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import os
import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from fastapi import Request

from api.digests import field_of, sha256_in
from api.errors import Fault, HttpFault
from api.multipart import MAX_FIELD_BYTES, FormReader, boundary_of
from api.settings import ApiSettings

_BLOCK_BYTES: Final = 2 << 20
_SYNC_BYTES: Final = 32 << 20
_ENVELOPE_BYTES: Final = 4 * MAX_FIELD_BYTES
"""What the form may hold besides the file."""

_DISK_ERRORS: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


@dataclass(frozen=True, slots=True)
class Upload:
    """A file that has come whole; it lies in the spool until somebody takes it."""

    path: Path
    filename: str
    sha256: str
    size_bytes: int
    fields: dict[str, str]


@asynccontextmanager
async def received(
    request: Request, *, spool: Path, settings: ApiSettings, fields: frozenset[str]
) -> AsyncIterator[Upload]:
    """The file of a multipart request. Whatever happens, the spool holds nothing of it afterwards.

    Raises:
        HttpFault: The form, the size or the digest is wrong, or the disk is full.
        ClientDisconnect: The caller went away.
    """
    boundary = boundary_of(request.headers.get("content-type"))
    told = request.headers.get("content-length", "")
    expected = int(told) if told.isdigit() else 0
    if expected > settings.upload_limit_bytes + _ENVELOPE_BYTES:
        raise _too_large(settings.upload_limit_bytes)
    body_digest = sha256_in(request.headers.get("content-digest"), "Content-Digest")
    file_digest = sha256_in(request.headers.get("repr-digest"), "Repr-Digest")
    await asyncio.to_thread(_check_space, spool, expected, settings.min_free_bytes)
    try:
        sink = await asyncio.to_thread(_Sink, spool, settings)
        try:
            body = hashlib.sha256() if body_digest else None
            form = FormReader(boundary, fields=fields, on_file=sink.take)
            async for chunk in request.stream():
                form.feed(chunk)
                if body is not None:
                    body.update(chunk)
                if sink.full:
                    await sink.hand_on()
            texts = form.finish()
            sha256 = await sink.finish()
            if sink.size_bytes == 0:
                message = "The file is empty."
                raise HttpFault("empty_file", message, faults=[Fault("/file", message, "empty_file")])
            # Seen from HTTP the content is the whole form, but many callers mean the file: either is proof enough.
            _check_digest("Content-Digest", body_digest, sha256, *([body.hexdigest()] if body else []))
            _check_digest("Repr-Digest", file_digest, sha256)
            for name in ("Content-Digest", "Repr-Digest"):
                header = form.file_headers.get(name.lower().encode())
                _check_digest(name, sha256_in(header.decode("latin-1") if header else None, name), sha256)
            yield Upload(sink.path, form.filename or "", sha256, sink.size_bytes, texts)
        finally:
            await asyncio.shield(sink.discard())
    except OSError as error:
        if error.errno in _DISK_ERRORS:
            raise _disk_full() from error
        raise


class _Sink:
    """A spool file; blocks are written and hashed in a thread, one at a time, while the next one fills."""

    def __init__(self, spool: Path, settings: ApiSettings) -> None:
        spool.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix="upload-", suffix=".part", dir=spool)
        self.path = Path(name)
        self.size_bytes = 0
        self._handle = handle
        self._settings = settings
        self._hash = hashlib.sha256()
        self._block = bytearray()
        self._under_way: asyncio.Future[None] | None = None
        self._syncing: asyncio.Future[None] | None = None
        self._synced_bytes = 0

    @property
    def full(self) -> bool:
        """Whether there is a block to hand on."""
        return len(self._block) >= _BLOCK_BYTES

    def take(self, data: memoryview) -> None:
        """Keep some bytes of the file."""
        self._block += data
        self.size_bytes += len(data)
        if self.size_bytes > self._settings.upload_limit_bytes:
            raise _too_large(self._settings.upload_limit_bytes)

    async def hand_on(self) -> None:
        """Give the block to a thread, after the one before is done."""
        await self._settled(self._under_way)
        if self.size_bytes - self._synced_bytes >= _SYNC_BYTES and (self._syncing is None or self._syncing.done()):
            # The disk works while the rest comes, instead of all at once when the caller waits for the answer.
            await self._settled(self._syncing)
            self._synced_bytes = self.size_bytes
            self._syncing = asyncio.ensure_future(asyncio.to_thread(self._sync))
        block, self._block = self._block, bytearray()
        self._under_way = asyncio.ensure_future(asyncio.to_thread(self._write, block))

    async def finish(self) -> str:
        """Write what is left and make it last; the file's SHA-256."""
        await self.hand_on()
        await self._settled(self._under_way)
        await self._settled(self._syncing)
        await asyncio.to_thread(os.fsync, self._handle)
        return self._hash.hexdigest()

    async def discard(self) -> None:
        """Close the file and remove what is left of it."""
        # No thread may work on a handle that is closed. What they raised has been heard of, or does not matter now.
        running = [work for work in (self._under_way, self._syncing) if work is not None]
        await asyncio.gather(*running, return_exceptions=True)
        await asyncio.to_thread(self._remove)

    def _remove(self) -> None:
        os.close(self._handle)
        self.path.unlink(missing_ok=True)

    def _write(self, block: bytearray) -> None:
        self._hash.update(block)
        view = memoryview(block)
        while view:
            view = view[os.write(self._handle, view) :]

    def _sync(self) -> None:
        os.fdatasync(self._handle)
        _check_space(self.path.parent, 0, self._settings.min_free_bytes)

    @staticmethod
    async def _settled(work: asyncio.Future[None] | None) -> None:
        if work is not None:
            await work


def _check_space(spool: Path, coming_bytes: int, min_free_bytes: int) -> None:
    spool.mkdir(parents=True, exist_ok=True)
    if shutil.disk_usage(spool).free - coming_bytes < min_free_bytes:
        raise _disk_full()


def _disk_full() -> HttpFault:
    return HttpFault(
        "disk_full",
        "There is not enough space left on the service's disk for this file.",
        hint="Delete models or datasets that nobody needs, or give the service a larger disk.",
        headers={"Connection": "close"},
    )


def _too_large(limit: int) -> HttpFault:
    # The rest of the body is not read, so the connection cannot be used again.
    message = f"The file is larger than {limit} bytes."
    return HttpFault(
        "body_too_large", message, faults=[Fault("/file", message, "body_too_large")], headers={"Connection": "close"}
    )


def _check_digest(name: str, stated: str | None, *actual: str) -> None:
    if stated is None or stated in actual:
        return
    message = f"The bytes that came have another SHA-256 than {name} says: {field_of(actual[0])}."
    hint = "Something changed the file on its way; send it again."
    raise HttpFault(
        "digest_mismatch", message, hint=hint, faults=[Fault(f"#header/{name}", message, "digest_mismatch")]
    )
