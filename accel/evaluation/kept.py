"""The file of an evaluation that keeps what one model said about every sample, so that models are compared later without a run.

An npz file without compression, which any NumPy opens::

    kept = np.load("predictions-<model>.npz")
    kept["prediction"]        # what the model says of each row of the split: classes [rows], values [rows, numbers], ...
    kept["labels"]            # what is true, in the same form; not there where the split has no labels
    kept["not_finite"]        # numbers of the rows whose output holds NaN or infinity
    kept["scores"]            # scores of classes [rows, classes], or what decisions were made from, where they were kept
    kept["output_0"]          # the first rows of the model's first output, as it came; output_1 ... of the others
    json.loads(str(kept["header"]))   # what was run on what, and the names of the outputs

``prediction`` of sequences is filled up with -1; of many yes/no decisions it holds eight a byte (``np.unpackbits``), ``shape`` being
those of one row. The header names for each array which field of :mod:`accel.evaluation.predictions` it is.
"""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError

from accel.data.arrays import StoredArray, read_arrays
from accel.data.binding import Binding
from accel.data.npz import pieces, write_npz
from accel.errors import BadDataset
from accel.evaluation.decoding import Ints
from accel.evaluation.predictions import (
    Array,
    Classes,
    Decisions,
    Embeddings,
    Predictions,
    Reading,
    Sequences,
    Values,
    kind_of,
)
from accel.evaluation.truth import classes_in

MEDIA_TYPE = "application/x-npz"

_FORMAT: Literal[1] = 1
_MOST_CLASSES = 1 << 20
_HEADER_LETTERS = 1 << 20
_ARRAYS: dict[type[Predictions], dict[str, tuple[str, int]]] = {
    Classes: {"best": ("int64", 1), "top": ("int32", 2), "scores": ("float32", 2), "not_finite": ("int64", 1)},
    Values: {"numbers": ("float64", 2), "not_finite": ("int64", 1)},
    Sequences: {"symbols": ("int32", 2), "not_finite": ("int64", 1)},
    Decisions: {"bits": ("uint8", 2), "shape": ("int64", 1), "scores": ("float32", 2), "not_finite": ("int64", 1)},
    Embeddings: {"vectors": ("float32", 2), "pairs": ("float64", 1), "not_finite": ("int64", 1)},
}
"""Element type and axes of each field."""
_NOT_OF_ROWS = {"shape", "not_finite"}


