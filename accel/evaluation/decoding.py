"""The arithmetic of the decoders: sequences from scores of classes, decisions as bits, and vectors by their cosine."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.generic]
Bits = npt.NDArray[np.uint8]
Bools = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]
Symbols = npt.NDArray[np.int32]

Size = TypeVar("Size", int, int | str | None)

PADDING = -1
"""Stands behind the end of a sequence."""


def best_path(scores: Array, blank: int, trim: Sequence[int] = ()) -> Symbols:
    """The best class of each step, repetitions merged and blanks dropped: greedy decoding of a CTC output.

    Source: Graves et al., Connectionist Temporal Classification, ICML 2006, section 3.2.

    Args:
        scores: [samples, steps, classes].
        blank: Number of the class that stands for nothing.
        trim: Classes that are dropped at both ends.

    Returns:
        [samples, longest], each row filled up with ``PADDING``.
    """
    best = scores.argmax(2)
    kept = best != blank
    kept[:, 1:] &= best[:, 1:] != best[:, :-1]
    return _trimmed(_closed_up(best, kept), trim)


def without_padding(labels: Array, blank: int, trim: Sequence[int] = ()) -> Symbols:
    """Target sequences [samples, length] in the form of :func:`best_path`: numbers below 0 and blanks fall away."""
    numbers = labels.astype(np.int64)
    return _trimmed(_closed_up(numbers, (numbers >= 0) & (numbers != blank)), trim)


def _trimmed(symbols: Symbols, trim: Sequence[int]) -> Symbols:
    if not trim:
        return symbols
    inner = ~np.isin(symbols, [PADDING, *trim])
    begun, unended = (np.logical_or.accumulate(part, axis=1) for part in (inner, inner[:, ::-1]))
    return _closed_up(symbols, begun & unended[:, ::-1])


def _closed_up(numbers: Ints | Symbols, kept: Bools) -> Symbols:
    """What is kept of each row, moved to the front."""
    lengths = kept.sum(1)
    closed = np.full((len(numbers), int(lengths.max(initial=0))), PADDING, np.int32)
    closed[np.arange(closed.shape[1]) < lengths[:, None]] = numbers[kept]
    return closed


def same(first: Symbols, second: Symbols) -> Bools:
    """For each sample, whether the whole sequences are equal."""
    width = max(first.shape[1], second.shape[1])
    return np.asarray((widened(first, width) == widened(second, width)).all(1))


def widened(symbols: Symbols, width: int) -> Symbols:
    """The same sequences with more padding."""
    return np.pad(symbols, ((0, 0), (0, width - symbols.shape[1])), constant_values=PADDING)


def packed(decisions: Bools) -> Bits:
    """Decisions [samples, ...] as bits [samples, bytes]; the bits behind the last decision are 0."""
    return np.packbits(decisions.reshape(len(decisions), -1), axis=1)


def counted(bits: Bits) -> npt.NDArray[np.float64]:
    """How many decisions of each sample are yes."""
    return np.asarray(np.bitwise_count(bits).sum(1), np.float64)


def cosines(first: Array, second: Array) -> npt.NDArray[np.float64]:
    """Cosine of each row's two vectors [n, numbers]; 0 where one of them is 0."""
    one, two = first.astype(np.float64), second.astype(np.float64)
    dots = np.einsum("ij,ij->i", one, two)
    with np.errstate(invalid="ignore"):
        lengths = np.sqrt(np.einsum("ij,ij->i", one, one) * np.einsum("ij,ij->i", two, two))
        return np.asarray(np.divide(dots, lengths, out=np.zeros_like(dots), where=lengths != 0))


def row_shape(shape: Sequence[Size]) -> tuple[Size, ...]:
    """Shape of one sample of an array, or of a port, without axes of size 1 at the end."""
    row = list(shape[1:])
    while row and row[-1] == 1:
        row.pop()
    return tuple(row)
