"""Arrays in npy and npz files, read without trusting what their headers claim.

Format: https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html
"""

from __future__ import annotations

import errno
import math
import mmap
import shutil
import struct
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from tokenize import TokenError
from typing import IO

import numpy as np
import numpy.typing as npt

from accel.errors import BadDataset, TooLarge

MAX_ARRAYS = 1_000
MAX_BYTES = 2**40
MAX_RATIO = 1_100
"""Deflate cannot pack more tightly than about 1,032 to 1, so a higher claim is a lie."""

_LOCAL_HEADER = 30
# What the zip library raises for a file that is damaged or made to be odd, each from another corner of it.
_DAMAGED = (
    zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError, ValueError, OverflowError, struct.error, zlib.error,
)  # fmt: skip
_VERSIONS = frozenset({(1, 0), (2, 0), (3, 0)})
_MAX_AXES = 16
_MAGIC = b"\x93NUMPY"
_KINDS = "biufU"
_CONVERT = "Save it with np.savez('data.npz', x_test=..., y_test=...), arrays of numbers only."


@dataclass(frozen=True, slots=True)
class Header:
    """What an array claims to be: element type, shape, and where its bytes begin."""

    dtype: np.dtype[np.generic]
    shape: tuple[int, ...]
    fortran: bool
    offset: int

    @property
    def bytes(self) -> int:
        """Bytes of the elements."""
        return math.prod(self.shape) * self.dtype.itemsize


@dataclass(frozen=True, slots=True)
class StoredArray:
    """An array in a file, not yet in memory."""

    name: str
    header: Header
    path: Path
    member: str | None
    start: int = 0
    """Where the array begins in the file; an array that is packed in a zip has no place of its own (-1)."""

    def open(self, workspace: Path) -> npt.NDArray[np.generic]:
        """Map the array into memory, read-only; a compressed one is unpacked into ``workspace`` once.

        Only pages that are read take memory, so that a dataset may be larger than the host's.
        """
        shape = self.header.shape
        if math.prod(shape) == 0:
            return np.empty(shape, self.header.dtype)
        path, start = (self.path, self.start) if self.start >= 0 else (self._unpacked(workspace), 0)
        if self.header.fortran:
            return np.memmap(path, self.header.dtype, "r", start + self.header.offset, shape, "F")
        return np.memmap(path, self.header.dtype, "r", start + self.header.offset, shape, "C")

    def _unpacked(self, workspace: Path) -> Path:
        target = workspace / f"{self.member}".replace("/", "_")
        if not target.exists():
            partial = target.with_suffix(".part")
            try:
                with (
                    zipfile.ZipFile(self.path) as archive,
                    archive.open(str(self.member)) as packed,
                    partial.open("wb") as file,
                ):
                    shutil.copyfileobj(packed, file, 1 << 20)
            except _DAMAGED as error:
                raise BadDataset(f"The array {self.name!r} is damaged: {error}", hint=_CONVERT) from error
            partial.replace(target)
        return target


def read_arrays(path: Path) -> list[StoredArray]:
    """List the arrays of an npy or npz file; no element is read.

    Raises:
        BadDataset: It is neither, is damaged, or holds Python objects.
        TooLarge: It claims more than the file can hold or the limits allow.
    """
    with path.open("rb") as file:
        magic = file.read(6)
    if not magic:
        raise BadDataset("The file is empty.", hint="The upload may have been cut off; send it again.")
    if magic == _MAGIC:
        with path.open("rb") as file:
            header = read_header(file, "x")
        _check_size("x", header, path.stat().st_size)
        return [StoredArray("x", header, path, None)]
    if magic.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return _read_npz(path)
    kind = "a pickle" if magic[:1] == b"\x80" else "an HDF5 file" if magic[:4] == b"\x89HDF" else "of an unknown kind"
    raise BadDataset(f"The dataset is {kind}; npz and npy files are taken.", hint=_CONVERT)


def _read_npz(path: Path) -> list[StoredArray]:
    try:
        with zipfile.ZipFile(path) as archive:
            return [_read_member(archive, member, path) for member in _members(archive)]
    except (*_DAMAGED, OSError) as error:
        if isinstance(error, OSError) and error.errno != errno.EINVAL:  # a place before the file's beginning
            raise
        raise BadDataset(f"The npz file is damaged or cut off: {error}", hint="Upload it again.") from error


