"""Take in what a model gives, batch by batch, so that memory does not grow with the width of the output."""

from __future__ import annotations

import math
import os
import tempfile
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from accel.data.binding import CtcGreedy, Embedding, Threshold
from accel.errors import BindingMismatch
from accel.evaluation.decoding import PADDING, Bools, Ints, best_path, cosines, packed, row_shape, widened
from accel.evaluation.predictions import (
    NAME_A_DECODER,
    Array,
    Classes,
    Decisions,
    Embeddings,
    Predictions,
    Reading,
    Scores,
    Sequences,
    Values,
)
from accel.evaluation.scores import all_probabilities, chunks

_TOP = 10
_SORTED = 256
"""Classes up to which sorting all of a row is quicker than looking for the best, one after the other."""
_FEW_DECISIONS = 1000
"""Decisions a sample of which the scores are kept, at most."""


class Gathered:
    """Rows of one element type: in a file of the spool folder, mapped when all are there, or in memory."""

    def __init__(self, spool: Path | None, dtype: npt.DTypeLike) -> None:
        self._path = None if spool is None else _new_file(spool)
        self._dtype = np.dtype(dtype)
        self._parts: list[Array] = []
        self._row: tuple[int, ...] = ()
        self._rows = 0

    def add(self, rows: Array) -> None:
        """Put some rows [n, ...] behind the others."""
        with np.errstate(over="ignore"):  # what is too large is infinite, and found to be
            numbers = np.ascontiguousarray(rows, self._dtype)
        self._rows, self._row = self._rows + len(numbers), numbers.shape[1:]
        if self._path is None:
            self._parts.append(numbers.copy() if np.may_share_memory(numbers, rows) else numbers)
        else:
            with self._path.open("ab") as file:
                file.write(numbers.data if numbers.size else b"")

    def rows(self) -> Any:
        """All rows [samples, ...]."""
        if self._path is None:
            return np.concatenate(self._parts)
        shape = (self._rows, *self._row)
        return (
            np.memmap(self._path, self._dtype, "r", shape=shape) if math.prod(shape) else np.empty(shape, self._dtype)
        )


def _new_file(folder: Path) -> Path:
    number, name = tempfile.mkstemp(dir=folder)
    os.close(number)
    return Path(name)


class Collector(ABC):
    """Takes in a model's outputs, batch by batch."""

    def __init__(self, name: str) -> None:
        """Begin.

        Args:
            name: Name of the output, for messages.
        """
        self._name = name
        self._rows = 0
        self._not_finite: list[Ints] = []

    @abstractmethod
    def add(self, batch: Array, second: Array | None = None) -> None:
        """Take in the output for some samples.

        Args:
            batch: The output.
            second: The output for the second of each pair, where rows are pairs.

        Raises:
            BindingMismatch: Its shape is not one that is read so.
        """

    @abstractmethod
    def predictions(self) -> Predictions:
        """What the model said about every sample."""

    def _mark(self, broken: Bools) -> None:
        """Note which rows of a batch are not finite."""
        self._not_finite.append(self._rows + np.flatnonzero(broken))
        self._rows += len(broken)

    @property
    def _broken(self) -> Ints:
        return np.concatenate(self._not_finite)


def collector(reading: Reading, name: str, spool: Path | None = None, *, scores: bool | None = None) -> Collector:
    """Begin to collect an output.

    Args:
        reading: How it is read.
        name: Its name, for messages.
        spool: Folder that predictions are written to and mapped from, so that memory does not grow with them.
        scores: Whether the scores of classes and decisions are kept; where there is a spool folder, if left out.
    """
    kept = spool is not None if scores is None else scores
    match reading:
        case "classes":
            return _Classes(name, spool, scores=kept)
        case "values":
            return _Values(name, spool)
        case CtcGreedy():
            return _Sequences(name, spool, reading)
        case Threshold():
            return _Decisions(name, spool, reading, scores=kept)
        case Embedding():
            return _Embeddings(name, spool, pairs=reading.second is not None)


def _no_finite_best(scores: Array) -> Bools:
    """Whether the best of each row's scores [n, classes] is not finite; an infinity below 0 only rules a class out."""
    if scores.dtype.kind != "f":
        return np.zeros(scores.shape[:-1], np.bool_)
    return np.asarray(~np.isfinite(scores.max(-1)))