class _Value(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Circumstances(_Value):
    """What predictions depend on: only where all of it is the same do kept ones stand for a run."""

    model_sha256: str
    split: str
    samples: int
    task: str | None
    binding: Binding | None
    batch_size: int
    runtime: str
    libraries: dict[str, str]
    """Versions of the runtime's packages."""
    cpu: str

    def differs(self, now: Circumstances) -> str | None:
        """What is not the same, in words; None where nothing is."""
        for name in type(self).model_fields:
            then, today = getattr(self, name), getattr(now, name)
            if then != today:
                what = name.replace("_", " ")
                if isinstance(then, BaseModel) or isinstance(today, BaseModel) or name == "model_sha256":
                    return f"another {what}"
                return f"{what} {_plain(then)}, now {_plain(today)}"
        return None


def _plain(value: object) -> str:
    return ", ".join(f"{name} {entry}" for name, entry in value.items()) if isinstance(value, dict) else f"{value}"


class Form(_Value):
    """What one row of an output looks like."""

    shape: tuple[int, ...]
    floats: bool

    @classmethod
    def of(cls, batch: Array) -> Form:
        """That of the rows of a batch."""
        return cls(shape=batch.shape[1:], floats=batch.dtype.kind == "f")

    def classes(self, reading: Reading) -> int | None:
        """Number of classes that it has, where it is read so; None where it has none, or names them itself."""
        return classes_in(reading, (None, *self.shape), np.dtype(np.float32 if self.floats else np.int64))


class Header(_Value):
    """What a file of predictions says of itself."""

    format: Literal[1] = _FORMAT
    accel: str
    """Version that wrote it."""
    kind: str
    """What is said of each sample: classes, values, sequences, decisions, embeddings."""
    reading: Reading
    output: str
    form: Form
    """Of that output."""
    circumstances: Circumstances
    said: dict[str, str]
    """For each field of what the model says, the name of its array."""
    labels: dict[str, str]
    outputs: tuple[str, ...] = ()
    """Names of the model's outputs whose first rows are the arrays ``output_0``, ``output_1`` and so on."""


@dataclass(frozen=True, slots=True)
class KeptPredictions:
    """What one model said of a split; arrays are mapped from the file."""

    path: Path
    header: Header
    said: Predictions
    labels: Predictions | None
    outputs: dict[str, Array]
    """First rows of the model's outputs, by name."""


def keep(
    path: Path,
    said: Predictions,
    labels: Predictions | None,
    outputs: Mapping[str, Array],
    *,
    accel: str,
    reading: Reading,
    output: str,
    form: Form,
    circumstances: Circumstances,
) -> None:
    """Write what a model said; the same gives the same bytes. Memory does not grow with arrays that are mapped."""
    names, arrays = _named(said, "prediction", "")
    label_names, label_arrays = _named(labels, "labels", "labels_") if labels is not None else ({}, {})
    header = Header(
        accel=accel,
        kind=type(said).__name__.lower(),
        reading=reading,
        output=output,
        form=form,
        circumstances=circumstances,
        said=names,
        labels=label_names,
        outputs=tuple(outputs),
    )
    firsts = {f"output_{place}": array for place, array in enumerate(outputs.values())}
    write_npz(path, {"header": np.array(header.model_dump_json()), **arrays, **label_arrays, **firsts})


def _named(said: Predictions, first: str, prefix: str) -> tuple[dict[str, str], dict[str, Array]]:
    """A name for each array, and the arrays by these; the first field that is there is what people look for."""
    names: dict[str, str] = {}
    arrays: dict[str, Array] = {}
    for field in fields(said):
        value = getattr(said, field.name)
        if value is None:
            continue
        name = f"{prefix}{field.name}" if names else first
        dtype, _ = _ARRAYS[type(said)][field.name]
        names[field.name] = name
        arrays[name] = (
            np.asarray(value, dtype) if not isinstance(value, np.ndarray) else value.astype(dtype, copy=False)
        )
    return names, arrays


def read_kept(path: Path, workspace: Path, *, trusted: bool = False) -> KeptPredictions:
    """Read what was kept; nothing in the file is executed, and no more is mapped than the file holds.

    Args:
        path: A file that :func:`keep` wrote, or that claims so.
        workspace: Folder of this job.
        trusted: Whether this process wrote it, so that its bytes need not be proved.

    Raises:
        BadDataset: It is no such file, is damaged, or does not hold what it says.
        TooLarge: It claims more than it holds.
    """
    stored = {array.name: array for array in read_arrays(path)}
    if any(array.start < 0 for array in stored.values()):
        raise BadDataset("The predictions are packed, as they were not written.")
    if not trusted:
        _prove(path)
    header = _header(stored, workspace)
    arrays = {name: array.open(workspace) for name, array in stored.items() if name != "header"}
    kind = kind_of(header.reading)
    rows = header.circumstances.samples
    try:
        said = _built(kind, {field: arrays[name] for field, name in header.said.items()}, rows)
        labels = None
        if header.labels:
            labels = _built(kind, {field: arrays[name] for field, name in header.labels.items()}, rows)
        outputs = {name: arrays[f"output_{place}"] for place, name in enumerate(header.outputs)}
    except (KeyError, TypeError, ValueError) as error:
        raise BadDataset(f"The predictions are not as their header says: {error}.") from error
    for name, array in outputs.items():
        if array.ndim == 0 or len(array) > rows or array.dtype.kind not in "fiub":
            raise BadDataset(f"The predictions hold what cannot be rows of the output {name!r}.")
    return KeptPredictions(path, header, said, labels, outputs)


def _prove(path: Path) -> None:
    """Compare every array with its checksum."""
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
    except (zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError, ValueError) as error:
        raise BadDataset(f"The predictions are damaged: {error}.") from error
    if damaged is not None:
        raise BadDataset(f"The predictions are damaged at {damaged!r}.")


def _header(stored: Mapping[str, StoredArray], workspace: Path) -> Header:
    claimed = stored.get("header")
    if claimed is None or claimed.header.dtype.kind != "U" or claimed.header.shape != ():
        raise BadDataset("The file has no header of predictions.")
    if claimed.header.bytes > 4 * _HEADER_LETTERS:
        raise BadDataset("The header of the predictions is too long.")
    try:
        return Header.model_validate_json(str(claimed.open(workspace)[()]))
    except (ValidationError, ValueError) as error:
        raise BadDataset(f"The header of the predictions is none: {str(error).splitlines()[0]}.") from error


def _built(kind: type[Predictions], arrays: Mapping[str, Any], rows: int) -> Predictions:
    """Predictions from their arrays.

    Raises:
        ValueError: An array cannot be what it is said to be.
    """
    for name, array in arrays.items():
        dtype, axes = _ARRAYS[kind][name]
        if array.dtype != dtype or array.ndim != axes or (name not in _NOT_OF_ROWS and len(array) != rows):
            raise ValueError(f"{name} is {array.dtype} {list(array.shape)}")
    none = {"vectors": None} if kind is Embeddings else {}  # a target that is a score for each pair has none
    said = kind(**{**none, **arrays})
    _check_rows(said.not_finite, rows)
    match said:
        case Classes(best, top, scores):
            classes = _MOST_CLASSES if scores is None else max(2, scores.shape[1])
            _check_range(best, -1, classes)
            if top is not None:
                _check_range(top, -1, classes)
        case Sequences(symbols):
            _check_range(symbols, -1, 1 << 31)
        case Decisions(bits, shape, scores):
            if any(size < 1 for size in shape) or bits.shape[1] != -(-said.each // 8):
                raise ValueError(f"rows of {list(shape)} decisions have {bits.shape[1]} bytes")
            if scores is not None and scores.shape[1] != said.each:
                raise ValueError(f"rows of {list(shape)} decisions have {scores.shape[1]} scores")
        case Embeddings(vectors, pairs) if vectors is None and pairs is None:
            raise ValueError("no vector is there")
        case _:
            pass
    return said


def _check_rows(numbers: Ints, rows: int) -> None:
    if len(numbers) and (numbers[0] < 0 or numbers[-1] >= rows or (np.diff(numbers) <= 0).any()):
        raise ValueError("not_finite holds what are no numbers of rows")


def _check_range(array: Array, low: int, end: int) -> None:
    for piece in pieces(array):
        numbers = piece.astype(np.int64)
        if numbers.size and (numbers.min() < low or numbers.max() >= end):
            raise ValueError(f"a class is not between {low} and {end - 1}")