def _members(archive: zipfile.ZipFile) -> list[zipfile.ZipInfo]:
    members = archive.infolist()
    if len(members) > MAX_ARRAYS:
        raise TooLarge(f"The npz file has {len(members):,} members; {MAX_ARRAYS:,} are allowed.")
    names = [member.filename for member in members]
    if len(set(names)) != len(names):
        raise BadDataset("The npz file has two members of one name.", hint=_CONVERT)
    for member in members:
        if member.flag_bits & 1:
            raise BadDataset(f"The member {member.filename!r} is encrypted.", hint=_CONVERT)
        if not member.filename.endswith(".npy") or "/" in member.filename or "\\" in member.filename:
            raise BadDataset(
                f"The zip file holds {member.filename!r}, which is no array of an npz file.", hint=_CONVERT
            )
        if member.file_size > MAX_BYTES or member.file_size > (member.compress_size + 64) * MAX_RATIO:
            raise TooLarge(f"The member {member.filename!r} unpacks to {member.file_size:,} bytes.")
    if not members:
        raise BadDataset("The npz file holds no array.", hint=_CONVERT)
    return members


def _read_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo, path: Path) -> StoredArray:
    name = member.filename.removesuffix(".npy")
    with archive.open(member) as file:
        header = read_header(file, name)
    _check_size(name, header, member.file_size)
    return StoredArray(name, header, path, member.filename, _place(path, member))


def _place(path: Path, member: zipfile.ZipInfo) -> int:
    """Where the bytes of a member begin, when they are stored as they are; else -1."""
    if member.compress_type != zipfile.ZIP_STORED:
        return -1
    with path.open("rb") as file:
        file.seek(member.header_offset)
        local = file.read(_LOCAL_HEADER)
    # The local header repeats the name, and has extra fields of its own (APPNOTE.TXT 4.3.7).
    place = member.header_offset + _LOCAL_HEADER + int.from_bytes(local[26:28], "little")
    place += int.from_bytes(local[28:30], "little")
    if place + member.file_size > path.stat().st_size:
        raise BadDataset(f"The member {member.filename!r} is cut off.", hint="Upload it again.")
    return place


def read_header(file: IO[bytes], name: str) -> Header:
    """Read the header of one array.

    Raises:
        BadDataset: It is malformed, or the elements are Python objects, which only a pickle can hold.
    """
    try:
        version = np.lib.format.read_magic(file)
        if version not in _VERSIONS:
            raise ValueError(f"the format's version {version} is unknown")  # noqa: TRY301  (as NumPy would say it)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, fortran, dtype = read(file, max_header_size=10_000)
    except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError, TokenError) as error:
        raise BadDataset(f"The header of the array {name!r} is malformed: {str(error)[:200]}", hint=_CONVERT) from error
    if dtype.hasobject:
        raise BadDataset(
            f"The array {name!r} holds Python objects, which are pickles and run code when they are loaded.",
            hint="Convert it first: array.astype(np.float32), or astype('U') for texts.",
        )
    if dtype.kind not in _KINDS or dtype.names:
        raise BadDataset(f"The array {name!r} has elements of type {dtype}.", hint=_CONVERT)
    if not dtype.itemsize or len(shape) > _MAX_AXES:
        raise BadDataset(f"The array {name!r} has elements of no size, or more than {_MAX_AXES} axes.", hint=_CONVERT)
    if any(size > MAX_BYTES for size in shape):
        raise TooLarge(f"The array {name!r} claims an axis of more than {MAX_BYTES:,}.", hint=_CONVERT)
    if any(size < 0 for size in shape):
        raise BadDataset(f"The array {name!r} claims the shape {shape}.", hint=_CONVERT)
    return Header(dtype, shape, fortran, file.tell())


def _check_size(name: str, header: Header, there: int) -> None:
    if header.offset + header.bytes > there:
        raise TooLarge(
            f"The array {name!r} claims {header.shape} of {header.dtype}, {header.bytes:,} bytes, "
            f"but only {there - header.offset:,} are there.",
            hint="The file is cut off, or its header is wrong; save it again.",
        )


def give_back(array: npt.NDArray[np.generic]) -> None:
    """Let go of the memory of an array that is mapped from a file; its pages are read again when they are needed."""
    mapped: object = array
    while isinstance(mapped, np.ndarray):
        mapped = mapped.base
    if isinstance(mapped, mmap.mmap):
        mapped.madvise(mmap.MADV_DONTNEED)
