"""Sums of two products that saturate at 16 bits: what x86-64 processors without VNNI do with 8-bit layers.

VPMADDUBSW multiplies unsigned by signed bytes and adds the products two by two into signed 16-bit numbers, which saturate;
only then are they widened to 32 bits. With VNNI all is added in 32 bits, so the same file gives other results there.
The kernels of ONNX Runtime pair the products 2j and 2j + 1 of each output channel.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

Bytes = npt.NDArray[np.uint8]
Weights = npt.NDArray[np.int8]
Int32 = npt.NDArray[np.int32]

LOW, HIGH = -(2**15), 2**15 - 1
"""What a sum of two products saturates at."""
INPUT_HIGH = 255
_ELEMENTS = 2**22
"""Sums of two products that are computed at once."""


@dataclass(frozen=True, slots=True)
class Pairs:
    """Products that are added two by two, sorted by output channel; each array has shape [pairs]."""

    channel: Int32
    """The output channel."""
    product: Int32
    """The first of the two products; the other one follows it."""
    left: Int32
    """The weight of the first product."""
    right: Int32
    """The weight of the second one."""

    def __len__(self) -> int:
        return len(self.channel)

    def where(self, chosen: npt.NDArray[np.bool_ | np.intp] | slice) -> Pairs:
        """Some of the pairs."""
        return Pairs(self.channel[chosen], self.product[chosen], self.left[chosen], self.right[chosen])

    def channels(self) -> Iterator[tuple[int, slice]]:
        """Each output channel that is there, and where its pairs are."""
        starts = np.flatnonzero(np.diff(self.channel, prepend=-1))
        for start, end in pairwise([*starts.tolist(), len(self)]):
            yield int(self.channel[start]), slice(start, end)

    def parts(self, limit: int) -> Iterator[slice]:
        """Cut into runs of at most ``limit`` pairs that keep the pairs of a channel together (more, where it has more)."""
        begin = 0
        for _, own in self.channels():
            if own.stop - begin > limit and own.start > begin:
                yield slice(begin, own.start)
                begin = own.start
        if begin < len(self):
            yield slice(begin, len(self))

    def can_saturate(self, left: npt.ArrayLike, right: npt.ArrayLike) -> npt.NDArray[np.bool_]:
        """Which pairs can saturate when their two inputs are 0 to ``left`` and 0 to ``right``; exact."""
        return _beyond(self.left, self.right, left, right)

    def excess(self, left: Bytes, right: Bytes) -> Int32:
        """What saturation adds to each sum: clip(p) - p, 0 where it does not saturate.

        Args:
            left: Inputs of the first products, [pairs, dot products].
            right: Inputs of the second ones.
        """
        sums = left.astype(np.int32) * self.left[:, None]
        sums += right.astype(np.int32) * self.right[:, None]
        excess: Int32 = np.clip(sums, LOW, HIGH) - sums
        return excess


def _beyond(left: Int32, right: Int32, high_left: npt.ArrayLike, high_right: npt.ArrayLike) -> npt.NDArray[np.bool_]:
    # One product never saturates (255 * 128 < 2^15), so both weights have the same sign, and the worst inputs are the highest.
    most = np.maximum(left, 0) * np.asarray(high_left, np.int32) + np.maximum(right, 0) * np.asarray(
        high_right, np.int32
    )
    least = np.minimum(left, 0) * np.asarray(high_left, np.int32) + np.minimum(right, 0) * np.asarray(
        high_right, np.int32
    )
    beyond: npt.NDArray[np.bool_] = (most > HIGH) | (least < LOW)
    return beyond


def pairs_at_risk(weights: Weights) -> Pairs:
    """The pairs that some input in 0 to 255 can saturate; without them a layer is safe whatever comes in.

    A pair is safe if 255 (max(a, 0) + max(b, 0)) <= 32767 and 255 (min(a, 0) + min(b, 0)) >= -32768.

    Args:
        weights: Integers as they are stored, [out, products], in the order in which the kernel multiplies.
    """
    even = weights[:, : weights.shape[1] // 2 * 2].astype(
        np.int32
    )  # an odd one at the end is alone, and never saturates
    left, right = even[:, 0::2], even[:, 1::2]
    channel, pair = np.nonzero(_beyond(left, right, INPUT_HIGH, INPUT_HIGH))
    return Pairs(channel.astype(np.int32), (2 * pair).astype(np.int32), left[channel, pair], right[channel, pair])


def safe_in_any_order(weights: Weights) -> bool:
    """Whether no two products of a channel can saturate, so that it does not matter which ones a kernel pairs.

    Args:
        weights: Integers as they are stored, [out, products].
    """
    if weights.shape[1] < 2:  # noqa: PLR2004  (a pair)
        return True
    ordered = np.sort(weights.astype(np.int32), 1)
    ends = (ordered[:, :2], ordered[:, -2:])
    return not any(_beyond(end[:, 0], end[:, 1], INPUT_HIGH, INPUT_HIGH).any() for end in ends)


def saturating_product(inputs: Bytes, weights: Weights) -> Int32:
    """The matrix product as processors without VNNI compute it, to the last bit.

    Args:
        inputs: [n, products], zero points not subtracted.
        weights: [products, out].

    Returns:
        Accumulators [n, out], before any correction by zero points.
    """
    exact = inputs.astype(np.float64) @ weights.astype(np.float64)  # whole numbers far below 2^53
    sums = exact.astype(np.int64).T
    pairs = pairs_at_risk(weights.T)
    for part in pairs.parts(max(1, _ELEMENTS // max(1, len(inputs)))):
        some = pairs.where(part)
        excess = some.excess(inputs[:, some.product].T, inputs[:, some.product + 1].T)
        for channel, own in some.channels():
            sums[channel] += excess[own].sum(0)
    return sums.T.astype(np.int32)


@dataclass(frozen=True, slots=True)
class Window:
    """The window of a convolution, one entry for each spatial axis, as ONNX defines them."""

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    pads: tuple[int, ...]
    """At the beginning of each axis, and then at the end of each."""
    auto_pad: str = "NOTSET"

    @property
    def is_point(self) -> bool:
        """Whether output and input positions are the same, one by one."""
        return math.prod(self.kernel) == 1 and not any(self.pads) and set(self.strides) == {1}

    def padding(self, spatial: tuple[int, ...]) -> list[tuple[int, int]]:
        """What is added before and behind each spatial axis of an input of this size."""
        rank = len(self.kernel)
        if self.auto_pad == "NOTSET":
            return list(zip(self.pads[:rank], self.pads[rank:], strict=True))
        found = []
        for size, reach, stride in zip(spatial, self._reach(), self.strides, strict=True):
            total = max((math.ceil(size / stride) - 1) * stride + reach - size, 0) if self.auto_pad != "VALID" else 0
            less, more = total // 2, total - total // 2
            found.append((less, more) if self.auto_pad == "SAME_UPPER" else (more, less))
        return found

    def size(self, spatial: tuple[int, ...]) -> tuple[int, ...]:
        """The spatial size of the output."""
        padded = [size + sum(pads) for size, pads in zip(spatial, self.padding(spatial), strict=True)]
        return tuple(
            (size - reach) // stride + 1
            for size, reach, stride in zip(padded, self._reach(), self.strides, strict=True)
        )

    def columns(
        self, inputs: Bytes, position: npt.NDArray[np.integer], channel: npt.NDArray[np.integer], zero_point: int
    ) -> Bytes:
        """What one place of the window sees of one channel, for each place and channel that is asked for.

        Args:
            inputs: [n, channels, *spatial].
            position: Places in the kernel, row by row, [p].
            channel: Input channels, [p].
            zero_point: The integer that stands for 0, with which the border is filled.

        Returns:
            [p, n * output positions].
        """
        spatial = inputs.shape[2:]
        padding, size = self.padding(spatial), self.size(spatial)
        if any(before or behind for before, behind in padding):
            inputs = np.pad(inputs, [(0, 0), (0, 0), *padding], constant_values=zero_point)
        columns = np.empty((len(position), len(inputs) * math.prod(size)), np.uint8)
        for place in np.unique(position):
            here = position == place
            starts = (
                int(index) * step
                for index, step in zip(np.unravel_index(place, self.kernel), self.dilations, strict=True)
            )
            seen = tuple(
                slice(start, start + (count - 1) * stride + 1, stride)
                for start, count, stride in zip(starts, size, self.strides, strict=True)
            )
            columns[here] = np.moveaxis(inputs[(slice(None), channel[here], *seen)], 1, 0).reshape(int(here.sum()), -1)
        return columns

    def _reach(self) -> list[int]:
        return [(size - 1) * step + 1 for size, step in zip(self.kernel, self.dilations, strict=True)]
