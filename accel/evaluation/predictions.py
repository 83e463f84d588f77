"""What models say about samples, reduced batch by batch so that memory does not grow with the width of the output."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import numpy.typing as npt

from accel.data.binding import CtcGreedy, Decoder, Threshold
from accel.errors import BindingMismatch, RuntimeFailed
from accel.evaluation.contract import Metric
from accel.evaluation.decoding import Bits, Ints, Symbols, best_path, packed, row_shape, stacked

Array = npt.NDArray[np.generic]
Floats = npt.NDArray[np.float64]

Reading = Literal["classes", "values"] | Decoder
"""How an output is read."""

NAME_A_DECODER = (
    'Say in the binding how the output is read: {"decoder": {"decoder": "ctc_greedy"}} for sequences, '
    '{"decoder": {"decoder": "threshold"}} for many yes/no decisions a sample; or name another output.'
)
"""What helps where a sample has more than one class."""
_TOP = 5


@dataclass(frozen=True, slots=True)
class Classes:
    """A class for each sample."""

    what: ClassVar[str] = "a class for each sample"
    metrics: ClassVar[tuple[Metric, ...]] = ("accuracy", "top5_accuracy", "macro_f1", "agreement")

    best: Ints
    """[samples]."""
    top: Ints | None = None
    """The five best [samples, 5] in no order, where there are more."""

    def __len__(self) -> int:
        return len(self.best)

    def select(self, index: Ints) -> Classes:
        """Some of the samples, by their numbers."""
        return Classes(self.best[index], None if self.top is None else self.top[index])


@dataclass(frozen=True, slots=True)
class Values:
    """Numbers for each sample."""

    what: ClassVar[str] = "values"
    metrics: ClassVar[tuple[Metric, ...]] = ("mae", "rmse", "r2")

    numbers: Floats
    """[samples, numbers]."""

    def __len__(self) -> int:
        return len(self.numbers)

    def select(self, index: Ints) -> Values:
        """Some of the samples, by their numbers."""
        return Values(self.numbers[index])


@dataclass(frozen=True, slots=True)
class Sequences:
    """A sequence for each sample."""

    what: ClassVar[str] = "a sequence for each sample"
    metrics: ClassVar[tuple[Metric, ...]] = ("accuracy", "agreement")

    symbols: Symbols
    """[samples, longest], filled up with ``PADDING``."""

    def __len__(self) -> int:
        return len(self.symbols)

    def select(self, index: Ints) -> Sequences:
        """Some of the samples, by their numbers."""
        return Sequences(self.symbols[index])


@dataclass(frozen=True, slots=True)
class Decisions:
    """Yes or no, as many times for each sample."""

    what: ClassVar[str] = "yes/no decisions"
    metrics: ClassVar[tuple[Metric, ...]] = ("f1", "accuracy", "agreement")

    bits: Bits
    """[samples, bytes]; eight decisions a byte."""
    shape: tuple[int, ...]
    """Shape of one sample's decisions, without axes of size 1 at the end."""

    def __len__(self) -> int:
        return len(self.bits)

    @property
    def each(self) -> int:
        """Decisions of one sample."""
        return math.prod(self.shape)

    def select(self, index: Ints) -> Decisions:
        """Some of the samples, by their numbers."""
        return Decisions(self.bits[index], self.shape)


Predictions = Classes | Values | Sequences | Decisions
"""What a model, or the target, says about each sample."""


def kind_of(reading: Reading) -> type[Predictions]:
    """What an output that is read so says."""
    match reading:
        case "classes":
            return Classes
        case "values":
            return Values
        case CtcGreedy():
            return Sequences
        case Threshold():
            return Decisions


class Collector(ABC):
    """Takes in a model's outputs, batch by batch."""

    def __init__(self, name: str) -> None:
        """Begin.

        Args:
            name: Name of the output, for messages.
        """
        self._name = name

    @abstractmethod
    def add(self, batch: Array) -> None:
        """Take in the output for some samples.

        Raises:
            BindingMismatch: Its shape is not one that is read so.
            RuntimeFailed: A value is not finite, where values are compared.
        """

    @abstractmethod
    def predictions(self) -> Predictions:
        """What the model said about every sample."""


