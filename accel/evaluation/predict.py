"""Run a model over a split, and hand on what it says."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from accel.context import Tell
from accel.data.bind import Bound, bind
from accel.data.dataset import Dataset
from accel.errors import BadDataset
from accel.evaluation.collecting import collector
from accel.evaluation.kept import Form
from accel.evaluation.predictions import Array, Predictions, Reading
from accel.request import EvaluateRequest, ModelFile
from accel.runtimes.sessions import Session, open_session

FIRST_BYTES = 64 << 20
"""Outputs of one model that are kept as they come, to be compared number by number."""
_TOGETHER_BYTES = 256 << 10
"""Outputs of small batches that are taken in together: each call costs more than what it does with a few rows."""
_STEPS = 100
"""How often progress is told of one run."""


@dataclass(frozen=True, slots=True)
class Subject:
    """A model that is loaded and bound to a split."""

    model: ModelFile
    session: Session
    bound: Bound
    batch_size: int


def open_subject(model: ModelFile, dataset: Dataset, request: EvaluateRequest) -> Subject:
    """Load a model and bind it.

    Raises:
        AccelError: The runtime refuses it, it does not fit the dataset, or the split has no rows.
    """
    session = open_session(model.path, request.runtime, alone=True)
    bound = bind(session.inputs, session.outputs, dataset, request.split, request.binding)
    if not len(bound):
        raise BadDataset(f"The split {request.split!r} has no rows.", hint="Name another split.")
    return Subject(model, session, bound, request.batch_size)


@dataclass(slots=True)
class _Output:
    """What is kept of one output."""

    path: Path
    dtype: np.dtype[np.generic]
    row_shape: tuple[int, ...]
    rows: int = 0
    held: bytearray = field(default_factory=bytearray)
    """What is not written yet."""

    def takes(self, array: Array, rows: int) -> bool:
        """Whether an array is more of the same."""
        same = array.dtype == self.dtype and array.shape[1:] == self.row_shape
        return same and array.ndim > 0 and len(array) == rows

    def add(self, array: Array) -> None:
        """Put some rows behind the others."""
        self.held += array.tobytes()
        self.rows += len(array)
        if len(self.held) >= _TOGETHER_BYTES:
            self._write()

    def mapped(self) -> Array:
        """The rows, mapped from the file."""
        self._write()
        return np.memmap(self.path, self.dtype, "r", shape=(self.rows, *self.row_shape))

    def _write(self) -> None:
        with self.path.open("ab") as file:
            file.write(self.held)
        self.held.clear()


class FirstRows:
    """The first rows of every output that holds numbers, written to files as they come."""

    def __init__(self, folder: Path, most_bytes: int = FIRST_BYTES) -> None:
        """Begin.

        Args:
            folder: Where the files are.
            most_bytes: Of all outputs together.
        """
        self._folder = folder
        self._left = most_bytes
        self._forms: dict[str, Form] = {}
        self._outputs: dict[str, _Output] | None = None
        self._ended: dict[str, _Output] = {}

    @property
    def wanted(self) -> bool:
        """Whether more rows are taken."""
        return self._left > 0 and self._outputs != {}

    def add(self, outputs: Mapping[str, Array], bound: Bound, rows: int) -> None:
        """Take in what a model gave for some rows."""
        found = {name: bound.unfilled(array, rows) for name, array in outputs.items()}
        if self._outputs is None:
            self._forms = {name: Form.of(array) for name, array in found.items()}
            self._outputs = {
                name: _Output(self._folder / f"output_{place}", array.dtype, array.shape[1:])
                for place, (name, array) in enumerate(found.items())
                if array.dtype.kind in "fiub" and array.ndim and len(array) == rows and array.nbytes
            }
        for name, output in list(self._outputs.items()):
            if name not in found or not output.takes(found[name], rows):  # widths may change from batch to batch
                self._ended[name] = self._outputs.pop(name)
        row_bytes = sum(found[name][:1].nbytes for name in self._outputs)
        fitting = min(rows, self._left // max(1, row_bytes))
        for name, output in self._outputs.items():
            output.add(found[name][:fitting])
        self._left = self._left - fitting * row_bytes if fitting == rows else 0

    def form(self, output: str) -> Form:
        """What one row of an output looks like."""
        return self._forms[output]

    def arrays(self) -> dict[str, Array]:
        """The rows by output, mapped from the files."""
        everything = {**(self._outputs or {}), **self._ended}
        return {name: output.mapped() for name, output in everything.items() if output.rows}


def answers(subject: Subject, bound: Bound, tell: Tell, first: FirstRows | None = None) -> Iterator[tuple[Array, ...]]:
    """Yield the bound output for every batch, in order; of pairs the one for the second of each too.

    Args:
        subject: The model.
        bound: The rows, which may be corrupted.
        tell: Called with progress.
        first: Takes in the first rows of every output.

    Raises:
        RuntimeFailed: The runtime refused, or the output does not have one row of numbers for each sample.
    """
    for start, stop in bound.spans(len(bound), subject.batch_size):
        feeds = bound.runs(start, stop)
        if first is not None and first.wanted:
            outputs = subject.session.run(feeds[0])
            first.add(outputs, bound, stop - start)
            feeds = feeds[1:]
            found = [bound.answer(outputs, stop - start)]
        else:
            found = []
        for feed in feeds:
            found.append(bound.answer(subject.session.run(feed, [bound.output]), stop - start))
        if stop * _STEPS // len(bound) > start * _STEPS // len(bound):
            tell("evaluating", stop, len(bound), "")
        yield tuple(found)


def first_answer(subject: Subject) -> tuple[Array, ...]:
    """The bound output for the first batch; of pairs two."""
    return next(answers(subject, subject.bound, lambda *_: None))


def predict(
    subject: Subject, bound: Bound, reading: Reading, spool: Path, tell: Tell, first: FirstRows | None = None
) -> Predictions:
    """A model's predictions of every row.

    Args:
        subject: The model.
        bound: The rows, which may be corrupted.
        reading: How the output is read.
        spool: Folder that they are written to, and mapped from.
        tell: Called with progress.
        first: Takes in the first rows of every output.

    Raises:
        BindingMismatch: The output is not of a shape that is read so.
        RuntimeFailed: See :func:`answers`.
    """
    collected = collector(reading, bound.output, spool)
    for found in _together(answers(subject, bound, tell, first)):
        collected.add(*found)
    return collected.predictions()


def _together(batches: Iterator[tuple[Array, ...]]) -> Iterator[tuple[Array, ...]]:
    """Join small batches whose rows are alike."""
    held: list[tuple[Array, ...]] = []
    size = 0
    for found in batches:
        if held and [(a.dtype, a.shape[1:]) for a in found] != [(a.dtype, a.shape[1:]) for a in held[0]]:
            yield tuple(np.concatenate(parts) for parts in zip(*held, strict=True))
            held, size = [], 0
        held.append(found)
        size += sum(array.nbytes for array in found)
        if size >= _TOGETHER_BYTES:
            yield tuple(np.concatenate(parts) for parts in zip(*held, strict=True))
            held, size = [], 0
    if held:
        yield tuple(np.concatenate(parts) for parts in zip(*held, strict=True))
