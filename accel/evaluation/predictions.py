"""What models, or the target, say about samples: arrays with one row a sample."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import ClassVar, Literal

import numpy as np
import numpy.typing as npt

from accel.data.binding import CtcGreedy, Decoder, Embedding, Threshold
from accel.errors import BindingMismatch
from accel.evaluation.contract import METRICS, Metric
from accel.evaluation.decoding import Bits, Ints, Symbols

Array = npt.NDArray[np.generic]
Floats = npt.NDArray[np.float64]
Scores = npt.NDArray[np.float32]

Reading = Literal["classes", "values"] | Decoder
"""How an output is read."""

NAME_A_DECODER = (
    'Say in the binding how the output is read: {"decoder": {"decoder": "ctc_greedy"}} for sequences, '
    '{"decoder": {"decoder": "threshold"}} for many yes/no decisions a sample, {"decoder": {"decoder": "embedding"}} for '
    "vectors; or name another output."
)
"""What helps where a sample has more than one class."""


def _none() -> Ints:
    return np.zeros(0, np.int64)


@dataclass(frozen=True, slots=True)
class Classes:
    """A class for each sample."""

    what: ClassVar[str] = "a class for each sample"
    metrics: ClassVar[tuple[Metric, ...]] = METRICS["classes"]

    best: Ints
    """[samples]; -1, which is no label, where the output is not finite."""
    top: Symbols | None = None
    """The ten best classes [samples, 10], best first, or all but one where there are fewer; None of two classes."""
    scores: Scores | None = None
    """Probabilities or logits as the model gives them [samples, classes], or one score [samples, 1]; None where they were not kept."""
    not_finite: Ints = field(default_factory=_none)
    """Numbers of the rows whose output is not finite, ascending."""

    def __len__(self) -> int:
        return len(self.best)

    def select(self, index: Ints) -> Classes:
        """Some of the samples, by their numbers."""
        return Classes(
            self.best[index],
            None if self.top is None else self.top[index],
            None if self.scores is None else self.scores[index],
            _renumbered(self.not_finite, index),
        )


@dataclass(frozen=True, slots=True)
class Values:
    """Numbers for each sample."""

    what: ClassVar[str] = "values"
    metrics: ClassVar[tuple[Metric, ...]] = METRICS["values"]

    numbers: Floats
    """[samples, numbers]."""
    not_finite: Ints = field(default_factory=_none)
    """Numbers of the rows that hold what is not finite, ascending."""

    def __len__(self) -> int:
        return len(self.numbers)

    def select(self, index: Ints) -> Values:
        """Some of the samples, by their numbers."""
        return Values(self.numbers[index], _renumbered(self.not_finite, index))


@dataclass(frozen=True, slots=True)
class Sequences:
    """A sequence for each sample."""

    what: ClassVar[str] = "a sequence for each sample"
    metrics: ClassVar[tuple[Metric, ...]] = METRICS["ctc_greedy"]

    symbols: Symbols
    """[samples, longest], filled up with ``PADDING``; nothing but that where the output is not finite."""
    not_finite: Ints = field(default_factory=_none)
    """Numbers of the rows whose output is not finite, ascending."""

    def __len__(self) -> int:
        return len(self.symbols)

    def select(self, index: Ints) -> Sequences:
        """Some of the samples, by their numbers."""
        return Sequences(self.symbols[index], _renumbered(self.not_finite, index))


@dataclass(frozen=True, slots=True)
class Decisions:
    """Yes or no, as many times for each sample."""

    what: ClassVar[str] = "yes/no decisions"
    metrics: ClassVar[tuple[Metric, ...]] = METRICS["threshold"]

    bits: Bits
    """[samples, bytes]; eight decisions a byte."""
    shape: tuple[int, ...]
    """Shape of one sample's decisions, without axes of size 1 at the end; an array of sizes is taken too."""
    scores: Scores | None = None
    """What was held against the bound [samples, decisions]; None where it was not kept."""
    not_finite: Ints = field(default_factory=_none)
    """Numbers of the rows whose output is not finite, ascending: all of their decisions count as wrong."""

    def __post_init__(self) -> None:
        # An array of sizes is what a file of arrays gives back.
        object.__setattr__(self, "shape", tuple(int(size) for size in self.shape))

    def __len__(self) -> int:
        return len(self.bits)

    @property
    def each(self) -> int:
        """Decisions of one sample."""
        return math.prod(self.shape)

    def select(self, index: Ints) -> Decisions:
        """Some of the samples, by their numbers."""
        return Decisions(
            self.bits[index],
            self.shape,
            None if self.scores is None else self.scores[index],
            _renumbered(self.not_finite, index),
        )


@dataclass(frozen=True, slots=True)
class Embeddings:
    """A vector for each sample; of pairs, the cosine of each pair's vectors too."""

    what: ClassVar[str] = "a vector for each sample"
    metrics: ClassVar[tuple[Metric, ...]] = METRICS["embedding"]

    vectors: Scores | None
    """[samples, numbers], of pairs the first one's; None of a target that is a score for each pair."""
    pairs: Floats | None = None
    """Cosine of each pair [samples], or the score that the target gives it; None where rows are no pairs."""
    not_finite: Ints = field(default_factory=_none)
    """Numbers of the rows whose vectors are not finite, ascending."""

    def __len__(self) -> int:
        held = self.pairs if self.vectors is None else self.vectors
        return 0 if held is None else len(held)

    def select(self, index: Ints) -> Embeddings:
        """Some of the samples, by their numbers."""
        return Embeddings(
            None if self.vectors is None else self.vectors[index],
            None if self.pairs is None else self.pairs[index],
            _renumbered(self.not_finite, index),
        )


Predictions = Classes | Values | Sequences | Decisions | Embeddings
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
        case Embedding():
            return Embeddings


def _renumbered(rows: Ints, index: Ints) -> Ints:
    """The places within ``index`` of some rows."""
    return np.flatnonzero(np.isin(index, rows)) if len(rows) else rows


def check_alike(said: Predictions, truth: Predictions) -> None:
    """Refuse to compare what is not of one shape.

    Raises:
        BindingMismatch: Names both shapes.
    """
    match said, truth:
        case Decisions(), Decisions() if said.shape != truth.shape:
            raise BindingMismatch(
                f"The output has rows of {list(said.shape)}, what it is compared with has rows of {list(truth.shape)}; threshold "
                "needs one label for each number.",
                hint="Axes of size 1 at the end do not count. Check the target, and which output the binding names.",
            )
        case Values(one), Values(two) if one.shape[1:] != two.shape[1:]:
            raise BindingMismatch(
                f"The target has {_values(two.shape[1])} a sample, the output has {_values(one.shape[1])}.",
                hint="Both need as many. Check the target, and which output the binding names; where the target is classes, make it "
                "whole numbers or set the task to classification in the dataset's spec.",
            )
        case Embeddings(one), Embeddings(two) if two is not None and (one is None or one.shape[1] != two.shape[1]):
            has = "no vectors" if one is None else f"vectors of {one.shape[1]:,} numbers"
            raise BindingMismatch(
                f"The output has {has}, what it is compared with has vectors of {two.shape[1]:,} numbers.",
                hint="cosine needs vectors of one length on both sides; of pairs with a score use spearman.",
            )
        case _:
            pass


def _values(count: int) -> str:
    return "1 value" if count == 1 else f"{count:,} values"