def collector(reading: Reading, name: str) -> Collector:
    """Begin to collect an output.

    Args:
        reading: How it is read.
        name: Its name, for messages.
    """
    match reading:
        case "classes":
            return _Classes(name)
        case "values":
            return _Values(name)
        case CtcGreedy():
            return _Sequences(name, reading)
        case Threshold():
            return _Decisions(name, reading)


class _Classes(Collector):
    """Scores [n, classes], one score a sample [n] or [n, 1], or names of classes [n]."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self._parts: list[Array] = []
        self._tops: list[Ints] = []
        self._width = 0

    def add(self, batch: Array) -> None:
        rows = batch.reshape(len(batch), -1)
        self._width = rows.shape[1]
        if batch.ndim > 2 and self._width != batch.shape[1]:  # noqa: PLR2004  ([n, classes, 1, 1] is fine)
            raise BindingMismatch(
                f"The output {self._name!r} has the shape {list(batch.shape)}; one row of class scores a sample is needed.",
                hint=NAME_A_DECODER,
            )
        self._parts.append(rows[:, 0].copy() if self._width == 1 else rows.argmax(1))
        if self._width > _TOP:
            self._tops.append(np.argpartition(-rows.astype(np.float32), _TOP - 1, 1)[:, :_TOP])

    def predictions(self) -> Classes:
        joined = np.concatenate(self._parts)
        if self._width == 1:
            return Classes(_binary(joined))
        return Classes(joined.astype(np.int64), np.concatenate(self._tops) if self._tops else None)


def _binary(scores: Array) -> Ints:
    if scores.dtype.kind in "iub":
        return scores.astype(np.int64)
    floats = scores.astype(np.float64)
    # Probabilities lie within 0 and 1; a score outside shows that these are logits.
    probabilities = bool(((floats >= 0) & (floats <= 1)).all())
    return (floats > (0.5 if probabilities else 0.0)).astype(np.int64)


class _Values(Collector):
    """Values [n, ...]."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self._parts: list[Floats] = []

    def add(self, batch: Array) -> None:
        values = batch.reshape(len(batch), -1).astype(np.float64)
        if not np.isfinite(values).all():
            raise RuntimeFailed(f"The output {self._name!r} holds values that are not finite.")
        self._parts.append(values)

    def predictions(self) -> Values:
        return Values(np.concatenate(self._parts))


class _Sequences(Collector):
    """Scores [n, steps, classes]; batches may differ in steps."""

    def __init__(self, name: str, decoder: CtcGreedy) -> None:
        super().__init__(name)
        self._decoder = decoder
        self._parts: list[Symbols] = []

    def add(self, batch: Array) -> None:
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
        self._parts.append(best_path(batch, self._decoder.blank, self._decoder.trim))

    def predictions(self) -> Sequences:
        return Sequences(stacked(self._parts))


class _Decisions(Collector):
    """Numbers [n, ...], as many in every batch."""

    def __init__(self, name: str, decoder: Threshold) -> None:
        super().__init__(name)
        self._bound = decoder.at
        self._parts: list[Bits] = []
        self._shape: tuple[int, ...] | None = None

    def add(self, batch: Array) -> None:
        shape = row_shape(batch.shape)
        if 0 in shape or (self._shape is not None and shape != self._shape):
            before = "" if self._shape is None else f" after rows of {list(self._shape)}"
            raise BindingMismatch(
                f"The output {self._name!r} has rows of {list(shape)}{before}; threshold reads as many numbers of every sample.",
                hint="Name another output in the binding.",
            )
        self._shape = shape
        self._parts.append(packed(np.greater_equal(batch, self._bound)))

    def predictions(self) -> Decisions:
        return Decisions(np.concatenate(self._parts), self._shape or ())
