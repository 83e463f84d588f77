"""Scores of classes as probabilities, some rows at a time, so that memory does not grow with the samples."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from accel.data.arrays import give_back
from accel.evaluation.decoding import Ints
from accel.evaluation.predictions import Floats, Scores

Number = TypeVar("Number", bound=np.generic)

_CHUNK = 1 << 18
"""Numbers that are taken in at a time."""
_COLUMNS = 1 << 21
"""The same where whole columns are taken."""
_SUM = 0.01
_ROUNDED = 1 / 512
"""Half a step of probabilities that are rounded to 8 bits; each class may add as much to the sum."""
_WORST_SUM = 0.5
_MOST = 0.99
"""Share of the rows that sum to 1: where a quantized softmax rounds all of a row away, its scores are no logits."""


@dataclass(frozen=True, slots=True)
class Probabilities:
    """The probability of each class for each sample.

    Scores are probabilities where none is below 0 or above 1 and rows sum to 1; else they are logits, and the softmax is taken.
    One score a sample is that of class 1, as a probability or a logit.
    """

    scores: Scores
    """[samples, classes], or [samples, 1] of two classes."""
    given: bool
    """Whether the scores are probabilities already."""

    @classmethod
    def of(cls, scores: Scores) -> Probabilities:
        """Look at all rows to see what the scores are."""
        return cls(scores, all_probabilities(scores))

    def __len__(self) -> int:
        return len(self.scores)

    @property
    def classes(self) -> int:
        """Number of classes."""
        return max(2, int(self.scores.shape[1]))

    def chunks(self) -> Iterator[tuple[int, Floats]]:
        """Yield the first row's number and the probabilities [rows, classes], which sum to 1, of some rows at a time.

        Rows that are not finite are NaN.
        """
        for start, part in chunks(self.scores):
            yield start, self._probabilities(part.astype(np.float64))

    def _probabilities(self, part: Floats) -> Floats:
        if part.shape[1] == 1:
            with np.errstate(over="ignore"):
                one = np.clip(part[:, 0], 0, 1) if self.given else 1 / (1 + np.exp(-part[:, 0]))
            return np.stack([1 - one, one], 1)
        with np.errstate(invalid="ignore", divide="ignore"):
            if self.given:
                total = part.sum(1, keepdims=True)
                return np.asarray(np.where(total == 0, 1 / part.shape[1], part / total))
            powers = np.exp(part - part.max(1, keepdims=True))
            return np.asarray(powers / powers.sum(1, keepdims=True))

    def columns(self, classes: Ints) -> Iterator[tuple[int, Floats]]:
        """Yield the probabilities [samples] of some classes, one at a time, with the class's number."""
        if self.scores.shape[1] == 1:
            found = np.concatenate([part for _, part in self.chunks()])
            yield from ((int(number), found[:, number]) for number in classes)
            return
        # Of probabilities the sum, of logits the logarithm of the sum of their exponentials.
        total = np.empty(len(self))
        for start, part in chunks(self.scores):
            here, exact = slice(start, start + len(part)), part.astype(np.float64)
            if self.given:
                total[here] = exact.sum(1)
            else:
                shift = exact.max(1)
                total[here] = shift + np.log(np.exp(exact - shift[:, None]).sum(1))
        for number, column in columns(self.scores, classes):
            if self.given:
                np.divide(column, total, out=column, where=total != 0)
                column[total == 0] = 1 / self.classes
            else:
                np.exp(np.subtract(column, total, out=column), out=column)
            yield number, column


def columns(scores: Scores, wanted: Ints) -> Iterator[tuple[int, Floats]]:
    """Yield some columns [samples] of scores, one at a time, with the column's number."""
    size = max(1, _COLUMNS // max(1, len(scores)))
    for start in range(0, len(wanted), size):
        numbers = wanted[start : start + size]
        block = np.empty((len(numbers), len(scores)))
        for row, part in chunks(scores):
            block[:, row : row + len(part)] = part[:, numbers].T
        yield from ((int(number), column) for number, column in zip(numbers, block, strict=True))


def chunks(rows: npt.NDArray[Number]) -> Iterator[tuple[int, npt.NDArray[Number]]]:
    """Yield the first row's number and some rows at a time; pages of a mapped file are given back after each."""
    size = max(1, _CHUNK // max(1, rows.shape[1]))
    for start in range(0, len(rows), size):
        yield start, np.asarray(rows[start : start + size])
        give_back(rows)


def all_probabilities(scores: Scores) -> bool:
    """Whether scores are probabilities of classes: none below 0 or above 1, and rows that sum to 1.

    Rows that are not finite say nothing. A sum may be off by what the rounding to 8 bits makes of it.
    """
    width, seen, summed = scores.shape[1], 0, 0
    off = min(_WORST_SUM, _SUM + width * _ROUNDED)
    for _, part in chunks(scores):
        finite = part[np.isfinite(part.max(1))]
        if ((finite < 0) | (finite > 1 + _SUM)).any():
            return False
        seen += len(finite)
        summed += int((np.abs(finite.sum(1, dtype=np.float64) - 1) <= off).sum())
    return seen > 0 and (width == 1 or summed >= _MOST * seen)