class _Classes(Collector):
    """Scores [n, classes], one score a sample [n] or [n, 1], or names of classes [n]."""

    def __init__(self, name: str, spool: Path | None, *, scores: bool) -> None:
        super().__init__(name)
        self._spool, self._kept = spool, scores
        self._best, self._top = Gathered(spool, np.int64), Gathered(spool, np.int32)
        self._scores = Gathered(spool, np.float32)
        self._width: int | None = None
        self._named = False

    def add(self, batch: Array, second: Array | None = None) -> None:
        rows = batch.reshape(len(batch), -1)
        width = rows.shape[1]
        if (batch.ndim > 2 and width != batch.shape[1]) or width == 0 or self._width not in {None, width}:  # noqa: PLR2004  ([n, classes, 1, 1] is fine)
            raise BindingMismatch(
                f"The output {self._name!r} has the shape {list(batch.shape)}; one row of class scores a sample is needed.",
                hint=NAME_A_DECODER,
            )
        self._width, self._named = width, width == 1 and rows.dtype.kind in "iub"
        broken = _no_finite_best(rows)
        self._mark(broken)
        if self._named:
            self._best.add(rows[:, 0])
            return
        if self._kept or width == 1:
            self._scores.add(rows)
        if width > 1:
            top = _best_first(rows, min(_TOP, width - 1))
            top[broken] = -1
            self._best.add(top[:, 0])
            self._top.add(top)

    def predictions(self) -> Classes:
        if self._width == 1 and not self._named:
            scores = self._scores.rows()
            self._best = _binary(scores, self._spool)
        top = self._top.rows() if self._width is not None and self._width > 2 else None  # noqa: PLR2004  (the other one is no second best)
        kept = self._scores.rows() if self._kept and not self._named else None
        return Classes(self._best.rows(), top, kept, self._broken)


def _best_first(rows: Array, count: int) -> Ints:
    """The best classes of each row [n, count], of equals the first."""
    left = rows.astype(np.float32)
    if rows.shape[1] <= _SORTED:
        return np.argsort(-left, axis=1, kind="stable")[:, :count].astype(np.int64, copy=False)
    found, each = np.empty((len(rows), count), np.int64), np.arange(len(rows))
    for place in range(count):
        found[:, place] = left.argmax(1)
        left[each, found[:, place]] = -np.inf
    return found


def _binary(scores: Scores, spool: Path | None) -> Gathered:
    """Class 0 or 1 by one score a sample [samples, 1]."""
    bound, best = 0.5 if all_probabilities(scores) else 0.0, Gathered(spool, np.int64)
    for _, part in chunks(scores):
        best.add(np.where(np.isfinite(part[:, 0]), part[:, 0] > bound, -1))
    return best


class _Values(Collector):
    """Values [n, ...]."""

    def __init__(self, name: str, spool: Path | None) -> None:
        super().__init__(name)
        self._values = Gathered(spool, np.float64)

    def add(self, batch: Array, second: Array | None = None) -> None:
        values = batch.reshape(len(batch), -1)
        self._mark(np.asarray(~np.isfinite(values).all(1)))
        self._values.add(values)

    def predictions(self) -> Values:
        return Values(self._values.rows(), self._broken)


