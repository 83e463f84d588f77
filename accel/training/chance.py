"""Chance that has no state: what is drawn depends on a key and a number alone.

So a training that was interrupted, or is shared out between processes, draws what it would have drawn otherwise; and a shuffled
order takes no memory, however many rows there are.
"""

from __future__ import annotations

import zlib

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Words = npt.NDArray[np.uint64]
Floats = npt.NDArray[np.float64]

_ROUNDS = 6
_WORD = (1 << 64) - 1
_GOLDEN = 0x9E3779B97F4A7C15
_FIRST, _SECOND = 0xBF58476D1CE4E5B9, 0x94D049BB133111EB


def key(*parts: int | str) -> int:
    """A key of 64 bits for a seed and whatever tells one use of chance from another."""
    found = 0
    for part in parts:
        number = zlib.crc32(part.encode()) if isinstance(part, str) else part
        found = _mixed_one(found ^ _mixed_one(number & _WORD))
    return found


def uniform(of: int, numbers: Ints) -> Floats:
    """A share from 0 to below 1 for each number."""
    return np.asarray((_drawn(of, numbers.astype(np.uint64)) >> np.uint64(11)) * 2.0**-53)


def integers(of: int, numbers: Ints, below: int) -> Ints:
    """A whole number from 0 to below a bound for each number."""
    return np.asarray((uniform(of, numbers) * below).astype(np.int64))


def normal(of: int, number: int, shape: tuple[int, ...]) -> npt.NDArray[np.float32]:
    """Standard normal numbers for one number."""
    generator = np.random.Generator(np.random.Philox(key=np.array([of, number], np.uint64)))
    return generator.standard_normal(shape, dtype=np.float32)


def permuted(of: int, start: int, stop: int, rows: int) -> Ints:
    """What comes at the places ``start`` to ``stop`` of a shuffled order of ``rows`` numbers.

    A Feistel network over the next power of four, walked on where it leads beyond the rows (Black and Rogaway 2002): every
    number comes once, and none is kept.
    """
    half = max(1, (max(rows - 1, 1).bit_length() + 1) // 2)
    keys = [key(of, turn) for turn in range(_ROUNDS)]
    found = np.arange(start, stop, dtype=np.uint64)
    waiting = np.arange(stop - start)
    while len(waiting):
        found[waiting] = _turned(found[waiting], keys, half)
        waiting = waiting[found[waiting] >= rows]
    return found.astype(np.int64)


def _turned(numbers: Words, keys: list[int], half: int) -> Words:
    """Each number of ``2 * half`` bits by another, none twice."""
    mask, shift = np.uint64((1 << half) - 1), np.uint64(half)
    left, right = numbers >> shift, numbers & mask
    for of in keys:
        left, right = right, left ^ (_drawn(of, right) & mask)
    return np.asarray((left << shift) | right)


def _drawn(of: int, numbers: Words) -> Words:
    """64 bits for each number: the finaliser of SplitMix64 (Steele et al. 2014), twice."""
    return _mixed(_mixed(numbers) ^ np.uint64(of))


def _mixed(words: Words) -> Words:
    words = words + np.uint64(_GOLDEN)
    words = (words ^ (words >> np.uint64(30))) * np.uint64(_FIRST)
    words = (words ^ (words >> np.uint64(27))) * np.uint64(_SECOND)
    return np.asarray(words ^ (words >> np.uint64(31)))


def _mixed_one(word: int) -> int:
    word = (word + _GOLDEN) & _WORD
    word = ((word ^ (word >> 30)) * _FIRST) & _WORD
    word = ((word ^ (word >> 27)) * _SECOND) & _WORD
    return word ^ (word >> 31)
