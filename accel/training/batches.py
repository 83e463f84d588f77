"""Rows in batches: which rows each batch of an epoch has, and reading them from disk in that order."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from accel.data.bind import Bound
from accel.errors import TrainingFailed
from accel.training import chance
from accel.training.augment import Augmenter

Array = npt.NDArray[np.generic]

_BLOCK_ROWS = 2_048
"""Rows whose order is worked out at a time, and whose pages may be in memory: rows of a shuffled order lie each on another page."""


@dataclass(frozen=True, slots=True)
class Layout:
    """How an epoch is cut: all rows into batches of even size, and some batches into each step."""

    rows: int
    batches: int
    per_step: int

    @classmethod
    def of(cls, rows: int, batch_size: int, *, per_step: int | None, processes: int = 1) -> Layout:
        """Cut an epoch.

        Args:
            rows: Rows that are trained on.
            batch_size: Rows of a batch, at most.
            per_step: Batches of a step; None for all of them.
            processes: How many share out each batch.

        Raises:
            TrainingFailed: There are fewer rows than one batch has; names both.
        """
        if rows < batch_size and per_step is not None:
            raise TrainingFailed(
                f"A batch of {batch_size:,} rows is larger than the {rows:,} rows that are trained on.",
                hint=f"Use a batch_size of {max(rows, 1):,} at most, or gradient_descent, which takes all rows at once.",
            )
        batches = -(-rows // batch_size)
        if not batches or rows // batches < processes:
            raise TrainingFailed(
                f"{rows:,} rows cannot be shared out between {processes} processes.", hint="Use fewer processes."
            )
        return cls(rows, batches, batches if per_step is None else min(per_step, batches))

    @property
    def steps(self) -> int:
        """Steps of an epoch."""
        return -(-self.batches // self.per_step)

    def bounds(self, batch: int) -> tuple[int, int]:
        """Places in the epoch's order that a batch is made of."""
        return self.rows * batch // self.batches, self.rows * (batch + 1) // self.batches

    def rows_of_step(self, step: int) -> int:
        """Rows of all batches of a step."""
        first, last = step * self.per_step, min((step + 1) * self.per_step, self.batches) - 1
        return self.bounds(last)[1] - self.bounds(first)[0]


@dataclass(frozen=True, slots=True)
class Blend:
    """What mixup made of a batch's targets: a share of them, and the rest of others."""

    share: float
    targets: Array | None


@dataclass(frozen=True, slots=True)
class Batch:
    """This process's part of one batch."""

    number: int
    """Within the epoch, from 0."""
    step: int
    """Of the epoch, from 0."""
    ends_step: bool
    rows: int
    step_rows: int
    """Rows of the whole step, over all processes."""
    feeds: dict[str, Array]
    targets: Array | None
    blend: Blend | None


@dataclass(frozen=True, slots=True)
class Part:
    """Which of the processes this is."""

    rank: int = 0
    of: int = 1

    def cut(self, rows: int) -> tuple[int, int]:
        """This process's rows of a batch."""
        return rows * self.rank // self.of, rows * (self.rank + 1) // self.of


@dataclass(frozen=True, slots=True)
class Stream:
    """Batches of one process, read as they are needed. Two streams that are alike give the same, from any batch on."""

    bound: Bound
    layout: Layout
    seed: int
    augmenter: Augmenter
    part: Part

    def epoch(self, epoch: int, first: int = 0) -> Iterator[Batch]:
        """Yield an epoch's batches from the one with the number ``first`` on."""
        layout, number = self.layout, first
        order = chance.key(self.seed, "order", epoch)
        while number < layout.batches:
            start = layout.bounds(number)[0]
            last = number
            while last + 1 < layout.batches and layout.bounds(last + 1)[1] - start <= _BLOCK_ROWS:
                last += 1
            numbers = chance.permuted(order, start, layout.bounds(last)[1], layout.rows)
            block = _Block(self.bound.select(numbers), numbers, self.augmenter, epoch)
            for batch in range(number, last + 1):
                begin, end = layout.bounds(batch)
                yield self._batch(block, batch, begin - start, end - start)
            number = last + 1

    def _batch(self, block: _Block, number: int, start: int, stop: int) -> Batch:
        layout, size = self.layout, stop - start
        low, high = self.part.cut(size)
        step = number // layout.per_step
        feeds, targets = block.take(start + low, start + high)
        blend = None
        drawn = self.augmenter.mixed(block.epoch, number, size)
        if drawn is not None:
            share, way = drawn
            # The partner of a row is some places further in the whole batch, whichever process has it.
            pieces = [(low + way) % size, (high - 1 + way) % size + 1]
            others = (
                [block.take(start + pieces[0], start + pieces[1])]
                if pieces[0] < pieces[1]
                else [block.take(start + pieces[0], stop), block.take(start, start + pieces[1])]
            )
            other = {name: _joined([found[name] for found, _ in others]) for name in feeds}
            feeds = self.augmenter.blended(feeds, other, share)
            blend = Blend(share, None if targets is None else _joined([found for _, found in others]))
        return Batch(
            number=number,
            step=step,
            ends_step=(number + 1) % layout.per_step == 0 or number + 1 == layout.batches,
            rows=high - low,
            step_rows=layout.rows_of_step(step),
            feeds=feeds,
            targets=targets,
            blend=blend,
        )


@dataclass(frozen=True, slots=True)
class _Block:
    """Some rows in the epoch's order."""

    bound: Bound
    numbers: chance.Ints
    augmenter: Augmenter
    epoch: int

    def take(self, start: int, stop: int) -> tuple[dict[str, Array], Array | None]:
        feeds = self.augmenter.applied(self.bound.feed(start, stop), self.numbers[start:stop], self.epoch)
        return feeds, None if self.bound.target is None else self.bound.labels(start, stop)


def _joined(parts: list[Array | None]) -> Array:
    whole = [part for part in parts if part is not None]
    return whole[0] if len(whole) == 1 else np.concatenate(whole)