class _Sequences(Collector):
    """Scores [n, steps, classes]; batches may differ in steps."""

    def __init__(self, name: str, spool: Path | None, decoder: CtcGreedy) -> None:
        super().__init__(name)
        self._spool, self._decoder = spool, decoder
        self._width = 0
        self._parts: list[Gathered] = []
        """Each of wider rows than the one before."""

    def add(self, batch: Array, second: Array | None = None) -> None:
        if batch.ndim != 3:  # noqa: PLR2004
            raise BindingMismatch(
                f"The output {self._name!r} has the shape {list(batch.shape)}; ctc_greedy reads scores [samples, steps, classes].",
                hint="Name another output in the binding, or leave `decoder` out where there is one class a sample.",
            )
        named = max(self._decoder.blank, *self._decoder.trim, 0)
        if named >= batch.shape[2]:
            raise BindingMismatch(
                f"The output {self._name!r} has {batch.shape[2]:,} classes a step, so that there is no class {named}, which the "
                "decoder names.",
                hint="Classes count from 0; `blank` is mostly the first or the last of them.",
            )
        broken = np.asarray(_no_finite_best(batch).any(1))
        symbols = best_path(batch, self._decoder.blank, self._decoder.trim)
        symbols[broken] = PADDING
        self._mark(broken)
        if symbols.shape[1] > self._width or not self._parts:
            self._width = symbols.shape[1]
            self._parts.append(Gathered(self._spool, np.int32))
        self._parts[-1].add(widened(symbols, self._width))

    def predictions(self) -> Sequences:
        whole, *others = self._parts
        if others:
            whole = Gathered(self._spool, np.int32)
            for part in self._parts:
                for _, symbols in chunks(part.rows()):
                    whole.add(widened(symbols, self._width))
        return Sequences(whole.rows(), self._broken)


class _Decisions(Collector):
    """Numbers [n, ...], as many in every batch."""

    def __init__(self, name: str, spool: Path | None, decoder: Threshold, *, scores: bool) -> None:
        super().__init__(name)
        self._bound = decoder.at
        self._bits = Gathered(spool, np.uint8)
        self._scores = Gathered(spool, np.float32) if scores else None
        self._shape: tuple[int, ...] | None = None

    def add(self, batch: Array, second: Array | None = None) -> None:
        shape = row_shape(batch.shape)
        if 0 in shape or (self._shape is not None and shape != self._shape):
            before = "" if self._shape is None else f" after rows of {list(self._shape)}"
            raise BindingMismatch(
                f"The output {self._name!r} has rows of {list(shape)}{before}; threshold reads as many numbers of every sample.",
                hint="Name another output in the binding.",
            )
        self._shape = shape
        rows = batch.reshape(len(batch), -1)
        self._mark(_no_number(rows))
        self._bits.add(packed(np.greater_equal(rows, self._bound)))
        if rows.shape[1] > _FEW_DECISIONS:
            self._scores = None
        if self._scores is not None:
            self._scores.add(rows)

    def predictions(self) -> Decisions:
        scores = None if self._scores is None else self._scores.rows()
        return Decisions(self._bits.rows(), self._shape or (), scores, self._broken)


def _no_number(rows: Array) -> Bools:
    """Whether a row [n, decisions] holds NaN or an infinity above 0; one below 0 is a no."""
    if rows.dtype.kind != "f":
        return np.zeros(len(rows), np.bool_)
    return np.asarray((np.isnan(rows) | (rows == np.inf)).any(1))


class _Embeddings(Collector):
    """Vectors [n, numbers]; of pairs two at a time."""

    def __init__(self, name: str, spool: Path | None, *, pairs: bool) -> None:
        super().__init__(name)
        self._vectors = Gathered(spool, np.float32)
        self._pairs = Gathered(spool, np.float64) if pairs else None
        self._width: int | None = None

    def add(self, batch: Array, second: Array | None = None) -> None:
        first = self._taken(batch)
        broken = np.asarray(~np.isfinite(first).all(1))
        if self._pairs is not None:
            if second is None:
                raise ValueError("of pairs there are two outputs")
            other = self._taken(second)
            broken |= ~np.isfinite(other).all(1)
            found = cosines(first, other)
            found[broken] = np.nan
            self._pairs.add(found)
        self._mark(broken)
        self._vectors.add(first)

    def _taken(self, batch: Array) -> Scores:
        shape = row_shape(batch.shape)
        if len(shape) != 1 or self._width not in {None, shape[0]}:
            raise BindingMismatch(
                f"The output {self._name!r} has the shape {list(batch.shape)}; embedding reads one vector [samples, numbers] of "
                "each sample.",
                hint="Name an output with one vector a sample, such as the pooled one.",
            )
        self._width = shape[0]
        with np.errstate(over="ignore"):
            return batch.reshape(len(batch), -1).astype(np.float32)

    def predictions(self) -> Embeddings:
        pairs = None if self._pairs is None else self._pairs.rows()
        return Embeddings(self._vectors.rows(), pairs, self._broken)
