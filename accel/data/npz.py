"""Write arrays to an npz file piece by piece, so that it can be mapped into memory where it lies."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt

from accel.data.arrays import give_back

Array = npt.NDArray[np.generic]

_PIECE_BYTES = 1 << 20
_ALIGNMENT = 64
"""Bytes; as of the elements within an npy file."""
_LOCAL_HEADER = 30
_ZIP64_BYTES = 20
"""What :mod:`zipfile` adds to a local header for files that may be large."""
_PADDING_TAG = 0xD935
"""Of an extra field that holds nothing, as zipalign of Android writes it."""


def write_npz(path: Path, arrays: Mapping[str, Array]) -> None:
    """Write arrays uncompressed, each at a place that is aligned; the same arrays give the same bytes.

    Memory does not grow with arrays that are mapped from a file.

    Args:
        path: The file.
        arrays: By their names.
    """
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
        for name, array in arrays.items():
            member = zipfile.ZipInfo(f"{name}.npy")  # of 1 January 1980: the time must not make a difference
            member.extra = _padding(archive, member.filename)
            with archive.open(member, "w", force_zip64=True) as file:
                header = np.lib.format.header_data_from_array_1_0(array)
                header["fortran_order"] = False
                np.lib.format.write_array_header_2_0(file, {**header, "shape": array.shape})
                for piece in pieces(array):
                    file.write(piece.tobytes())


def pieces(array: Array) -> Iterator[Array]:
    """Some rows after the other; of an array that is mapped from a file the memory is given back behind them."""
    if array.ndim == 0:
        yield array
        return
    rows = max(1, _PIECE_BYTES // max(1, array[:1].nbytes))
    for start in range(0, len(array), rows):
        yield array[start : start + rows]
        give_back(array)


def _padding(archive: zipfile.ZipFile, name: str) -> bytes:
    """An extra field behind which a member's bytes begin at a multiple of the alignment."""
    before = archive.start_dir + _LOCAL_HEADER + len(name.encode()) + 4 + _ZIP64_BYTES
    size = -before % _ALIGNMENT
    return _PADDING_TAG.to_bytes(2, "little") + size.to_bytes(2, "little") + bytes(size)
