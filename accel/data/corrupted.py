"""A split whose columns are corrupted before the steps of the binding, so that every model sees the same damage."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from accel.data.bind import Bound, Feed
from accel.data.corruption import Corruption, CorruptionName
from accel.data.damage import Array, Damage, Facts, spatial
from accel.data.dataset import Rows
from accel.errors import BindingMismatch

_CHUNK_BYTES = 1 << 20
_LONG = 64
"""Entries of a last axis that may be time."""
_NEEDS: dict[CorruptionName, str] = {
    "gaussian_noise": "images: rows of two axes or more, uint8 or float",
    "blur": "images: rows of two axes or more, uint8 or float",
    "brightness": "images: rows of two axes or more, uint8 or float",
    "occlusion": "images: rows of two axes or more, uint8 or float",
    "audio_noise": f"audio: rows of one axis, or whose last axis has {_LONG} entries or more, int16 or float",
    "missing": "numbers of a table: rows of one value or one axis, for an input of floats",
}


@dataclass(frozen=True, kw_only=True)
class CorruptedRows(Rows):
    """Rows of a column, damaged as they are read."""

    damage: Damage

    def select(self, index: npt.NDArray[np.int64]) -> CorruptedRows:
        """Some of these rows; each is damaged as before."""
        return replace(self, index=index if self.index is None else self.index[index])

    def take(self, start: int, stop: int) -> Array:
        """Rows from ``start`` to ``stop``, damaged."""
        batch = super().take(start, stop)
        numbers = np.arange(start, start + len(batch)) if self.index is None else self.index[start:stop]
        return self.damage.apply(batch, numbers)


def corrupted(bound: Bound, corruption: Corruption, *, seed: int) -> Bound:
    """The same rows, with every column damaged that fits the corruption.

    Values of ``missing`` become the column's mean over the split, as a service would fill them in. The range of images that are
    not uint8 is that of the split's values; noise of audio is measured against the split's mean power.

    Args:
        bound: A split that is bound to a model.
        corruption: What happens to its rows.
        seed: Seed of what is drawn at random, for each row anew.

    Raises:
        BindingMismatch: No column that feeds the model fits.
    """
    whole = (*bound.feeds, *(bound.second or ()))
    fed = tuple(_damaged(feed, corruption, seed) for feed in whole)
    if all(after is before for after, before in zip(fed, whole, strict=True)):
        name = corruption.corruption
        columns = ", ".join(
            f"{feed.column!r} has rows of {feed.rows.dtype} {list(feed.rows.shape)}"
            for feed in whole
            if feed.rows is not None
        )
        raise BindingMismatch(
            f"The corruption {name} fits no column that feeds the model: {columns or 'only constants do'}.",
            hint=f"It is of {_NEEDS[name]}. Leave it out, or choose another.",
        )
    firsts = len(bound.feeds)
    return replace(bound, feeds=fed[:firsts], second=None if bound.second is None else fed[firsts:])


def _damaged(feed: Feed, corruption: Corruption, seed: int) -> Feed:
    rows = feed.rows
    if rows is None or not _fits(feed, rows, corruption.corruption):
        return feed
    damage = Damage(corruption, seed, feed.column, _facts(rows, corruption.corruption))
    return replace(feed, rows=CorruptedRows(rows.stored, rows.workspace, rows.index, damage=damage))


def _fits(feed: Feed, rows: Rows, name: CorruptionName) -> bool:
    kind, shape = rows.dtype.kind, rows.shape
    if name == "audio_noise":
        long = len(shape) == 1 or (bool(shape) and shape[-1] >= _LONG)
        return long and (kind == "f" or rows.dtype == np.int16)
    if name == "missing":
        floats = kind == "f" or (kind in "iu" and feed.port.dtype is not None and feed.port.dtype.kind == "f")
        return len(shape) <= 1 and floats
    if len(shape) < 2 or (kind != "f" and rows.dtype not in (np.uint8, np.uint16)):  # noqa: PLR2004  (an image)
        return False
    return all(shape[axis - 1] > 1 for axis in spatial(shape))


def _facts(rows: Rows, name: CorruptionName) -> Facts:
    """What must be known of the whole column; it is read in pieces."""
    if name == "blur":
        return Facts()
    if name == "audio_noise":
        squares = [(float((part**2).sum()), part.size) for part in _finite(rows)]
        return Facts(power=sum(total for total, _ in squares) / max(1, sum(size for _, size in squares)))
    if name == "missing":
        return Facts(mean=_mean(rows))
    if rows.dtype == np.uint8:
        return Facts(low=0.0, high=255.0)
    extremes = [(float(part.min()), float(part.max())) for part in _finite(rows) if part.size]
    return Facts(
        low=min((low for low, _ in extremes), default=0.0), high=max((high for _, high in extremes), default=0.0)
    )


def _mean(rows: Rows) -> npt.NDArray[np.float64]:
    """Mean of each value of a row over what is finite; 0 where nothing is."""
    total, known = np.zeros(rows.shape), np.zeros(rows.shape)
    for part in _parts(rows):
        finite = np.isfinite(part)
        total += np.where(finite, part, 0).sum(0)
        known += finite.sum(0)
    return np.asarray(total / np.maximum(known, 1))


def _finite(rows: Rows) -> Iterator[npt.NDArray[np.float64]]:
    for part in _parts(rows):
        yield part[np.isfinite(part)]


def _parts(rows: Rows) -> Iterator[npt.NDArray[np.float64]]:
    size = max(1, _CHUNK_BYTES // max(1, rows.dtype.itemsize * int(np.prod(rows.shape))))
    for start in range(0, len(rows), size):
        yield rows.take(start, min(start + size, len(rows))).astype(np.float64)
